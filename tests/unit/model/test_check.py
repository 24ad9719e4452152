"""What the leader refuses, and that a refused transaction leaves no trace (DESIGN section 1, law 2; section 4)."""

from dataclasses import replace

import pytest

from berth.ids import AllocationId, Attempt, NodeId, RequestId, Sequence
from berth.messages.commands import Refusal, RefusalCode
from berth.messages.events import (
    AllocationPlaced,
    AllocationsEnded,
    AllocationsReleasing,
    Event,
    How,
    LeaderElected,
    NodeChanged,
    NodeLeft,
    NodeLost,
    RequestEnded,
    RequestPlaced,
    RequestQueued,
    RequestsForgotten,
    RequestStatus,
    Transaction,
    Wake,
    WakeOn,
    about,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.model.charging import recount_usage, usage_drift
from berth.model.check import accept, check
from berth.model.ledger import State
from berth.resources import Resources
from tests.builders import (
    SECOND,
    T0,
    a_node,
    a_quota,
    a_request,
    a_reservation,
    a_state,
    activated,
    ended,
    happened,
    placed,
    submitted,
)


def refusal_of(state: State, transaction: Transaction, at: int = T0) -> RefusalCode | None:
    before = state.digest()
    refusal = check(state, transaction, at)
    assert state.digest() == before, "a check changes nothing"
    return None if refusal is None else refusal.code


def accepted(state: State, transaction: Transaction, at: int = T0) -> Refusal | None:
    return accept(state, transaction, at, Sequence(state.sequence + 1))


def queued(request: Request, code: ReasonCode = ReasonCode.INSUFFICIENT_CPU) -> Transaction:
    data = RequestQueued(
        reasons=(Reason(code=code, nodes=1),), wake=(Wake(on=WakeOn.CAPACITY),), evaluated_at=Sequence(1)
    )
    return (submitted(request), about(request.key, data, attempt=Attempt(1)))


def again(transaction: Transaction, attempt: int) -> Transaction:
    """The transaction without its opening, made for another attempt."""
    return tuple(replace(event, attempt=Attempt(attempt)) for event in transaction[1:])


def test_a_lawful_placement_is_folded_and_charged() -> None:
    state = a_state(a_node(cpu=4_000), a_quota(hard={"cpu_millicores": 4_000}))

    assert accepted(state, placed(a_request(cpu=4_000), "n1")) is None

    assert state.cluster.used_on(NodeId("n1")) == Resources(4_000, instances=1)
    assert dict(state.quotas.used) == recount_usage(state)
    assert usage_drift(state) == {}


def test_a_node_never_holds_more_than_it_has() -> None:
    state = a_state(a_node(cpu=4_000))

    assert refusal_of(state, placed(a_request(cpu=4_001), "n1")) is RefusalCode.CAPACITY
    assert refusal_of(state, placed(a_request(cpu=2_001, count=2), "n1", "n1")) is RefusalCode.CAPACITY
    assert refusal_of(state, placed(a_request(cpu=2_000, count=2), "n1", "n1")) is None


def test_an_over_committed_node_still_takes_what_does_not_ask_for_that_dimension() -> None:
    state = a_state(a_node(cpu=4_000, ram=1_000), placed(a_request("old", cpu=4_000), "n1"))
    happened(state, (Event(NodeChanged(node=NodeId("n1"), capacity=Resources(1_000, 1_000, 0, 110))),))

    assert refusal_of(state, placed(a_request(cpu=1), "n1")) is RefusalCode.CAPACITY
    assert refusal_of(state, placed(a_request(cpu=0, ram=500), "n1")) is None


def test_a_namespace_never_uses_more_than_its_hard_quota() -> None:
    state = a_state(a_node(cpu=8_000), a_quota(hard={"cpu_millicores": 2_000}))

    assert refusal_of(state, placed(a_request(cpu=1_001, count=2), "n1", "n1")) is RefusalCode.QUOTA
    assert refusal_of(state, placed(a_request(cpu=1_000, count=2), "n1", "n1")) is None


def test_a_required_rule_is_judged_at_the_tip() -> None:
    state = a_state(a_node(cpu=8_000, labels={"disk": "hdd"}))
    wants_ssd = a_request(constraints=[{"key": "disk", "operator": "equals", "values": ["ssd"]}])
    happened(state, (Event(NodeChanged(node=NodeId("n1"), schedulable=False)),))

    assert refusal_of(state, placed(wants_ssd, "n1")) is RefusalCode.RULE
    assert refusal_of(state, placed(a_request(), "n1")) is RefusalCode.RULE, "a cordoned node takes nothing new"
    assert refusal_of(state, placed(a_request(), "nowhere")) is RefusalCode.RULE


def test_siblings_of_one_transaction_see_each_other() -> None:
    state = a_state(a_node("n1"), a_node("n2"))
    apart = a_request(
        count=2, labels={"app": "web"}, anti_affinity=[{"match_labels": {"app": "web"}, "topology_key": "node"}]
    )

    assert refusal_of(state, placed(apart, "n1", "n1")) is RefusalCode.RULE
    assert refusal_of(state, placed(apart, "n1", "n2")) is None


def test_a_transaction_counts_only_for_the_current_attempt() -> None:
    state = a_state(a_node(cpu=8_000))
    request = a_request()
    assert accepted(state, queued(request)) is None

    assert refusal_of(state, again(placed(request, "n1"), 1)) is RefusalCode.SUPERSEDED
    assert refusal_of(state, again(placed(request, "n1"), 3)) is RefusalCode.SUPERSEDED
    assert refusal_of(state, again(placed(request, "n1"), 2)) is None


def test_r106_one_id_has_one_body() -> None:
    state = a_state(a_node(), placed(a_request(cpu=1_000), "n1"))

    assert refusal_of(state, placed(a_request(cpu=1_000), "n1")) is RefusalCode.SUPERSEDED
    assert refusal_of(state, placed(a_request(cpu=2_000), "n1")) is RefusalCode.CONFLICT


def test_a_request_that_nobody_submitted_is_not_found() -> None:
    state = a_state(a_node())

    assert refusal_of(state, placed(a_request(), "n1")[1:]) is RefusalCode.NOT_FOUND


@pytest.mark.parametrize("names", [("web.0", "web.0"), ("web.0", "web.2"), ("web.0", "other.1"), ("web.00", "web.1")])
def test_allocations_name_the_instances_of_their_request(names: tuple[str, str]) -> None:
    state = a_state(a_node())
    request = a_request("web", count=2)
    allocations = tuple(
        AllocationPlaced(id=AllocationId(name), node=NodeId("n1"), charge=request.charge) for name in names
    )
    wrong = (submitted(request), about(request.key, RequestPlaced(allocations=allocations), attempt=Attempt(1)))

    assert refusal_of(state, wrong) in (RefusalCode.INVALID, RefusalCode.SUPERSEDED)


def test_a_charge_is_what_the_request_says_to_the_last_piece() -> None:
    state = a_state(a_node())
    request = a_request(cpu=1_000)
    cheap = AllocationPlaced(id=AllocationId("web.0"), node=NodeId("n1"), charge=Resources(999, instances=1))
    wrong = (submitted(request), about(request.key, RequestPlaced(allocations=(cheap,)), attempt=Attempt(1)))

    assert refusal_of(state, wrong) is RefusalCode.INVALID


def test_a_gang_is_placed_whole_or_not_at_all() -> None:
    state = a_state(a_node())

    assert refusal_of(state, placed(a_request(count=3), "n1", "n1")) is RefusalCode.RULE
    assert refusal_of(state, placed(a_request(count=3, min_count=2), "n1", "n1")) is None


def test_a_release_gives_back_exactly_what_was_charged_and_only_once() -> None:
    state = a_state(a_node(), a_quota(hard={"cpu_millicores": 4_000}), placed(a_request(cpu=3_000), "n1"))
    release = ended(state, a_request().key)
    happened(state, a_quota(hard={"cpu_millicores": 1_000}))

    assert accepted(state, release) is None

    assert state.quotas.used == {}
    assert state.cluster.used_on(NodeId("n1")) == Resources()
    assert refusal_of(state, release) is RefusalCode.SUPERSEDED


def test_an_end_names_live_allocations() -> None:
    state = a_state(a_node(), placed(a_request("a"), "n1"), placed(a_request("b"), "n1"))
    gone = AllocationsEnded(ids=(AllocationId("a.7"),), how=How.RELEASED, reason=ReasonCode.RELEASED)
    stolen = AllocationsEnded(ids=(AllocationId("b.0"),), how=How.RELEASED, reason=ReasonCode.RELEASED)
    key = a_request("a").key

    assert refusal_of(state, (about(key, gone, attempt=Attempt(2)),)) is RefusalCode.STALE_VICTIM
    assert refusal_of(state, (about(key, stolen, attempt=Attempt(2)),)) is RefusalCode.INVALID


def test_a_request_does_not_end_while_something_of_it_lives() -> None:
    state = a_state(a_node(), placed(a_request(), "n1"))
    key = a_request().key
    end = RequestEnded(status=RequestStatus.RELEASED, reason=ReasonCode.RELEASED)

    assert refusal_of(state, (about(key, end, attempt=Attempt(2)),)) is RefusalCode.RULE


def test_a_queue_deadline_is_not_anticipated() -> None:
    request = a_request(queue_deadline_seconds=10)
    state = a_state(a_node(), queued(request))
    end = RequestEnded(status=RequestStatus.REJECTED, reason=ReasonCode.QUEUE_DEADLINE_PASSED)
    too_late = (about(request.key, end, attempt=Attempt(2)),)

    assert refusal_of(state, too_late, at=T0 + 10 * SECOND - 1) is RefusalCode.TOO_EARLY
    assert refusal_of(state, too_late, at=T0 + 10 * SECOND) is None


def test_a_reservation_that_exists_by_now_does_not_reject() -> None:
    request = a_request(reservation="res1")
    end = RequestEnded(status=RequestStatus.REJECTED, reason=ReasonCode.RESERVATION_UNKNOWN)
    rejected = (submitted(request), about(request.key, end, attempt=Attempt(1)))
    state = a_state(a_node())
    assert refusal_of(state, rejected) is None

    happened(state, a_reservation(start=T0, end=T0 + 60 * SECOND, on={"n1": 1}), activated())

    assert refusal_of(state, rejected) is RefusalCode.RULE


def test_a_request_waits_only_with_a_reason_and_on_what_was() -> None:
    state = a_state(a_node())
    request = a_request()
    future = RequestQueued(reasons=(Reason(code=ReasonCode.INSUFFICIENT_CPU),), wake=(), evaluated_at=Sequence(99))
    silent = RequestQueued(reasons=(), wake=(), evaluated_at=Sequence(0))

    for data in (future, silent):
        assert refusal_of(state, (submitted(request), about(request.key, data, attempt=Attempt(1)))) is not None


def lost(state: State, node: str, key: tuple[str, str], *names: str) -> Transaction:
    del state
    whom = key  # a victim's events carry no attempt
    return (
        Event(NodeLost(node=NodeId(node))),
        about(
            whom,  # pyright: ignore[reportArgumentType]
            AllocationsEnded(ids=tuple(map(AllocationId, names)), how=How.LOST, reason=ReasonCode.LOST_WITH_NODE),
        ),
        about(
            whom,  # pyright: ignore[reportArgumentType]
            RequestQueued(
                reasons=(Reason(code=ReasonCode.LOST_WITH_NODE),),
                wake=(Wake(on=WakeOn.CAPACITY),),
                evaluated_at=Sequence(0),
            ),
        ),
    )


def test_what_is_lost_with_its_node_is_queued_in_the_same_transaction() -> None:
    request = a_request()
    state = a_state(a_node(), placed(request, "n1"))

    assert accepted(state, lost(state, "n1", request.key, "web.0")) is None

    known = state.queue.requests[request.key]
    assert (known.status, known.attempt, known.live) == (RequestStatus.QUEUED, 3, ())


def test_what_was_given_back_before_its_node_was_lost_does_not_wait_again() -> None:
    request = a_request(grace_seconds=30)
    until = T0 + 30 * SECOND
    leaving = AllocationsReleasing(
        ids=(AllocationId("web.0"),), how=How.RELEASED, reason=ReasonCode.RELEASED, until=until
    )
    released = about(request.key, leaving, attempt=Attempt(2))
    state = a_state(a_node(), placed(request, "n1"), (released,))

    assert refusal_of(state, lost(state, "n1", request.key, "web.0")) is RefusalCode.STALE_VICTIM


def test_r27_a_tolerated_loss_is_not_anticipated() -> None:
    patient = a_request(
        tolerations=[{"key": "berth/lost", "operator": "exists", "effect": "no_execute", "seconds": 30}]
    )
    state = a_state(a_node(), placed(patient, "n1"))

    assert refusal_of(state, lost(state, "n1", patient.key, "web.0")) is RefusalCode.TOO_EARLY


def test_a_node_that_was_lost_returns_empty() -> None:
    patient = a_request(tolerations=[{"key": "berth/lost", "operator": "exists"}])
    state = a_state(a_node(), placed(patient, "n1"), (Event(NodeLost(node=NodeId("n1"))),))

    assert refusal_of(state, a_node()) is RefusalCode.RULE
    assert refusal_of(state, lost(state, "n1", patient.key, "web.0")[1:]) is RefusalCode.TOO_EARLY
    assert refusal_of(state, (*lost(state, "n1", patient.key, "web.0")[1:], *a_node())) is None, (
        "nothing tolerates that"
    )


def test_a_node_does_not_leave_with_live_allocations() -> None:
    state = a_state(a_node("n1"), a_node("n2"), placed(a_request(), "n1"))

    assert refusal_of(state, (Event(NodeLeft(node=NodeId("n1"))),)) is RefusalCode.RULE
    assert refusal_of(state, (Event(NodeLeft(node=NodeId("n2"))),)) is None
    assert refusal_of(state, (Event(NodeLost(node=NodeId("n9"))),)) is RefusalCode.NOT_FOUND


def test_registering_again_does_not_uncordon() -> None:
    state = a_state(a_node(), (Event(NodeChanged(node=NodeId("n1"), schedulable=False)),))

    assert accepted(state, a_node(cpu=16_000)) is None

    assert state.cluster.nodes[NodeId("n1")].schedulable is False
    assert state.cluster.nodes[NodeId("n1")].capacity.cpu_millicores == 16_000


def test_only_settled_requests_are_forgotten_and_then_unknown() -> None:
    request = a_request()
    state = a_state(a_node(), placed(request, "n1"))
    forget = (Event(RequestsForgotten(requests=(RequestId("web"),)), request.namespace),)
    assert refusal_of(state, forget) is RefusalCode.RULE

    happened(state, ended(state, request.key))

    assert accepted(state, forget) is None
    assert state.queue.requests == {}
    assert state.cluster.allocations == {}
    assert refusal_of(state, placed(a_request(cpu=2_000), "n1")) is None, "id and allocation ids are free again"


def test_only_the_leader_writes_its_own_events() -> None:
    elected = (Event(LeaderElected(term=9, leader="raft-9", prev_term=0)),)  # pyright: ignore[reportArgumentType]

    assert refusal_of(a_state(), elected) is RefusalCode.INVALID


def test_each_type_stands_at_most_once_per_request() -> None:
    state = a_state(a_node())
    twice = placed(a_request(count=2), "n1", "n1")

    assert refusal_of(state, (*twice, twice[1])) is RefusalCode.INVALID
    assert refusal_of(state, (twice[1], twice[0])) is not None, "the body opens the transaction"
    assert refusal_of(state, ()) is RefusalCode.INVALID
