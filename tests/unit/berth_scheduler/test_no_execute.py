"""A `no_execute` taint comes to a node where something runs: who must leave, when, and what then (R26, R27)."""

from typing import Any

import pytest

from berth.ids import Attempt, NodeId
from berth.messages.commands import RefusalCode
from berth.messages.events import AllocationsEnded, Event, How, NodeChanged, Transaction, about
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Effect, Request, Taint
from berth.model.check import check
from berth.model.cluster import AllocationState
from berth.model.feasibility import untolerated
from berth.model.no_execute import leaves_at
from tests.builders import SECOND, T0, a_node, a_request, a_state, happened, placed
from tests.unit.berth_scheduler.stage import Stage

HOT = Taint(key="hot", effect=Effect.NO_EXECUTE)
WET = Taint(key="wet", effect=Effect.NO_EXECUTE)
BOTH = ("n1", "n2")


def tainted(*taints: Taint, node: str = "n1") -> Transaction:
    return (Event(NodeChanged(node=NodeId(node), taints=taints)),)


def tolerating(*seconds: int | None, key: str = "hot", **more: Any) -> Request:
    tolerations = [{"key": key, "operator": "exists", "seconds": one} for one in seconds]
    return a_request("web", tolerations=tolerations, **more)


def leaves_after(request: Request, *taints: Taint) -> float | None:
    """Seconds from the taints' coming, 10 s after the request was placed, until it must leave."""
    state = a_state(a_node("n1"), placed(request, "n1"))
    happened(state, tainted(*taints), at=T0 + 10 * SECOND)
    (allocation,) = state.cluster.allocations.values()
    due = leaves_at(state.cluster.nodes[NodeId("n1")], request, allocation)
    return None if due is None else (due - T0) / SECOND - 10


def test_r26_what_does_not_tolerate_the_taint_leaves_at_once() -> None:
    assert leaves_after(a_request("web"), HOT) == 0


def test_r26_a_new_no_schedule_taint_evicts_nobody() -> None:
    assert leaves_after(a_request("web"), Taint(key="hot", effect=Effect.NO_SCHEDULE)) is None


@pytest.mark.parametrize(
    ("seconds", "after"),
    [
        ((None,), None),
        ((60,), 60),
        ((0,), 0),
        ((-5,), 0),
        ((300, 60), 60),
        ((None, 60), 60),
        ((60, None), 60),
    ],
)
def test_r27_the_smallest_given_time_rules(seconds: tuple[int | None, ...], after: int | None) -> None:
    assert leaves_after(tolerating(*seconds), HOT) == after


def test_r27_each_taint_must_be_tolerated() -> None:
    assert leaves_after(tolerating(None), HOT, WET) == 0


def test_r27_a_taint_that_stays_keeps_its_time_when_another_comes() -> None:
    request = tolerating(60)
    state = a_state(a_node("n1"), placed(request, "n1"))
    happened(state, tainted(HOT), at=T0 + 10 * SECOND)
    happened(state, tainted(WET, HOT), at=T0 + 30 * SECOND)

    assert state.cluster.nodes[NodeId("n1")].tainted_at == (T0 + 30 * SECOND, T0 + 10 * SECOND)


def test_what_comes_to_a_tainted_node_may_stay_as_long_as_it_tolerates_it() -> None:
    request = tolerating(60)
    state = a_state(a_node("n1", taints=(HOT,)))
    happened(state, placed(request, "n1"), at=T0 + 300 * SECOND)
    (allocation,) = state.cluster.allocations.values()

    assert leaves_at(state.cluster.nodes[NodeId("n1")], request, allocation) == T0 + 360 * SECOND


def test_r27_who_would_be_evicted_at_once_does_not_come() -> None:
    node = a_state(a_node("n1", taints=(HOT,))).cluster.nodes[NodeId("n1")]

    assert untolerated(node, tolerating(0)) == [HOT]
    assert untolerated(node, tolerating(1)) == []


# ---------------------------------------------------------------- the scheduler proposes


