"""What becomes of an evaluation, whatever leader, ledger and other schedulers do meanwhile (DESIGN section 2)."""

from dataclasses import replace

import pytest

from berth.ids import Attempt, NodeId, ReservationId, Sequence
from berth.messages.commands import RefusalCode, Verdict
from berth.messages.events import (
    Event,
    NodeLeft,
    RequestPlaced,
    RequestQueued,
    RequestSubmitted,
    ReservationEnded,
    Wake,
    WakeOn,
    about,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.messages.reservation_events import ReservationStatus
from berth_scheduler.limits import Limits
from tests.builders import (
    HOUR,
    T0,
    TEAM_A,
    a_node,
    a_request,
    a_reservation,
    activated,
    ended,
    placed,
    submitted,
)
from tests.unit.berth_scheduler.stage import Stage, item, refused

A, B, C = (a_request(name, cpu=1_000) for name in "abc")


def queued(request: Request) -> tuple[Event, ...]:
    data = RequestQueued(
        reasons=(Reason(code=ReasonCode.INSUFFICIENT_CPU, nodes=1),),
        wake=(Wake(on=WakeOn.CAPACITY),),
        evaluated_at=Sequence(1),
    )
    return (submitted(request), about(request.key, data, attempt=Attempt(1)))


# ---------------------------------------------------------------- the plain walk


def test_a_new_request_is_submitted_and_placed_in_one_transaction_at_attempt_1() -> None:
    stage = Stage(a_node())

    stage.evaluate(item(A))
    stage.settle()

    (proposal,) = stage.offers
    ((opening, placing),) = proposal.transactions
    assert isinstance(opening.data, RequestSubmitted) and opening.data.digest == item(A).digest
    assert isinstance(placing.data, RequestPlaced)
    assert {(event.attempt, event.traceparent) for event in (opening, placing)} == {(1, item(A).traceparent)}
    assert proposal.view_sequence == stage.state.sequence
    assert stage.outcomes == [], "nothing is answered before the leader has spoken"

    stage.run()
    (outcome,) = stage.outcomes
    assert (outcome.verdict, outcome.attempt, outcome.sequence) == (Verdict.ACCEPTED, 1, stage.leader.state.sequence)
    assert outcome.traceparent == item(A).traceparent


def test_a_known_request_is_placed_at_its_attempt_without_its_body() -> None:
    stage = Stage(a_node(), queued(A))

    stage.evaluate(item(A, attempt=2))
    stage.settle()

    (proposal,) = stage.offers
    ((placing,),) = proposal.transactions
    assert (type(placing.data), placing.attempt) == (RequestPlaced, 2)


def test_a_batch_becomes_one_proposal_of_one_transaction_each_in_order() -> None:
    stage = Stage(a_node())

    stage.evaluate(item(A), item(B))
    stage.evaluate(item(C), evaluation="e2")
    stage.settle()

    (proposal,) = stage.offers
    assert [transaction[0].request for transaction in proposal.transactions] == ["a", "b", "c"]
    stage.run()
    assert stage.verdicts() == {"a": "accepted", "b": "accepted", "c": "accepted"}


def test_a_batch_too_large_for_one_message_becomes_several_proposals() -> None:
    stage = Stage(a_node(cpu=30_000))
    heavy = [a_request(f"r{number}", labels={f"k{key}": "v" * 60 for key in range(400)}) for number in range(30)]

    stage.evaluate(*map(item, heavy))
    stage.settle()

    assert len(stage.offers) > 1
    assert sum(len(proposal.transactions) for proposal in stage.offers) == 30
    assert len(set(stage.sent)) == len(stage.sent)


def test_each_item_sees_the_earlier_ones_of_its_batch_as_placed() -> None:
    stage = Stage(a_node("n1", cpu=1_000), a_node("n2", cpu=1_000))

    stage.evaluate(item(A), item(B))
    stage.settle()

    assert sorted(node for (node,) in stage.offered_nodes()) == ["n1", "n2"]


def test_proposals_in_flight_occupy_the_view_until_their_record_is_folded() -> None:
    stage = Stage(a_node("n1", cpu=1_000), a_node("n2", cpu=1_000))

    stage.evaluate(item(A))
    stage.settle()
    (first,) = stage.offered_nodes()
    stage.evaluate(item(B), evaluation="e2")
    stage.settle()

    assert sorted([first, stage.offered_nodes()[1]]) == [["n1"], ["n2"]]
    stage.commit()
    stage.fold()
    assert stage.state.digest() == stage.leader.state.digest(), "a fold never sees what is only assumed"


def test_what_has_no_place_is_answered_with_reasons_wake_and_the_sequence_it_was_judged_on() -> None:
    stage = Stage(a_node(cpu=1_000), placed(a_request("old", cpu=600), "n1"))

    stage.evaluate(item(A))
    stage.settle()

    (outcome,) = stage.outcomes
    assert (outcome.verdict, outcome.evaluated_at) == (Verdict.UNPLACEABLE, stage.state.sequence)
    assert [reason.code for reason in outcome.reasons] == [ReasonCode.INSUFFICIENT_CPU]
    assert {wake.on for wake in outcome.wake} == {WakeOn.CAPACITY, WakeOn.NODES}
    assert stage.offers == []


# ---------------------------------------------------------------- assumed is not committed


def test_what_fails_only_because_of_something_assumed_waits_for_it() -> None:
    stage = Stage(a_node(cpu=1_000))

    stage.evaluate(item(A), item(B))
    stage.settle()
    assert len(stage.offered_nodes()) == 1
    assert stage.outcomes == [], "b is not queued on the strength of what nobody committed"

    stage.run()
    assert stage.verdicts() == {"a": "accepted", "b": "unplaceable"}
    assert stage.outcomes[-1].evaluated_at == stage.leader.state.sequence, "judged with a on board"


def test_it_takes_the_place_when_the_assumption_is_refused() -> None:
    stage = Stage(a_node(cpu=1_000))

    stage.evaluate(item(A), item(B))
    stage.settle()
    refused(stage, RefusalCode.QUOTA)
    stage.run()

    assert stage.verdicts() == {"a": "refused", "b": "accepted"}
    assert stage.where(B) == ["n1"]


def test_a_draw_on_a_reservation_is_assumed_and_taken_back_exactly() -> None:
    drawing = [a_request(name, cpu=2_000, reservation="res1") for name in ("x", "y", "z")]
    stage = Stage(a_node(), a_reservation(start=T0, end=T0 + HOUR, on={"n1": 2}, cpu=2_000), activated())

    stage.evaluate(*map(item, drawing))
    stage.settle()
    assert len(stage.offered_nodes()) == 2, "the third finds the reservation full"
    refused(stage, RefusalCode.CONFLICT)
    stage.run()

    assert stage.verdicts() == {"x": "refused", "y": "refused", "z": "accepted"}
    assert stage.state.digest() == stage.leader.state.digest()
    assert stage.state.reservations.drawn == stage.leader.state.reservations.drawn


def test_the_end_of_a_reservation_and_of_a_node_meet_no_assumption() -> None:
    drawing = a_request("x", cpu=2_000, reservation="res1")
    stage = Stage(
        a_node("n1"), a_node("n2"), a_reservation(start=T0, end=T0 + HOUR, on={"n1": 1}, cpu=2_000), activated()
    )
    stage.evaluate(item(drawing))
    stage.settle()
    over = Event(ReservationEnded(reservation=ReservationId("res1"), status=ReservationStatus.CANCELLED), TEAM_A)

    stage.leader.happened((over,), (Event(NodeLeft(node=NodeId("n1"))),), at=T0)
    stage.fold()

    assert stage.state.digest() == stage.leader.state.digest()
    stage.run()
    assert stage.verdicts() == {"x": "unplaceable"}


# ---------------------------------------------------------------- attempts


def test_an_attempt_that_the_view_is_past_is_superseded_without_a_proposal() -> None:
    stage = Stage(a_node(), queued(A))

    stage.evaluate(item(A, attempt=1))
    stage.settle()

    assert stage.verdicts() == {"a": "superseded"}
    assert stage.sent == []


@pytest.mark.parametrize("known", [False, True])
def test_an_attempt_that_the_view_has_not_reached_waits_for_the_ledger(known: bool) -> None:
    stage = Stage(a_node(), *([queued(A)] if known else []))
    attempt = 3 if known else 2

    stage.evaluate(item(A, attempt=attempt))
    stage.settle()
    assert (stage.sent, stage.outcomes) == ([], [])

    again = (replace(queued(A)[1], attempt=Attempt(2)),) if known else queued(A)
    stage.leader.happened(again, at=T0)
    stage.run()
    assert stage.verdicts() == {"a": "accepted"}


def test_what_is_driven_by_a_record_waits_for_it_and_half_a_second_at_most() -> None:
    stage = Stage(a_node(cpu=1_000), placed(A, "n1"), queued(B))
    stage.leader.happened(ended(stage.leader.state, A.key), at=stage.now)

    stage.evaluate(item(B, attempt=2).model_copy(update={"view": stage.leader.state.sequence}))
    stage.settle()
    assert stage.outcomes == [], "on this view it would only be said again that it has no place"
    stage.fold()
    stage.settle()
    assert len(stage.offers) == 1

    stage.evaluate(item(a_request("c", cpu=9_000)).model_copy(update={"view": Sequence(99)}), evaluation="e2")
    stage.settle()
    assert stage.outcomes == []
    stage.now += 500
    assert (stage.scheduler.deadline() or 0) <= stage.now, "it is looked at then, if not before"
    stage.settle()
    assert stage.verdicts() == {"c": "unplaceable"}


def test_one_attempt_is_never_evaluated_twice_at_a_time_and_every_asker_is_answered() -> None:
    stage = Stage(a_node())
    stage.evaluate(item(A))
    stage.settle()

    stage.evaluate(item(A), evaluation="e2")
    stage.settle()
    assert len(stage.sent) == 1
    stage.run()
    stage.evaluate(item(A), evaluation="e3")
    stage.run()

    assert [outcome.verdict for outcome in stage.outcomes] == [Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.SUPERSEDED]


def test_a_replacement_after_a_loss_has_a_new_name() -> None:
    stage = Stage(a_node(), placed(A, "n1"))
    stage.leader.happened((*ended(stage.leader.state, A.key)[:1], replace(queued(A)[1], attempt=Attempt(2))), at=T0)
    stage.fold()

    stage.evaluate(item(A, attempt=3))
    stage.run()

    assert stage.leader.state.queue.requests[A.key].live == ("a.0.1",)


# ---------------------------------------------------------------- bounds


def test_beyond_the_bound_an_evaluation_is_answered_overloaded_at_once() -> None:
    stage = Stage(a_node(), limits=Limits(waiting_max=1))

    stage.evaluate(item(A), item(B))

    (outcome,) = stage.outcomes
    assert (outcome.request, outcome.verdict) == ("b", Verdict.UNAVAILABLE)
    assert outcome.refusal is not None and outcome.refusal.code is RefusalCode.OVERLOADED


def test_a_thousand_instances_are_one_transaction() -> None:
    gang = a_request("gang", count=800, cpu=1)
    stage = Stage(a_node(instances=1_000))

    stage.evaluate(item(gang))
    stage.run()

    assert stage.verdicts() == {"gang": "accepted"}
    assert len(stage.where(gang)) == 800
