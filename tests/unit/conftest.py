"""What all unit tests share: numbers that do not depend on which tests ran before in the same process."""

from __future__ import annotations

import zlib

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def numbers_of_the_test(request):
    """Seeds the generators of the test's module by the test's name: xdist hands tests out in another order each time.

    Otherwise every run compares other numbers, and a tolerance that holds for nearly all of them fails now and then
    without a way to see it again. Fresh numbers are the fuzzers' part (``make fuzz``).
    """
    for generator in vars(request.module).values():
        if isinstance(generator, np.random.Generator):
            fresh = np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))
            generator.bit_generator.state = fresh.bit_generator.state