def test_an_untolerated_taint_evicts_and_the_request_waits_again() -> None:
    request = a_request("web")
    stage = Stage(a_node("n1"), a_node("n2"), placed(request, "n1"))
    stage.leader.happened(tainted(HOT), at=stage.now)
    stage.fold()

    stage.advance(500, beating=BOTH)

    assert stage.status(request) == "queued"
    known = stage.leader.state.queue.requests[request.key]
    assert [reason.code for reason in known.reasons] == [ReasonCode.TAINTED]
    (allocation,) = stage.leader.state.cluster.allocations.values()
    assert (allocation.state, allocation.reason) == (AllocationState.EVICTED, ReasonCode.TAINTED)


def test_a_tolerated_taint_evicts_when_its_time_is_over_and_not_before() -> None:
    request = tolerating(5, 60)
    stage = Stage(a_node("n1"), placed(request, "n1"))
    stage.leader.happened(tainted(HOT), at=stage.now)
    stage.fold()

    stage.advance(4_900, beating=BOTH)
    assert stage.where(request) == ["n1"]
    stage.advance(1_000, beating=BOTH)
    assert stage.where(request) == []


def test_a_taint_that_goes_before_its_time_evicts_nobody() -> None:
    request = tolerating(5)
    stage = Stage(a_node("n1"), placed(request, "n1"))
    stage.leader.happened(tainted(HOT), at=stage.now)
    stage.fold()
    stage.advance(3_000, beating=BOTH)
    stage.leader.happened(tainted(), at=stage.now)
    stage.fold()

    stage.advance(10_000, beating=BOTH)

    assert stage.where(request) == ["n1"]


def test_a_gang_below_its_least_leaves_as_a_whole_and_one_with_instances_to_spare_runs_on() -> None:
    whole = a_request("whole", count=2)
    spare = a_request("spare", count=2, min_count=1)
    stage = Stage(a_node("n1"), a_node("n2"), placed(whole, "n1", "n2"), placed(spare, "n1", "n2"))
    stage.leader.happened(tainted(HOT), at=stage.now)
    stage.fold()

    stage.advance(500, beating=BOTH)

    assert (stage.where(whole), stage.status(whole)) == ([], "queued")
    assert (stage.where(spare), stage.status(spare)) == (["n2"], "placed")


def test_who_leaves_has_its_grace() -> None:
    request = a_request("slow", grace_seconds=30)
    stage = Stage(a_node("n1"), placed(request, "n1"))
    stage.leader.happened(tainted(HOT), at=stage.now)
    stage.fold()

    stage.advance(2_000, beating=BOTH)

    (allocation,) = stage.leader.state.cluster.allocations.values()
    assert allocation.state is AllocationState.RELEASING
    assert stage.leader.state.queue.requests[request.key].evaluated_at == 0, "it is driven before its grace is over"


# ---------------------------------------------------------------- the leader checks


def evicted(request: Request, name: str, reason: ReasonCode = ReasonCode.TAINTED) -> Transaction:
    return (about(request.key, AllocationsEnded(ids=(name,), how=How.EVICTED, reason=reason)),)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("taints", "code"),
    [((), RefusalCode.STALE_VICTIM), ((HOT,), RefusalCode.TOO_EARLY)],
)
def test_r27_the_leader_lets_nobody_be_evicted_too_early(taints: tuple[Taint, ...], code: RefusalCode) -> None:
    request = tolerating(60, count=2, min_count=1)
    state = a_state(a_node("n1"), placed(request, "n1", "n1"))
    happened(state, tainted(*taints))

    refusal = check(state, evicted(request, "web.0"), T0 + 59 * SECOND)
    assert refusal is not None
    assert refusal.code is code
    if taints:
        assert check(state, evicted(request, "web.0"), T0 + 60 * SECOND) is None


def test_who_has_no_taint_to_outlive_does_not_leave_beside_one_who_has() -> None:
    request = a_request("web", count=3, min_count=1)
    state = a_state(a_node("n1"), a_node("n2"), placed(request, "n1", "n2", "n2"))
    happened(state, tainted(HOT))
    data = AllocationsEnded(ids=("web.0", "web.1"), how=How.EVICTED, reason=ReasonCode.TAINTED)  # pyright: ignore[reportArgumentType]

    refusal = check(state, (about(request.key, data, attempt=Attempt(2)),), T0)

    assert refusal is not None
    assert refusal.code is RefusalCode.RULE
