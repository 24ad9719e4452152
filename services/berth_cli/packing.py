"""`berth bench packing`: how many GPUs of the openb cluster are allocated in the end, by strategy.

The trace is replayed in order of arrival through a Cell, without departures: what `berth plan` does offline.
Nothing is measured but choices, so the figures are the same on every machine; only the seconds are not.
"""

import time
from dataclasses import dataclass
from statistics import mean
from typing import Any

from berth.messages.events import RequestStatus
from berth.messages.requests import Strategy
from berth_cell.plan import plan_document
from berth_cli.openb import Trace
from berth_cli.output import note

POINTS = 50
"""Of the curve: what is allocated after each fiftieth of the requests."""

AT_MS = 1_700_000_000_000
"""When the replay happens; any time would do."""


@dataclass(frozen=True, slots=True)
class Replay:
    """`curve`: percent of the GPUs allocated after each part of the requests; the last is the result."""

    curve: tuple[float, ...]
    unplaced: int
    seconds: float

    @property
    def allocated(self) -> float:
        return self.curve[-1]


def replay(trace: Trace, strategy: Strategy, *, salt: str = "", limit: int | None = None) -> Replay:
    """The whole trace, or its first `limit` requests, placed one after the other."""
    cluster, requests = trace.cluster(), trace.requests(strategy, limit)
    began = time.perf_counter()
    decisions = plan_document(cluster, requests, at_ms=AT_MS, salt=salt).decisions
    seconds = time.perf_counter() - began
    resource = trace.gpu.resource
    there_are = sum(node.capacity.vector.amount(resource) for node in cluster.nodes)
    curve: list[float] = []
    allocated = 0
    for place, (request, decision) in enumerate(zip(requests, decisions, strict=True), start=1):
        if decision.status is RequestStatus.PLACED:
            allocated += request.vector.amount(resource)
        if place * POINTS // len(requests) > len(curve):
            curve += [round(100 * allocated / there_are, 3)] * (place * POINTS // len(requests) - len(curve))
    unplaced = sum(decision.status is not RequestStatus.PLACED for decision in decisions)
    return Replay(tuple(curve), unplaced, round(seconds, 1))


def measure(trace: Trace, *, seeds: int, limit: int | None) -> dict[str, Any]:
    """The figures: of `random` the mean over the seeds 1 to `seeds`, and the curve of the first."""
    found: dict[str, list[Replay]] = {}
    for strategy in (Strategy.RANDOM, Strategy.BINPACK, Strategy.FRAGMENTATION):
        salts = [str(seed) for seed in range(1, seeds + 1)] if strategy is Strategy.RANDOM else [""]
        for salt in salts:
            one = replay(trace, strategy, salt=salt, limit=limit)
            note(f"{strategy} {salt}: {one.allocated:.2f} % allocated, {one.unplaced} unplaced, {one.seconds} s")
            found.setdefault(strategy.value, []).append(one)
    return {
        "gpu_allocation_percent": {name: round(mean(one.allocated for one in runs), 2) for name, runs in found.items()},
        "random_by_seed": [round(one.allocated, 2) for one in found["random"]],
        "unplaced": {name: round(mean(one.unplaced for one in runs), 1) for name, runs in found.items()},
        "seconds": {name: round(mean(one.seconds for one in runs), 1) for name, runs in found.items()},
        "curve": {name: list(runs[0].curve) for name, runs in found.items()},
    }
