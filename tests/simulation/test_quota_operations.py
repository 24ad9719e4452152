"""Whatever is done to requests, quotas and nodes in whatever order: sums hold, and whoever waits has reason to.

`make operations` does 10,000 things; here it is a few for each seed.
"""

import os
import random

import pytest

from tests.simulation.quota_operations import Operations, check

COUNT = int(os.environ.get("OPERATIONS") or 40)


@pytest.mark.timeout(0 if COUNT > 1_000 else 120)
def test_r100_r101_r102_counters_equal_a_recount_and_whoever_waits_has_reason_to(seed: int) -> None:
    operations = Operations(random.Random(seed))
    for _ in range(COUNT):
        operations.step()

        check(operations)
