"""Candidates built on a Ray cluster of two workers; addresses where nothing answers."""

from __future__ import annotations

import os
import time

import pytest

from dscc.errors import TuneError
from dscc.tune.kernel import Built, Kernel, build, space
from dscc.tune.remote import RayBuilder, RpcRunner


def test_addresses_of_trackers_that_cannot_be_used() -> None:
    with pytest.raises(TuneError, match=r"tracker 'nowhere': expected HOST:PORT, as in 127.0.0.1:9190"):
        RpcRunner("nowhere", "here")
    begin = time.monotonic()
    with pytest.raises(TuneError, match=r"no machine with key 'here' can be had from the tracker at '127.0.0.1:1'"):
        RpcRunner("127.0.0.1:1", "here")
    assert time.monotonic() - begin < 30  # TVM's own connection is tried for a minute


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray cluster of two nodes with a worker each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    here = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    here.add_node(num_cpus=1)
    yield here.address
    here.shutdown()


@pytest.mark.slow
def test_candidates_are_built_on_a_cluster(kernel: Kernel, cluster: str) -> None:
    builder = RayBuilder(cluster)
    try:
        tiles = space(kernel)["matmul"]["tile"]
        candidates = [{"tile": tile} for tile in tiles[:3]]
        built = builder.build(kernel, [*candidates, {"rule": "no-such-rule"}])
        assert all(isinstance(each, Built) for each in built[:3])
        here = [build(kernel, candidate) for candidate in candidates]
        assert [each.packings for each in built[:3] if isinstance(each, Built)] == [each.packings for each in here]
        assert len({each.library for each in built[:3] if isinstance(each, Built)}) > 1
        import ray

        pids = ray.get([ray.remote(lambda: os.getpid()).remote() for _ in range(8)])
        assert os.getpid() not in pids
        assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    finally:
        builder.close()


def test_a_cluster_that_is_not_there() -> None:
    pytest.importorskip("ray")
    with pytest.raises(TuneError, match=r"no Ray cluster answers at '127.0.0.1:1'"):
        RayBuilder("127.0.0.1:1")
