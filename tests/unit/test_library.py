"""Functions in C: linked only where they are named, and called with the arguments of the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax

from dscc import codegen, library, targets


def module(conditional: bool) -> tvm.IRModule:
    """main(x, c): x + x if c else x * x, or just x + x."""
    builder = relax.BlockBuilder()

    def function(name, params, emit):
        with builder.function(name, params):
            with builder.dataflow():
                out = builder.emit_output(relax.Tuple([emit(*params)]))
            return builder.emit_func_output(out)

    def tensor(name, dtype="float32", shape=None):
        return relax.Var(name, relax.TensorType([tvm.tirx.Var("n", "int64")] if shape is None else shape, dtype))

    double = function("double", [tensor("x")], lambda x: builder.emit(relax.op.add(x, x)))
    square = function("square", [tensor("x")], lambda x: builder.emit(relax.op.multiply(x, x)))

    def main(x, c):
        if not conditional:
            return builder.emit(relax.op.add(x, x))
        chosen = library.call("if", [double, square, c, x], relax.TupleType([x.ty]))
        return builder.emit(relax.TupleGetItem(builder.emit(chosen), 0))

    function("main", [tensor("x"), tensor("c", "bool", [])], main)
    return relax.transform.LegalizeOps()(builder.finalize())


def link(mod: tvm.IRModule, folder: Path) -> Path:
    target = targets.resolve(None)
    folder.mkdir()
    objects = codegen.build(mod, target, folder, jobs=1)
    target.link(objects, folder / "model.so", library.sources(mod))
    return folder / "model.so"


def test_a_branch_is_called(tmp_path):
    mod = module(conditional=True)
    path = link(mod, tmp_path / "a")
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
    x = np.arange(5, dtype=np.float32)
    for condition, expected in ((True, x + x), (False, x * x)):
        (found,) = machine["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(np.array(condition)))
        np.testing.assert_array_equal(found.numpy(), expected)


def test_same_module_same_bytes(tmp_path):
    first, second = (link(module(conditional=True), tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_linked_only_where_named(tmp_path):
    assert [path.name for path in library.sources(module(conditional=False))] == ["memory.c"]
    assert [path.name for path in library.sources(module(conditional=True))] == ["control.c", "memory.c"]
    assert b"dscc.if" not in link(module(conditional=False), tmp_path / "a").read_bytes()


def test_unknown_function():
    with pytest.raises(ValueError, match="no file in dscc/library defines 'nothing'"):
        library.call("nothing", [], relax.TensorType(ndim=1, dtype="float32"))
