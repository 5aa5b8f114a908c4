"""What every front end is: it recognises a model file and reads it into an IRModule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import tvm

    from dscc.options import CompileOptions


class Frontend(ABC):
    """Reads one model format."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    @classmethod
    def reads(cls, model: object) -> bool:
        """Whether `model`, which is no path, is this format's in-memory object."""
        return False

    @abstractmethod
    def load(self, model: Path | Any, options: CompileOptions) -> tvm.IRModule:
        """Read `model` (a path, or the format's own in-memory object) into a module.

        The module has one Relax function `main`: its parameters are the model's inputs, its body returns a tuple of
        the model's outputs, weights are `relax.Constant`s, dimensions that the model leaves open are `tirx.Var`s
        named as in the model. Function attributes: `dscc.inputs` and `dscc.outputs`, lists of the names as the model
        spells them.

        Raises:
            FrontendError: the model cannot be read.
        """
