"""Mixtures of experts as transformers exports them, recognised and compared: `python -m benchmarks.moe_exports`.

Every family in a small size with random weights, by transformers' own exporter, with the experts sorted (`grouped_mm`),
looked up (`batched_mm`), or as the model's own code has them; ids of any batch and length. Every layer's mixture has to
become the operator, and the logits have to be onnxruntime's. Needs `pip install 'dscc[exports,verify]'`.
"""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import dscc
from benchmarks import report
from benchmarks.models import cache_folder

FORMS = ("grouped_mm", "batched_mm", "own")
SIZES = ((1, 1), (2, 9), (3, 31), (1, 130))  # batch, length
MOST = 1e-4  # of the largest logit
LAYERS = 2


@dataclass(frozen=True)
class Family:
    """An architecture of transformers: the names of its configuration and model, what it sets, layers with experts.

    Attributes:
        forms: those that can be asked for; "own" is what the model's code does.
    """

    name: str
    settings: dict[str, Any]
    mixtures: int = LAYERS
    forms: tuple[str, ...] = FORMS[:2]


_BASE = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "use_cache": False,
}
_DEEPSEEK = {
    "num_key_value_heads": 4,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}
FAMILIES = {
    "mixtral": Family("Mixtral", {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2_moe": Family(
        "Qwen2Moe",
        {
            "num_key_value_heads": 2,
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 48,
        },
    ),
    "qwen3_moe": Family(
        "Qwen3Moe",
        {
            "num_key_value_heads": 2,
            "head_dim": 16,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
        },
    ),
    "olmoe": Family("Olmoe", {"num_key_value_heads": 2, "num_experts": 6, "num_experts_per_tok": 2}),
    "gpt_oss": Family(
        "GptOss",
        {
            "num_key_value_heads": 2,
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 8,
            "attn_implementation": "eager",
        },
    ),
    "deepseek_v2": Family("DeepseekV2", _DEEPSEEK, LAYERS - 1),
    "deepseek_v3": Family("DeepseekV3", _DEEPSEEK, LAYERS - 1),
    "granitemoe": Family("GraniteMoe", {"num_key_value_heads": 2, "num_local_experts": 8, "num_experts_per_tok": 2}),
    # The experts of its attention have one product each, and are no mixture of two.
    "jetmoe": Family(
        "JetMoe",
        {"num_key_value_heads": 2, "kv_channels": 16, "num_local_experts": 8, "num_experts_per_tok": 2},
        forms=("own",),
    ),
}


def export(family: Family, form: str, path: Path) -> None:
    """Write the family's model to `path`."""
    import onnx_ir
    import torch
    import transformers
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    torch.manual_seed(1)
    asked = {} if form == "own" else {"experts_implementation": form}
    config = getattr(transformers, f"{family.name}Config")(**_BASE, **family.settings, **asked)
    model = getattr(transformers, f"{family.name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            # What makes choices is zero at first, which would leave them ties; biases would not show.
            if any(word in name for word in ("router", "gate.", "bias", "sinks")):
                weight.normal_(std=0.2)  # beyond 18, onnxruntime's sigmoid is that of 18
        ids = torch.randint(0, 512, (2, 9))
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            made = OnnxExporter().export(model, {"input_ids": ids}, config=OnnxConfig(dynamic=True))
    onnx_ir.save(made.program, path)


@dataclass(frozen=True)
class Row:
    """What came out of one file: how many mixtures became the operator, and the largest error."""

    family: str
    form: str
    recognised: int
    expected: int
    error: float

    @property
    def good(self) -> bool:
        return self.recognised == self.expected and self.error <= MOST


def checked(path: Path, family: str, form: str) -> Row:
    """Compile a file, and compare it at all sizes."""
    artifact = dscc.compile(path, opt_level=3)
    run = artifact.load().run
    proto = onnx.load(path)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch, length in SIZES:
        ids = np.random.default_rng(length).integers(0, 512, (batch, length))
        feeds = {"input_ids": ids} | {
            each.name: np.ones((batch, length), np.int64) for each in proto.graph.input if each.name != "input_ids"
        }
        want, got = session.run(None, feeds)[0], run(None, feeds)[0]
        worst = max(worst, float(np.abs(want - got).max() / np.abs(want).max()))
    recognised = int(artifact.manifest.summary["fused"].get("fuse-experts", 0))
    return Row(family, form, recognised, FAMILIES[family].mixtures, worst)


def rows(families: Sequence[str], forms: Sequence[str], folder: Path) -> Iterator[Row]:
    folder.mkdir(parents=True, exist_ok=True)
    for family in families:
        for form in (form for form in forms if form in FAMILIES[family].forms):
            path = folder / f"{family}.{form}.onnx"
            if not path.exists():
                export(FAMILIES[family], form, path)
            yield checked(path, family, form)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Mixtures of experts as transformers exports them.")
    names: Callable[[str], list[str]] = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--families", type=names, default=list(FAMILIES))
    parser.add_argument("--forms", type=names, default=list(FORMS))
    parser.add_argument("--folder", type=Path, default=cache_folder() / "experts", help="where the files are kept")
    args = parser.parse_args(argv)
    found = list(rows(args.families, args.forms, args.folder))
    cells = [
        [row.family, row.form, f"{row.recognised} of {row.expected}", f"{row.error:.1e}", "yes" if row.good else "no"]
        for row in found
    ]
    print(report.table(["family", "form", "mixtures", "error", "good"], cells))
    return 0 if all(row.good for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
