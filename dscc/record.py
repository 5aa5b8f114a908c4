"""What a compilation says about itself: the manifest that goes into the artifact."""

from __future__ import annotations

import importlib.metadata
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import tvm
from tvm import relax, tirx

import dscc
from dscc import fallback, kernel_pipeline, named_sizes, placement
from dscc.artifact import Manifest, TensorSpec
from dscc.passes import origins
from dscc.passes.base import PassContext
from dscc.passes.lower.lift_constants import Lifted
from dscc.pipeline import Pipeline
from dscc.plugins import registry
from dscc.schedule.experts.facts import mixture_of, parameters, routing
from dscc.targets.base import Target
from dscc.targets.device import DeviceTarget


def manifest(lifted: Lifted, frontend: str, pipeline: Pipeline, ctx: PassContext) -> Manifest:
    """The manifest of a compiled module. Nothing in it depends on when or how fast it was compiled.

    Args:
        lifted: the scheduled module, with the inputs and outputs of its `main`, and the weights.
        frontend: name of the front end that read the model.
        pipeline: the passes that ran.
        ctx: what they remarked.
    """
    main = lifted.mod["main"]
    taken = [param.ty for param in main.params[: int(main.attrs["num_input"])]]
    inputs = zip(main.attrs["dscc.inputs"], taken, _elements(main, "dscc.input_types", taken), strict=True)
    given = list(named_sizes.result_type(main).fields)
    outputs = zip(main.attrs["dscc.outputs"], given, _elements(main, "dscc.output_types", given), strict=True)
    used = [("front end", frontend), ("target", ctx.target.name), *(("pass", each.name) for each in pipeline.passes)]
    used += [("operator", str(label)) for label in main.attrs.get("dscc.operators") or ()]
    elsewhere = fallback.of(lifted.mod)
    return Manifest(
        inputs=tuple(_spec(str(name), ty, element) for name, ty, element in inputs),
        outputs=tuple(_spec(str(name), ty, element) for name, ty, element in outputs),
        target=str(ctx.target),
        machine=ctx.target.machine_name,
        cpu_features=ctx.target.features,
        pipeline=str(pipeline),
        versions={"dscc": dscc.__version__, "apache-tvm": importlib.metadata.version("apache-tvm")},
        plugins=registry().versions(used),
        fallback=tuple(region.spec() for region in elsewhere),
        summary={
            "fused": applied(ctx.remarks),
            "kernels": sum(isinstance(func, tirx.PrimFunc) for func in lifted.mod.functions.values()),
            "weight_bytes": sum(weight.nbytes for weight in lifted.weights.values()),
            "fallback": tuple(str(region) for region in elsewhere),
            # with 0 of these the model runs; with 0 of those nothing runs, if that leaves nothing to make
            "may_be_empty": [str(name) for name in main.attrs.get("dscc.may_be_empty") or ()],
            "may_be_none": [str(name) for name in main.attrs.get("dscc.may_be_none") or ()],
            **({"parameters": counted} if (counted := parameters(lifted)) else {}),
            **ctx.facts,
        },
        kernels={"functions": _functions(lifted.mod), "calls": _calls(lifted.mod)},
        device=_device(lifted, ctx.target),
        alignment=kernel_pipeline.ALIGN,
    )


def _device(lifted: Lifted, target: Target) -> dict[str, Any]:
    """What the artifact needs to know of its device, and which parameters of `main` are not on it."""
    if not isinstance(target, DeviceTarget):
        return {}
    places = placement.parameters(lifted.mod)
    return {
        **target.device,
        "host_parameters": [i for i, at in enumerate(places) if at != placement.DEVICE],
        "replayable": placement.stays(lifted.mod),
    }


def _functions(mod: tvm.IRModule) -> dict[str, dict[str, Any]]:
    """Every kernel: the rule that scheduled it, its `flops` and `dims` (dscc/schedule/cost.py) where known, and the
    routing of a `mixture` (dscc/schedule/experts/facts.py).
    """
    found = {}
    for gvar, func in mod.functions.items():
        if isinstance(func, tirx.PrimFunc) and func.attrs and "dscc.rule" in func.attrs:
            cost = str(func.attrs["dscc.arithmetic"])
            known = {"rule": str(func.attrs["dscc.rule"]), **(json.loads(cost) if cost else {})}
            mixture = mixture_of(func)
            found[gvar.name_hint] = {**known, **({"mixture": routing(mixture)} if mixture else {})}
    return dict(sorted(found.items()))


def _calls(mod: tvm.IRModule) -> list[tuple[str, list[str]]]:
    """The kernels that `main` calls, in order, with the nodes they came from; then those of loops and branches."""
    rest = [gvar.name_hint for gvar, func in mod.functions.items() if isinstance(func, relax.Function)]
    names = ["main", *sorted(name for name in rest if name != "main")]
    return [call for name in names for call in origins.of_calls(mod, mod[name])]


def applied(remarks: Iterable[str]) -> dict[str, int]:
    """How often every pass says that it was applied."""
    return dict(sorted(Counter(text.split(":", 1)[0] for text in remarks if ": applied" in text).items()))


def _elements(main: relax.Function, attribute: str, types: Sequence[relax.TensorType]) -> list[str]:
    """The model's element types of inputs or outputs: what the front end says, else those of the tensors."""
    said = main.attrs.get(attribute) or [ty.dtype for ty in types]
    return [str(element) for element in said]


def _spec(name: str, ty: relax.Type, element: str) -> TensorSpec:
    if element.startswith("["):  # a sequence or an optional: dscc/frontends/onnx/kinds.py wrote this
        around, element, dims = json.loads(element)
        sizes = [f"{name}_{axis}" if dim is None else dim for axis, dim in enumerate(dims or ())]
        return TensorSpec(name, element, tuple(sizes), tuple(around), dims is not None)
    # Where only the rank is known, since the shape depends on values, every dimension gets a name of its own.
    shape = [f"{name}_{axis}" for axis in range(ty.ndim)] if ty.shape is None else [_dim(dim) for dim in ty.shape]
    return TensorSpec(name, element, tuple(shape))


def _dim(dim: Any) -> int | str:
    return int(dim) if isinstance(dim, tirx.IntImm) else str(dim)
