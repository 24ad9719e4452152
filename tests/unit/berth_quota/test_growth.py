"""Partial gangs grow and are repaired: who wants more, who is first, and that waiting is not written down (R97)."""

from typing import Any

import pytest

from berth.ids import Attempt
from berth.messages.commands import Grant
from berth.messages.events import AllocationsEnded, How, Transaction, about
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Request
from berth.model.ledger import State
from berth.model.ordering import rank
from berth_quota.admission import Admit, Queue, judge
from berth_quota.growth import is_repair, wants_more
from tests.builders import a_node, a_quota, a_request, a_state, happened, placed
from tests.unit.berth_quota.walk import Walk


def a_gang(name: str = "gang", **more: Any) -> Request:
    return a_request(name, cpu=2_000, count=3, min_count=1, **more)


def gone(request: Request, name: str, how: How, reason: ReasonCode, attempt: int | None = None) -> Transaction:
    data = AllocationsEnded(ids=(name,), how=how, reason=reason)  # pyright: ignore[reportArgumentType]
    return (about(request.key, data, attempt=None if attempt is None else Attempt(attempt)),)


def wants(state: State, request: Request) -> bool:
    return wants_more(state, state.queue.requests[request.key])


# ---------------------------------------------------------------- who wants more


def test_a_gang_that_runs_with_fewer_than_it_asked_for_wants_the_rest() -> None:
    gang, whole = a_gang(), a_gang("whole")
    state = a_state(a_node("n1"), placed(gang, "n1"), placed(whole, "n1", "n1", "n1"))

    assert wants(state, gang)
    assert not wants(state, whole)


@pytest.mark.parametrize(
    ("how", "reason", "again"),
    [
        (How.LOST, ReasonCode.LOST_WITH_NODE, True),
        (How.EVICTED, ReasonCode.PREEMPTED, True),
        (How.RELEASED, ReasonCode.RELEASED, False),
        (How.EXPIRED, ReasonCode.DURATION_OVER, False),
    ],
)
def test_what_was_taken_is_wanted_again_and_what_was_given_back_is_not(
    how: How, reason: ReasonCode, again: bool
) -> None:
    for reschedule, wanted in (("on_loss", again), ("never", False)):
        gang = a_gang(reschedule=reschedule)
        state = a_state(a_node("n1"), placed(gang, "n1", "n1", "n1"))
        happened(state, gone(gang, "gang.1", how, reason))

        assert wants(state, gang) is wanted


def test_a_repair_is_what_brings_back_an_instance_that_ran() -> None:
    gang = a_gang()
    state = a_state(a_node("n1"), placed(gang, "n1", "n1"))
    assert not is_repair(state, state.queue.requests[gang.key]), "the third has never run"

    happened(state, gone(gang, "gang.1", How.LOST, ReasonCode.LOST_WITH_NODE))
    assert is_repair(state, state.queue.requests[gang.key])


def test_a_repair_ranks_above_new_work_whatever_its_priority() -> None:
    state = a_state(a_node("n1"), a_quota(hard={"cpu_millicores": 4_000}, soft={"cpu_millicores": 1_000}))
    late = rank(state, a_gang(priority=0), (9, 9), {}, is_repair=True)

    assert late < rank(state, a_gang(priority=100), (1, 1), {})


# ---------------------------------------------------------------- what it may take


def test_nobody_is_evicted_so_that_a_gang_grows() -> None:
    state = a_state(a_node("n1"))
    begun, growing = (judge(state, a_gang(), missing, {}) for missing in (3, 2))

    assert isinstance(begun, Admit)
    assert begun.grant.preempt
    assert isinstance(growing, Admit)
    assert growing.grant == Grant()


def test_what_grows_stays_within_the_quota() -> None:
    low = a_request("low", cpu=2_000, priority=0)
    gang = a_gang()
    state = a_state(a_node("n1"), a_quota(hard={"cpu_millicores": 6_000}), placed(low, "n1"), placed(gang, "n1"))

    assert isinstance(judge(state, gang, 2, {}), Queue)
    assert isinstance(judge(state, gang, 1, {}), Admit)


# ---------------------------------------------------------------- in the walk


def running(walk: Walk, request: Request) -> int:
    return len(walk.leader.queue.requests[request.key].live)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_partial_gang_grows_when_a_node_comes_also_after_a_take_over(restarted: bool) -> None:
    gang = a_gang()
    walk = Walk(setting=(a_node("n1", cpu=2_000), placed(gang, "n1")))
    walk.submit(a_request("other", cpu=9_000))
    if restarted:
        walk.kill()
        walk.start()
        walk.nudged()
    before = walk.leader.queue.requests[gang.key]
    assert (before.attempt, before.status) == (2, "placed"), "that there is no place for the rest is not written down"

    walk.happened(a_node("n2", cpu=4_000))

    assert running(walk, gang) == 3
    assert walk.decisions[-1].request == "gang"
    assert len(walk.decisions[-1].allocations) == 3


def test_a_gang_that_is_released_while_it_waits_for_more_does_not_grow() -> None:
    gang = a_gang()
    walk = Walk(setting=(a_node("n1", cpu=2_000), placed(gang, "n1")))
    walk.release("gang")

    walk.happened(a_node("n2", cpu=4_000))

    assert walk.leader.queue.requests[gang.key].status == "released"
