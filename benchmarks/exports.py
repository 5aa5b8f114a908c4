"""Export networks with random weights to ONNX: `python -m benchmarks.exports --folder DIR [NAME...]`.

Four come from `networks.py` in the sizes of their papers, the others from `architectures/`, each by one of torch's two
exporters. Files go to the cache folder outside the repository. An export is checked against torch before it is put in
place, so a file that is there is a file that was right.

With `--program CASE` (a model, or `model:case`) the network is written as torch's own program (`.pt2`), of the shapes
of the case alone: what PyTorch Inductor compiles.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import models

OPSET = 17
SEED = 20260101
TOKENS = {0: "batch", 1: "sequence"}
IMAGE = {0: "batch", 2: "height", 3: "width"}


@dataclass(frozen=True)
class Export:
    """What is needed to export one network.

    Attributes:
        network: name of the class in `networks.py`.
        inputs: input name to its dynamic axes; an image is (batch, 3, height, width), tokens are (batch, sequence).
        outputs: output name to its dynamic axes.
        size: height and width, or sequence length, of the example that is traced.
        calibrate: whether there are batch-norm statistics to be made.
    """

    network: str
    inputs: dict[str, dict[int, str]]
    outputs: dict[str, dict[int, str]]
    size: int
    calibrate: bool = False


EXPORTS = {
    "resnet50": Export("ResNet50", {"input": IMAGE}, {"logits": {0: "batch"}}, 224, calibrate=True),
    "mobilenetv2": Export("MobileNetV2", {"input": IMAGE}, {"logits": {0: "batch"}}, 224, calibrate=True),
    "vit_s": Export("ViTSmall", {"pixel_values": {0: "batch"}}, {"logits": {0: "batch"}}, 224),
    "bert_base": Export(
        "BertBase",
        {"input_ids": TOKENS, "attention_mask": TOKENS, "token_type_ids": TOKENS},
        {"last_hidden_state": TOKENS, "pooler_output": {0: "batch"}},
        128,
    ),
}


def example(export: Export, batch: int, seed: int) -> tuple[Any, ...]:
    """Torch tensors for one call of the network."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    if "input_ids" not in export.inputs:
        return (torch.randn(batch, 3, export.size, export.size, generator=generator),)
    ids = torch.randint(0, 30522, (batch, export.size), generator=generator)
    return ids, torch.ones_like(ids), torch.zeros_like(ids)


def build_network(spec: Export) -> Any:
    """One of `networks.py`, with its weights."""
    import torch

    from benchmarks import networks

    build: Callable[[], torch.nn.Module] = getattr(networks, spec.network)
    sample = example(spec, 4, SEED)[0] if spec.calibrate else None
    return networks.randomise(build(), sample, SEED)


def export_network(spec: Export, name: str, path: Path) -> None:
    """Write one of `networks.py` to `path`."""
    import torch

    model = build_network(spec)
    torch.onnx.export(
        model,
        example(spec, 2, SEED + 1),
        str(path),
        opset_version=OPSET,
        dynamo=False,
        input_names=list(spec.inputs),
        output_names=list(spec.outputs),
        dynamic_axes={**spec.inputs, **spec.outputs},
    )
    check(path, model, example(spec, 3, SEED + 2), name)


def arguments(model: models.Model, shapes: models.Shapes, seed: int) -> tuple[Any, ...]:
    """Torch tensors for one call of a network of `architectures/`; numbers that index or mask are int64."""
    import torch

    types = {name: "int64" if {"below", "constant"} & model.fill.get(name, {}).keys() else "float32" for name in shapes}
    return tuple(torch.from_numpy(array) for array in models.draw(types, model, shapes, seed).values())


def export_architecture(model: models.Model, path: Path) -> None:
    """Write one of `architectures/` to `path`, traced at the last of the model's shapes, checked at all of them."""
    import torch

    from benchmarks import architectures

    network, outputs = architectures.build(model.export, SEED)
    given = arguments(model, model.shapes[-1], SEED)
    axes = {name: {i: d for i, d in enumerate(dims) if isinstance(d, str)} for name, dims in model.dims.items()}
    names: dict[str, Any] = {"input_names": list(model.dims), "output_names": outputs}
    if model.exporter == "dynamo":
        # Whether two dimensions of one name are equal is for torch to find out: it refuses what it cannot prove.
        dynamic = tuple(dict.fromkeys(named, torch.export.Dim.DYNAMIC) for named in axes.values())
        shapes = architectures.signature(network, dynamic)
        with redirect_stdout(io.StringIO()):
            torch.onnx.export(
                network, given, str(path), dynamo=True, dynamic_shapes=shapes, external_data=False, **names
            )
    else:
        torch.onnx.export(network, given, str(path), opset_version=OPSET, dynamo=False, dynamic_axes=axes, **names)
    for index, shape in enumerate(model.shapes):
        check(path, network, arguments(model, shape, SEED + 1 + index), model.name)


def export(name: str, path: Path) -> None:
    """Write the ONNX file of `name` to `path`; a failure leaves nothing there."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporters announce their retirement, and each constant that they fold
            if name in EXPORTS:
                export_network(EXPORTS[name], name, aside)
            else:
                export_architecture(models.lookup(name), aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def export_program(case: str, path: Path) -> None:
    """Write the network of a case as a program of torch, with the shapes of that case."""
    import torch

    from benchmarks import architectures

    name, shape = models.case(case)
    model = models.lookup(name)
    network = build_network(EXPORTS[name]) if name in EXPORTS else architectures.build(model.export, SEED)[0]
    with torch.no_grad():
        program = torch.export.export(network, arguments(model, model.shapes[shape], SEED))
    aside = path.with_name(f".{os.getpid()}.{path.name}")
    torch.export.save(program, aside)
    aside.replace(path)


def check(path: Path, model: Any, inputs: Sequence[Any], name: str) -> None:
    """Compare the file with torch."""
    import numpy as np
    import onnxruntime
    import torch

    with torch.no_grad():
        expected = model(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    got = session.run(None, {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs, strict=True)})
    for want, have in zip(expected, got, strict=True):
        largest = float(want.abs().max())
        error = float(np.abs(want.numpy() - have).max()) / largest if want.shape == have.shape else np.inf
        if not (error < 1e-4 and largest > 1e-2):
            raise SystemExit(f"export of '{name}' departs from torch: {error:.2g} of the largest, {largest:.2g}")


def main(argv: list[str] | None = None) -> int:
    known = [model.name for model in models.registry().values() if model.export]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", choices=[[], *known], metavar="NAME", help="all when left out")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--program", action="append", default=[], metavar="CASE")
    args = parser.parse_args(argv)
    for case in args.program:
        export_program(case, args.folder / f"{case.replace(':', '_')}.pt2")
    if args.program and not args.names:
        return 0
    failed = 0
    for name in args.names or known:
        path = args.folder / f"{name}.onnx"
        try:
            export(name, path)
        except Exception as err:  # whatever torch's exporters raise: the others are still written
            if len(args.names) == 1:
                raise
            failed += 1
            print(f"{path}: {type(err).__name__}: {str(err).strip().splitlines()[-1]}", flush=True)
        else:
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
