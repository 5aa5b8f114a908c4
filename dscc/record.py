"""What a compilation says about itself: the manifest that goes into the artifact."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tvm import relax, tirx

import dscc
from dscc.artifact import Manifest, TensorSpec
from dscc.passes.base import PassContext
from dscc.passes.lower.lift_constants import Lifted
from dscc.pipeline import Pipeline
from dscc.plugins import registry


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
    given = list(main.ret_ty.fields)
    outputs = zip(main.attrs["dscc.outputs"], given, _elements(main, "dscc.output_types", given), strict=True)
    used = [("front end", frontend), ("target", ctx.target.name), *(("pass", each.name) for each in pipeline.passes)]
    return Manifest(
        inputs=tuple(_spec(str(name), ty, element) for name, ty, element in inputs),
        outputs=tuple(_spec(str(name), ty, element) for name, ty, element in outputs),
        target=str(ctx.target),
        machine=ctx.target.machine_name(),
        cpu_features=ctx.target.features,
        pipeline=str(pipeline),
        versions={"dscc": dscc.__version__, "apache-tvm": importlib.metadata.version("apache-tvm")},
        plugins=registry().versions(used),
        summary={
            "fused": applied(ctx.remarks),
            "kernels": sum(isinstance(func, tirx.PrimFunc) for func in lifted.mod.functions.values()),
            "weight_bytes": sum(weight.nbytes for weight in lifted.weights.values()),
            "fallback": (),
            **ctx.facts,
        },
    )


def applied(remarks: Iterable[str]) -> dict[str, int]:
    """How often every pass says that it was applied."""
    return dict(sorted(Counter(text.split(":", 1)[0] for text in remarks if ": applied" in text).items()))


def _elements(main: relax.Function, attribute: str, types: Sequence[relax.TensorType]) -> list[str]:
    """The model's element types of inputs or outputs: what the front end says, else those of the tensors."""
    said = main.attrs.get(attribute) or [ty.dtype for ty in types]
    return [str(element) for element in said]


def _spec(name: str, ty: relax.TensorType, element: str) -> TensorSpec:
    # Where only the rank is known, since the shape depends on values, every dimension gets a name of its own.
    shape = [f"{name}_{axis}" for axis in range(ty.ndim)] if ty.shape is None else [_dim(dim) for dim in ty.shape]
    return TensorSpec(name, element, tuple(shape))


def _dim(dim: Any) -> int | str:
    return int(dim) if isinstance(dim, tirx.IntImm) else str(dim)
