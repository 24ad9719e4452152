"""`berth bench backfill`: strict FIFO and conservative backfill on a trace of parallel jobs, in virtual time.

Every job goes through the services themselves in a Cell: quota, scheduler, reservation service, the leader's
judgement and the ledger. Run times are declared exactly, as the trace has them. The figures are the same on every
machine; only the seconds are not.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import mean
from typing import Any

from berth.ids import RequestKey
from berth.messages.documents import CLUSTER, ClusterDocument
from berth.messages.envelope import Record
from berth.messages.events import Event, RequestPlaced, RequestSubmitted, StartPromised
from berth.messages.requests import REQUEST_LIST, Request
from berth_cell.cell import Cell, Step
from berth_cell.seed import of_document
from berth_cli.lublin import PROCESSORS, Job
from berth_cli.output import note
from berth_quota.bounds import Bounds
from berth_scheduler.limits import Limits

AT_MS = 1_700_000_000_000
"""When the trace begins; any time would do."""
NEVER_MS = 10**12
"""No agent is lost in this world, so nobody looks for it."""
BOUND_S = 10
"""Jobs shorter than this count as so long in their slowdown, as is usual."""
SIZES = (1, 8, 32, 128, PROCESSORS)
"""Processors up to which jobs are put together in `mean_wait_by_size_s`."""
TOLD_EVERY = 500


class Policy(StrEnum):
    """FIFO: nobody starts before the first of the queue. BACKFILL: all are promised a start, and nobody delays one."""

    FIFO = "fifo"
    BACKFILL = "backfill"

    @property
    def queueing(self) -> str:
        return "strict_fifo" if self is Policy.FIFO else "best_effort_fifo"

    def bounds(self, jobs: int) -> Bounds:
        """Conservative: whoever waits is examined."""
        return Bounds(promises_max=0 if self is Policy.FIFO else jobs)


@dataclass(slots=True)
class Story:
    """What the records say of each request: when it came, when it started, and what it was promised (milliseconds)."""

    submitted: dict[RequestKey, int] = field(default_factory=dict[RequestKey, int])
    started: dict[RequestKey, int] = field(default_factory=dict[RequestKey, int])
    promised: dict[RequestKey, int] = field(default_factory=dict[RequestKey, int])
    moved_later: int = 0
    broken: int = 0

    def watch(self, step: Step) -> None:
        if isinstance(step.what, Record):
            for transaction in step.what.transactions:
                for event in transaction:
                    self._tell(event, step.what.at)

    def _tell(self, event: Event, at: int) -> None:
        key = event.key
        if key is None:
            return
        match event.data:
            case RequestSubmitted():
                self.submitted[key] = at
            case StartPromised(start=start):
                before = self.promised.get(key)
                if before is not None and (start is None or start > before):
                    self.moved_later += 1
                if start is not None:
                    self.promised[key] = start
            case RequestPlaced():
                self.started[key] = at
                self.broken += key in self.promised and at > self.promised[key]
            case _:
                pass


def replay(policy: Policy, jobs: list[Job]) -> dict[str, Any]:
    """All jobs, each submitted when the trace says, until the last has ended."""
    began = time.perf_counter()
    story = Story()
    document = _cluster(policy)
    cell = Cell(
        at_ms=AT_MS,
        history=of_document(document, at_ms=AT_MS),
        bounds=policy.bounds(len(jobs)),
        limits=Limits(sweep_ms=NEVER_MS),
    )
    cell.watch = story.watch
    requests = _requests(jobs)
    for number, (job, request) in enumerate(zip(jobs, requests, strict=True), start=1):
        cell.advance(AT_MS + 1000 * job.submitted)
        cell.submit([request])
        if number % TOLD_EVERY == 0:
            waits = len(cell.state.queue.waiting)
            note(f"{policy}: {number} jobs arrived, {waits} wait, {time.perf_counter() - began:.0f} s")
    while cell.state.queue.waiting or cell.state.cluster.ending:
        due = min(one.ends_at or 0 for one in _running(cell))
        cell.advance(max(due, cell.now_ms + 1))
    return _figures(story, {request.key: job for job, request in zip(jobs, requests, strict=True)}, began)


def _running(cell: Cell) -> Iterable[Any]:
    return [cell.state.cluster.allocations[key] for key in cell.state.cluster.ending]


def _cluster(policy: Policy) -> ClusterDocument:
    nodes = [{"id": f"p{number:03}", "capacity": {"cpu_cores": 1}} for number in range(1, PROCESSORS + 1)]
    quotas = [{"namespace": "lublin", "queueing": policy.queueing}]
    return CLUSTER.validate_python({"nodes": nodes, "quotas": quotas}, strict=False)


def _requests(jobs: list[Job]) -> list[Request]:
    written = [
        {
            "id": f"job-{job.number}",
            "namespace": "lublin",
            "resources": {"cpu_cores": 1},
            "count": job.processors,
            "duration_seconds": job.runs,
            "preemption": "never",
        }
        for job in jobs
    ]
    return REQUEST_LIST.validate_python(written, strict=False)


def _figures(story: Story, jobs: dict[RequestKey, Job], began: float) -> dict[str, Any]:
    waits = {key: (story.started[key] - AT_MS) / 1000 - job.submitted for key, job in jobs.items()}
    slowdowns = [max(1.0, (waits[key] + job.runs) / max(BOUND_S, job.runs)) for key, job in jobs.items()]
    last = max((story.started[key] - AT_MS) / 1000 + job.runs for key, job in jobs.items())
    by_size: dict[str, float] = {}
    least = 1
    for most in SIZES:
        those = [waits[key] for key, job in jobs.items() if least <= job.processors <= most]
        if those:
            by_size[f"{least}-{most}" if most > least else str(most)] = round(mean(those), 1)
        least = most + 1
    return {
        "mean_wait_s": round(mean(waits.values()), 1),
        "longest_wait_s": round(max(waits.values()), 1),
        "mean_bounded_slowdown": round(mean(slowdowns), 2),
        "makespan_s": round(last, 1),
        "promises": len(story.promised),
        "promises_broken": story.broken,
        "promises_moved_later": story.moved_later,
        "mean_wait_by_size_s": by_size,
        "seconds": round(time.perf_counter() - began, 1),
    }


def measure(jobs: list[Job]) -> dict[str, Any]:
    """Each figure by policy."""
    found = {policy.value: replay(policy, jobs) for policy in Policy}
    names = next(iter(found.values()))
    return {name: {policy: one[name] for policy, one in found.items()} for name in names}
