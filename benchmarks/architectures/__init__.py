"""Well-known architectures with random weights, in small sizes and as published, for `benchmarks.exports`.

A builder returns a `Network`: the module, which takes its inputs in the order of the registry, and the names of its
outputs. `BUILDERS` finds them by name; torch and transformers are imported when one is built.
"""

from __future__ import annotations

from importlib import import_module

KINDS = ("language", "speech", "vision", "recurrent", "control", "published")


def build(name: str, seed: int) -> tuple[object, list[str]]:
    """The module called `name`, for inference, with weights from `seed`; and the names of its outputs."""
    import torch

    torch.manual_seed(seed)
    for kind in KINDS:
        builder = import_module(f"{__name__}.{kind}").BUILDERS.get(name)
        if builder is not None:
            module, outputs = builder()
            return module.eval(), outputs
    raise KeyError(name)


def signature(network: object, given: tuple[object, ...]) -> tuple[object, ...]:
    """`given`, one for each argument of the network, as its parameters take them: a starred one takes a tuple."""
    from inspect import Parameter, signature

    kinds = [parameter.kind for parameter in signature(network.forward).parameters.values()]  # type: ignore[attr-defined]
    if Parameter.VAR_POSITIONAL not in kinds:
        return given
    star = kinds.index(Parameter.VAR_POSITIONAL)
    return (*given[:star], given[star:])
