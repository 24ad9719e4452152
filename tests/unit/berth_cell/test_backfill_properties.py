"""Random queues with durations: no promise moves later without a cause, all are kept, nobody starves."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth import subjects
from berth.ids import NodeId, RequestId, RequestKey
from berth.messages.documents import CLUSTER
from berth.messages.events import MovedBecause, RequestPlaced, RequestStatus, StartPromised
from berth.messages.node_commands import SetNode
from berth.wire.codec import decode_record
from berth_cell.cell import Cell
from berth_cell.seed import of_document
from berth_scheduler.limits import Limits
from tests.builders import MINUTE, T0, TEAM_A, a_request

NODES, CORES = 4, 2
pytestmark = pytest.mark.timeout(300)
SWEEP_MS = 5 * MINUTE
"""No agent falls silent here, so nobody looks for it twice a second."""
LATE_MS = 200
"""A start that is due is at most so late here: room is waited for a little, and then looked for."""


@dataclass(frozen=True)
class Submit:
    count: int
    cores: int
    minutes: int
    priority: int
    preemption: str


@dataclass(frozen=True)
class Release:
    """The request that was submitted as the `nth` ends before its time, or leaves the queue."""

    nth: int


@dataclass(frozen=True)
class Pass:
    minutes: int


@dataclass(frozen=True)
class Cordon:
    node: int
    schedulable: bool


def submits(priorities: st.SearchStrategy[int], preemption: st.SearchStrategy[str]) -> st.SearchStrategy[Submit]:
    return st.builds(
        Submit,
        count=st.integers(1, NODES),
        cores=st.integers(1, CORES),
        minutes=st.integers(1, 12),
        priority=priorities,
        preemption=preemption,
    )


PASSES = st.builds(Pass, minutes=st.integers(0, 10))
RELEASES = st.builds(Release, nth=st.integers(0, 20))
CORDONS = st.builds(Cordon, node=st.integers(1, NODES), schedulable=st.booleans())
EQUALS = submits(st.just(50), st.just("never"))
UNEQUALS = submits(st.sampled_from((40, 50, 60)), st.sampled_from(("never", "lower_priority")))


@dataclass
class World:
    cell: Cell
    submitted: list[RequestKey] = field(default_factory=list[RequestKey])

    def do(self, step: object) -> None:
        match step:
            case Submit():
                name = f"job-{len(self.submitted)}"
                request = a_request(
                    name,
                    cpu=1000 * step.cores,
                    count=step.count,
                    duration_seconds=60 * step.minutes,
                    priority=step.priority,
                    preemption=step.preemption,
                )
                self.submitted.append(request.key)
                self.cell.submit([request])
            case Release(nth=nth) if nth < len(self.submitted):
                self.cell.release(TEAM_A, [RequestId(self.submitted[nth][1])])
            case Pass(minutes=minutes):
                self.cell.advance(self.cell.now_ms + minutes * MINUTE)
            case Cordon(node=node, schedulable=schedulable):
                command = SetNode(node=NodeId(f"n{node}"), schedulable=schedulable)
                self.cell.ask(subjects.ADMIN_NODE, command, verb="set")
            case _:
                pass


def a_world() -> World:
    rows = [{"id": f"n{number}", "capacity": {"cpu_cores": CORES}} for number in range(1, NODES + 1)]
    document = CLUSTER.validate_python({"nodes": rows}, strict=False)
    return World(Cell(at_ms=T0, history=of_document(document, at_ms=T0), limits=Limits(sweep_ms=SWEEP_MS)))


def played(steps: list[object]) -> World:
    """Everything happens, then all nodes come back and enough time passes for all of it to run one after the other."""
    world = a_world()
    for step in steps:
        world.do(step)
    for node in range(1, NODES + 1):
        world.do(Cordon(node, True))
    world.do(Pass(12 * (len(world.submitted) + 1)))
    return world


def check_promises(world: World) -> list[MovedBecause]:
    """A promise is only moved later with a cause, and the last one is kept. Answers the causes."""
    promised: dict[RequestKey, int] = {}
    causes: list[MovedBecause] = []
    for payload in world.cell.ledger:
        record = decode_record(payload)
        for event in (event for transaction in record.transactions for event in transaction):
            key = event.key
            if key is None:
                continue
            if isinstance(event.data, StartPromised):
                start, before = event.data.start, promised.pop(key, None)
                is_worse = before is not None and (start is None or start > before)
                assert is_worse == (event.data.cause is not None), f"{key}: {before} became {event.data}"
                causes += [event.data.cause] if event.data.cause is not None else []
                if start is not None:
                    promised[key] = start
            elif isinstance(event.data, RequestPlaced) and key in promised:
                late = record.at - promised.pop(key)
                assert late <= LATE_MS, f"{key} started {late} ms later than it was promised"
    return causes


def check_nobody_starves(world: World) -> None:
    for key in world.submitted:
        known = world.cell.state.queue.requests[key]
        assert known.status in (RequestStatus.EXPIRED, RequestStatus.RELEASED), f"{key} is {known.status}"
    assert not world.cell.state.queue.promised and not world.cell.state.queue.promised_nodes()


@given(st.lists(st.one_of(EQUALS, EQUALS, PASSES, RELEASES), max_size=20))
@settings(max_examples=10, deadline=None)
def test_r86_among_equals_no_promise_is_ever_moved_later_and_nobody_starves(steps: list[object]) -> None:
    world = played(steps)

    assert check_promises(world) == []
    check_nobody_starves(world)


@given(st.lists(st.one_of(UNEQUALS, UNEQUALS, PASSES, RELEASES), max_size=20))
@settings(max_examples=10, deadline=None)
def test_r86_only_higher_priority_moves_a_promise_where_nodes_and_limits_stay(steps: list[object]) -> None:
    world = played(steps)

    assert set(check_promises(world)) <= {MovedBecause.HIGHER_PRIORITY}
    check_nobody_starves(world)


@given(st.lists(st.one_of(UNEQUALS, UNEQUALS, PASSES, RELEASES, CORDONS), max_size=20))
@settings(max_examples=10, deadline=None)
def test_r86_whatever_happens_to_nodes_too_a_promise_is_kept_or_says_why_not(steps: list[object]) -> None:
    world = played(steps)

    assert set(check_promises(world)) <= {MovedBecause.HIGHER_PRIORITY, MovedBecause.NODE_LOST}
    check_nobody_starves(world)
