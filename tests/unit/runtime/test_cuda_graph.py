"""Which runs are captured and replayed, on a runtime and a library of NVIDIA's that only write down what is asked."""

from __future__ import annotations

import pytest

from dscc.runtime import ffi
from dscc.runtime.cuda_graph import Graphs


class Cudart:
    """Takes every call; `capturable` says whether captures succeed."""

    def __init__(self, capturable: bool = True):
        self.capturable, self.calls = capturable, []

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append(name)
            if name == "end_capture":
                if not self.capturable:
                    return 901
                arguments[1]._obj.value = 77
            if name == "instantiate":
                arguments[0]._obj.value = 78
            return 0

        return call

    def count(self, name: str) -> int:
        return self.calls.count(name)


class Library:
    """Counts references to handles."""

    def __init__(self):
        self.references: dict[int, int] = {}
        self.streams: list[int | None] = []

    def incref(self, handle: int) -> None:
        self.references[handle] = self.references.get(handle, 0) + 1

    def decref(self, handle: int) -> None:
        self.references[handle] = self.references.get(handle, 0) - 1

    def set_stream(self, device_type: int, stream: int | None) -> int | None:
        self.streams.append(stream)
        return None

    def succeeds(self, status: int) -> bool:
        return status == 0


class Model:
    """Gives a new result at every launch."""

    def __init__(self, library: Library):
        self.library, self.launches = library, 0

    def __call__(self, result: ffi.Value) -> int:
        self.launches += 1
        result.kind, result.bits = ffi.TENSOR, 1000 + self.launches
        self.library.incref(result.bits)
        return 0


def runs(graphs: Graphs, library: Library, inputs: list[int], times: int) -> list[int]:
    found = []
    for _ in range(times):
        result = ffi.Value()
        assert graphs.run(inputs, result) == 0
        found.append(result.bits)
        library.decref(result.bits)
    return found


def test_the_third_run_on_the_same_tensors_is_captured():
    library, cudart = Library(), Cudart()
    model = Model(library)
    graphs = Graphs(library, cudart, model)
    assert runs(graphs, library, [1, 2], 6) == [1001, 1002, 1003, 1003, 1003, 1003]
    assert model.launches == 3 and cudart.count("launch") == 4
    assert library.references[1003] == 1 and library.references[1] == 1  # held by the graph
    assert library.references[1001] == 0
    assert library.streams[-1] is None
    del graphs
    assert library.references[1003] == 0 and library.references[2] == 0
    assert cudart.count("destroy") == 1


def test_other_tensors_have_graphs_of_their_own():
    library, cudart = Library(), Cudart()
    graphs = Graphs(library, cudart, Model(library))
    runs(graphs, library, [1], 3)
    assert runs(graphs, library, [2], 4)[-2:] == [1006, 1006]
    assert runs(graphs, library, [1], 1) == [1003]


def test_what_cannot_be_captured_is_launched_and_not_tried_again():
    library, cudart = Library(), Cudart(capturable=False)
    model = Model(library)
    graphs = Graphs(library, cudart, model)
    runs(graphs, library, [1], 5)
    assert cudart.count("begin_capture") == 1 and cudart.count("launch") == 0
    assert model.launches == 6  # one of them the capture
    assert all(library.references[1000 + n] == 0 for n in range(1, 7))


def test_a_session_keeps_a_few_graphs():
    library, cudart = Library(), Cudart()
    graphs = Graphs(library, cudart, Model(library))
    for handle in range(20):
        runs(graphs, library, [handle], 3)
    assert cudart.count("instantiate") == 8


@pytest.mark.parametrize("status", [700])
def test_a_launch_that_fails_is_said(status):
    library, cudart = Library(), Cudart()
    graphs = Graphs(library, cudart, Model(library))
    runs(graphs, library, [1], 3)
    cudart.launch = lambda *arguments: status
    with pytest.raises(ffi.RuntimeFailure, match="CUDA graph"):
        graphs.run([1], ffi.Value())
