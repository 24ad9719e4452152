"""What the leader lets nobody do to a promised start, and what alone may move it (R86)."""

from typing import Any

import pytest

from berth.ids import NodeId, RequestKey, Sequence
from berth.messages.commands import RefusalCode
from berth.messages.events import (
    AllocationPlaced,
    Event,
    MovedBecause,
    NodeChanged,
    NodeLost,
    RequestPlaced,
    RequestQueued,
    StartPromised,
    Transaction,
    Wake,
    WakeOn,
    about,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.messages.reservation_events import HeldOnNode
from berth.model.check import check
from berth.model.feasibility import admits, why_not
from berth.model.ledger import State
from berth.model.promises import broken_by
from berth.resources import Resources
from tests.builders import HOUR, MINUTE, T0, a_node, a_quota, a_request, placed, submitted

NODE = NodeId("n1")


def a_state(*transactions: Transaction) -> State:
    state = State()
    for sequence, transaction in enumerate((a_node("n1", cpu=8_000), a_node("n2", cpu=8_000), *transactions), start=1):
        state.fold_transaction(transaction, at=T0, sequence=Sequence(sequence))
    return state


def queued(request: Request, start: int | None, *nodes: str, cause: MovedBecause | None = None) -> Transaction:
    """Submitted, queued, and promised one instance on each of `nodes`."""
    return (submitted(request), *promised(request, start, *nodes, cause=cause))


def promised(
    request: Request, start: int | None, *nodes: str, cause: MovedBecause | None = None, attempt: int = 1
) -> Transaction:
    held = tuple(HeldOnNode(node=NodeId(node), count=1) for node in nodes)
    waits = RequestQueued(
        reasons=(Reason(code=ReasonCode.INSUFFICIENT_CPU),),
        wake=(Wake(on=WakeOn.CAPACITY),),
        evaluated_at=Sequence(0),
    )
    return tuple(
        about(request.key, data, attempt=attempt)  # pyright: ignore[reportArgumentType]
        for data in (waits, StartPromised(start=start, nodes=held, cause=cause))
    )


def one_more(request: Request, node: str) -> Transaction:
    """A new request is placed on `node`."""
    return placed(request, node)


def refused(state: State, transaction: Transaction, at: int = T0) -> RefusalCode | None:
    refusal = check(state, transaction, at)
    return refusal.code if refusal else None


def busy_for_an_hour(**document: Any) -> Transaction:
    return placed(a_request("busy", cpu=6_000, duration_seconds=3600, **document), "n1")


LARGE = a_request("large", cpu=7_000, duration_seconds=3600)


def a_promised_state() -> State:
    """`large` has room on n1 when `busy` has ended there."""
    return a_state(busy_for_an_hour(), queued(LARGE, T0 + HOUR, "n1"))


def test_a_promise_is_for_a_time_to_come_where_room_is() -> None:
    state = a_state(busy_for_an_hour())

    assert refused(state, queued(LARGE, T0 + HOUR, "n1")) is None
    assert refused(state, queued(LARGE, T0 + HOUR - 1, "n1")) is RefusalCode.WINDOW
    assert refused(state, queued(LARGE, T0 - 1, "n2")) is RefusalCode.WINDOW
    assert refused(state, queued(LARGE, T0 + HOUR)) is RefusalCode.INVALID
    assert refused(state, queued(LARGE, T0 + HOUR, "n3")) is RefusalCode.RULE


def test_r87_what_surely_ends_before_the_promised_start_may_use_the_room_until_then() -> None:
    state = a_promised_state()
    node = state.cluster.nodes[NODE]

    short, long = (a_request("other", cpu=2_000, duration_seconds=seconds) for seconds in (3600, 3601))
    assert why_not(state, node, short, T0) == []
    assert refused(state, one_more(short, "n1")) is None
    assert [reason.code for reason in why_not(state, node, long, T0)] == [ReasonCode.HELD_BY_PROMISE]
    assert refused(state, one_more(long, "n1")) is RefusalCode.WINDOW


def test_r87_work_without_a_duration_never_uses_promised_room_nor_does_work_that_may_overrun() -> None:
    state = a_promised_state()

    endless = a_request("other", cpu=2_000)
    overruns = a_request("other", cpu=2_000, duration_seconds=60, overrun="warn")
    graced = a_request("other", cpu=2_000, duration_seconds=3000, overrun_grace_seconds=601)
    for request in (endless, overruns, graced):
        assert refused(state, one_more(request, "n1")) is RefusalCode.WINDOW
        assert refused(state, one_more(request, "n2")) is None


def test_r86_the_leader_refuses_a_placement_that_would_delay_a_promised_start_of_no_lower_priority() -> None:
    state = a_promised_state()

    for priority, code in ((49, RefusalCode.WINDOW), (50, RefusalCode.WINDOW), (51, None)):
        other = a_request("other", cpu=2_000, priority=priority)
        assert refused(state, one_more(other, "n1")) is code


def test_the_promised_request_itself_may_start_sooner_and_anywhere() -> None:
    state = a_promised_state()

    placing = RequestPlaced(allocations=(AllocationPlaced(id="large.0", node=NodeId("n2"), charge=LARGE.charge),))  # pyright: ignore[reportArgumentType]
    transaction = (about(LARGE.key, placing, attempt=2),)  # pyright: ignore[reportArgumentType]
    assert check(state, transaction, T0) is None
    state.fold_transaction(transaction, at=T0, sequence=Sequence(9))
    assert not state.queue.promised and not state.queue.promised_nodes()
    assert refused(state, one_more(a_request("other", cpu=2_000), "n1")) is None


def test_two_promises_do_not_overlap_beyond_what_there_is() -> None:
    state = a_promised_state()
    other = a_request("other", cpu=2_000, duration_seconds=3600)

    assert refused(state, queued(other, T0 + HOUR + MINUTE, "n1")) is RefusalCode.WINDOW
    assert refused(state, queued(other, T0 + 2 * HOUR, "n1")) is None
    above = a_request("other", cpu=2_000, duration_seconds=3600, priority=60)
    assert refused(state, queued(above, T0 + HOUR + MINUTE, "n1")) is None


def test_r86_nobody_moves_a_promise_later_without_a_cause_and_a_cause_must_be_true() -> None:
    state = a_promised_state()

    later = T0 + 2 * HOUR
    assert refused(state, promised(LARGE, later, "n1", attempt=2)) is RefusalCode.INVALID
    for cause in MovedBecause:
        assert refused(state, promised(LARGE, later, "n1", cause=cause, attempt=2)) is RefusalCode.RULE
        assert refused(state, promised(LARGE, None, cause=cause, attempt=2)) is RefusalCode.RULE
    assert refused(state, promised(LARGE, T0 + MINUTE, "n2", attempt=2)) is None
    assert refused(state, promised(LARGE, T0 + MINUTE, "n2", cause=MovedBecause.NODE_LOST, attempt=2)) is (
        RefusalCode.INVALID
    )


@pytest.mark.parametrize(
    "change",
    [
        NodeLost(node=NODE),
        NodeChanged(node=NODE, schedulable=False),
        NodeChanged(node=NODE, draining=True),
        NodeChanged(node=NODE, capacity=Resources(6_000, 16_384, 100_000, 110)),
    ],
)
def test_r86_a_node_that_takes_no_work_any_more_is_a_cause(change: Any) -> None:
    state = a_promised_state()
    state.fold_transaction((Event(change),), at=T0, sequence=Sequence(9))

    assert cause_of(state) is MovedBecause.NODE_LOST
    moved = promised(LARGE, T0 + 2 * HOUR, "n2", cause=MovedBecause.NODE_LOST, attempt=2)
    assert refused(state, moved) is None


def test_r86_work_of_higher_priority_is_a_cause() -> None:
    state = a_promised_state()
    state.fold_transaction(one_more(a_request("above", cpu=2_000, priority=51), "n1"), at=T0, sequence=Sequence(9))

    assert cause_of(state) is MovedBecause.HIGHER_PRIORITY
    moved = promised(LARGE, T0 + 2 * HOUR, "n2", cause=MovedBecause.HIGHER_PRIORITY, attempt=2)
    assert refused(state, moved) is None
    state.fold_transaction(moved, at=T0 + 1, sequence=Sequence(10))
    told = [(one.start, one.cause) for one in state.queue.requests[LARGE.key].promised]
    assert told == [(T0 + HOUR, None), (T0 + 2 * HOUR, MovedBecause.HIGHER_PRIORITY)]


def test_r86_a_limit_that_was_lowered_is_a_cause_when_the_start_has_come() -> None:
    state = a_promised_state()
    state.fold_transaction(a_quota(hard={"cpu_millicores": 1_000}), at=T0, sequence=Sequence(9))

    assert cause_of(state) is None
    assert cause_of(state, at=T0 + HOUR) is MovedBecause.LIMIT_CHANGED
    back = promised(LARGE, None, cause=MovedBecause.LIMIT_CHANGED, attempt=2)
    assert refused(state, back) is RefusalCode.RULE
    assert refused(state, back, at=T0 + HOUR) is None


def cause_of(state: State, key: RequestKey = LARGE.key, at: int = T0) -> MovedBecause | None:
    return broken_by(state, state.queue.requests[key], at, takes=admits)
