"""How instances of one request may leave together, and how a releasing one gets its successor (`check`)."""

from dataclasses import replace

from berth.ids import AllocationId, Attempt, NodeId, Sequence, allocation_id
from berth.messages.commands import RefusalCode
from berth.messages.events import (
    AllocationPlaced,
    AllocationsEnded,
    AllocationsReleasing,
    Event,
    How,
    NodeChanged,
    NodeLost,
    RequestEnded,
    RequestPlaced,
    RequestQueued,
    RequestStatus,
    Transaction,
    Wake,
    WakeOn,
    about,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.model.check import check
from berth.model.ledger import State
from tests.builders import SECOND, T0, a_node, a_request, a_state, happened, placed

GANG = a_request("gang", count=3)
ELASTIC = a_request("gang", count=3, min_count=1)
LOST = Event(NodeLost(node=NodeId("n1")))
DRAINING = Event(NodeChanged(node=NodeId("n1"), draining=True))


def three_nodes(request: Request, *more: Transaction) -> State:
    return a_state(a_node("n1"), a_node("n2"), a_node("n3"), placed(request, "n1", "n2", "n3"), *more)


def ids(*indexes: int) -> tuple[AllocationId, ...]:
    return tuple(allocation_id(GANG.id, index) for index in indexes)


def end(how: How, reason: ReasonCode, *indexes: int) -> Event:
    return about(GANG.key, AllocationsEnded(ids=ids(*indexes), how=how, reason=reason))


def waits(reason: ReasonCode) -> Event:
    wake = (Wake(on=WakeOn.CAPACITY),)
    return about(GANG.key, RequestQueued(reasons=(Reason(code=reason),), wake=wake, evaluated_at=Sequence(0)))


def refusal(state: State, *events: Event) -> RefusalCode | None:
    found = check(state, events, T0)
    return None if found is None else found.code


def test_a_gang_of_which_one_is_lost_leaves_as_a_whole() -> None:
    lost = end(How.LOST, ReasonCode.LOST_WITH_NODE, 0)
    siblings = end(How.EVICTED, ReasonCode.LOST_WITH_NODE, 1, 2)

    assert refusal(three_nodes(GANG), LOST, lost, siblings, waits(ReasonCode.LOST_WITH_NODE)) is None
    assert refusal(three_nodes(GANG), LOST, lost) is RefusalCode.RULE, "two of three may not stay"


def test_siblings_that_are_enough_to_run_on_do_not_leave() -> None:
    lost = end(How.LOST, ReasonCode.LOST_WITH_NODE, 0)
    siblings = end(How.EVICTED, ReasonCode.LOST_WITH_NODE, 1, 2)

    assert refusal(three_nodes(ELASTIC), LOST, lost) is None
    whole = (LOST, lost, siblings, waits(ReasonCode.LOST_WITH_NODE))
    assert refusal(three_nodes(ELASTIC), *whole) is RefusalCode.RULE


def test_nobody_leaves_for_a_loss_or_a_drain_that_is_none() -> None:
    for reason in (ReasonCode.LOST_WITH_NODE, ReasonCode.DRAINED):
        leaving = end(How.EVICTED, reason, 0, 1, 2)
        assert refusal(three_nodes(GANG), leaving, waits(reason)) is RefusalCode.STALE_VICTIM
    other = end(How.EVICTED, ReasonCode.DRAINED, 1, 2)
    assert refusal(three_nodes(GANG, (DRAINING,)), other, waits(ReasonCode.DRAINED)) is RefusalCode.STALE_VICTIM


def test_a_gang_leaves_a_draining_node_as_a_whole_its_siblings_with_their_grace() -> None:
    gang = a_request("gang", count=3, grace_seconds=10)
    state = three_nodes(gang, (DRAINING,))
    until = T0 + 10 * SECOND
    siblings = AllocationsReleasing(ids=ids(1, 2), how=How.EVICTED, reason=ReasonCode.DRAINED, until=until)

    events = (end(How.EVICTED, ReasonCode.DRAINED, 0), about(GANG.key, siblings), waits(ReasonCode.DRAINED))

    assert refusal(state, *events) is None


def test_what_is_releasing_ends_although_the_drain_has_been_stopped() -> None:
    graceful = a_request("gang", grace_seconds=10)
    state = a_state(a_node("n1"), placed(graceful, "n1"), (DRAINING,))
    releasing = AllocationsReleasing(ids=ids(0), how=How.EVICTED, reason=ReasonCode.DRAINED, until=T0 + 10 * SECOND)
    happened(state, (about(GANG.key, releasing),))
    happened(state, (Event(NodeChanged(node=NodeId("n1"), draining=False)),))

    over = about(GANG.key, RequestEnded(status=RequestStatus.EVICTED, reason=ReasonCode.DRAINED))

    assert refusal(state, end(How.EVICTED, ReasonCode.DRAINED, 0), over) is None


def test_an_instance_may_run_elsewhere_while_its_predecessor_is_releasing() -> None:
    graceful = a_request("gang", grace_seconds=10)
    state = a_state(a_node("n1"), a_node("n2"), placed(graceful, "n1"), (DRAINING,))
    until = T0 + 10 * SECOND
    releasing = AllocationsReleasing(ids=ids(0), how=How.EVICTED, reason=ReasonCode.DRAINED, until=until)
    successor = AllocationPlaced(id=allocation_id(GANG.id, 0, 1), node=NodeId("n2"), charge=graceful.charge)
    again = RequestPlaced(allocations=(successor,))

    move = [about(GANG.key, data, attempt=Attempt(2)) for data in (releasing, again)]

    assert refusal(state, *move) is None
    assert refusal(state, move[1]) is RefusalCode.INVALID, "the index is taken while its instance is placed"
    stale = [replace(event, attempt=Attempt(1)) for event in move]
    assert refusal(state, *stale) is RefusalCode.SUPERSEDED
