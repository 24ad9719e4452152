"""Lost races, refusals, and a leader that does not answer: what an evaluation makes of them (DESIGN section 2)."""

import pytest

from berth.ids import Sequence, Term
from berth.messages.commands import ProposalAnswer, Refusal, RefusalCode
from berth.messages.events import Event, LeaderElected
from berth_scheduler.limits import Limits
from tests.builders import T0, a_node, a_quota, a_request, placed
from tests.unit.berth_scheduler.stage import Leader, Stage, item, refused

A, B = (a_request(name, cpu=1_000) for name in "ab")

# ---------------------------------------------------------------- races


def test_who_loses_a_race_is_judged_again_at_once_on_the_newer_view() -> None:
    stage = Stage(a_node("n1", cpu=1_000), a_node("n2", cpu=2_000))
    stage.evaluate(item(A))
    stage.settle()
    assert stage.offered_nodes() == [["n1"]]

    stage.leader.happened(placed(a_request("other"), "n1"), at=T0)  # another scheduler was quicker
    stage.run()

    assert stage.verdicts() == {"a": "accepted"}
    assert stage.where(A) == ["n2"]


def test_after_a_lost_race_the_record_that_won_it_is_awaited_but_not_for_ever() -> None:
    stage = Stage(a_node("n1", cpu=1_000), a_node("n2", cpu=2_000))
    stage.evaluate(item(A))
    stage.settle()
    refused(stage, RefusalCode.CAPACITY)

    stage.settle()
    assert stage.offers == [], "the view does not have the winner yet"
    due = stage.scheduler.deadline()
    assert due is not None and due <= T0 + Limits().retry_ms
    stage.now = due
    stage.settle()
    assert len(stage.offers) == 1


@pytest.mark.parametrize("code", [RefusalCode.CAPACITY, RefusalCode.RULE, RefusalCode.WINDOW, RefusalCode.STALE_VICTIM])
def test_after_three_lost_races_the_evaluation_goes_back_as_contended(code: RefusalCode) -> None:
    stage = Stage(a_node())
    stage.evaluate(item(A))

    for _ in range(3):
        stage.settle()
        assert stage.verdicts() == {}
        refused(stage, code, sequence=stage.state.sequence)

    assert stage.verdicts() == {"a": "contended"}
    stage.settle()
    assert stage.offers == []


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (RefusalCode.QUOTA, "refused"),
        (RefusalCode.CLASS, "refused"),
        (RefusalCode.CONFLICT, "refused"),
        (RefusalCode.TOO_LARGE, "refused"),
        (RefusalCode.INTERNAL, "refused"),
        (RefusalCode.SUPERSEDED, "superseded"),
    ],
)
def test_other_refusals_end_the_evaluation_and_say_why(code: RefusalCode, verdict: str) -> None:
    stage = Stage(a_node())
    stage.evaluate(item(A))
    stage.settle()

    refused(stage, code)

    (outcome,) = stage.outcomes
    assert outcome.verdict == verdict
    assert outcome.refusal is None or outcome.refusal.code is code
    stage.settle()
    assert stage.offers == []


def test_a_quota_that_the_leader_enforces_goes_back_to_quota() -> None:
    stage = Stage(a_node(), a_quota(hard={"cpu_millicores": 1_500}))

    stage.evaluate(item(A), item(B))
    stage.run()

    assert stage.verdicts() == {"a": "accepted", "b": "refused"}
    assert stage.outcomes[-1].refusal is not None and stage.outcomes[-1].refusal.code is RefusalCode.QUOTA


def test_what_another_scheduler_placed_elsewhere_is_superseded() -> None:
    stage = Stage(a_node("n1", cpu=1_000), a_node("n2"))
    stage.evaluate(item(A))
    stage.settle()
    assert stage.offered_nodes() == [["n1"]]

    stage.leader.happened(placed(A, "n2"), at=T0)
    stage.run()

    assert stage.verdicts() == {"a": "superseded"}
    assert stage.where(A) == ["n2"]


def test_two_schedulers_at_the_same_attempt_place_it_once() -> None:
    leader = Leader()
    leader.happened(a_node("n1"), a_node("n2"), at=T0)
    one, other = Stage(leader=leader), Stage(leader=leader)

    for stage in (one, other):
        stage.evaluate(item(A))
        stage.settle()
    for stage in (one, other):
        stage.commit()
    for stage in (one, other):
        stage.run()

    assert one.verdicts() == other.verdicts() == {"a": "accepted"}, "both chose the same node, and there it is"
    assert len(leader.state.queue.requests[A.key].allocations) == 1
    assert one.state.digest() == other.state.digest() == leader.state.digest()


# ---------------------------------------------------------------- a leader that does not answer


def test_the_ledger_is_the_answer_when_the_leaders_was_lost() -> None:
    stage = Stage(a_node())
    stage.evaluate(item(A))
    stage.settle()
    stage.commit()
    stage.answers.clear()

    stage.fold()

    assert stage.verdicts() == {"a": "accepted"}
    assert stage.outcomes[0].sequence == stage.leader.state.sequence
    stage.advance(2_000)
    assert len(stage.sent) == 1, "nobody asks again for what is known"


def test_without_an_answer_the_same_proposal_is_sent_again_under_the_same_id() -> None:
    stage = Stage(a_node())
    stage.evaluate(item(A))
    stage.settle()
    lost = stage.offers.pop()

    stage.now += Limits().answer_ms
    stage.settle()

    (again,) = stage.offers
    assert again == lost
    stage.run()
    assert stage.verdicts() == {"a": "accepted"}


def test_when_another_leads_it_is_asked_at_once_under_the_same_id() -> None:
    stage = Stage(a_node())
    stage.evaluate(item(A))
    stage.settle()
    lost = stage.offers.pop()

    stage.leader.happened((Event(LeaderElected(term=Term(2), leader="raft-2", prev_term=Term(1))),), at=T0)
    stage.fold()
    stage.settle()

    assert stage.offers == [lost]


def test_where_nobody_leads_the_proposal_is_tried_again_soon() -> None:
    stage = Stage(a_node())
    stage.evaluate(item(A))
    stage.settle()
    stage.nobody_leads()

    due = stage.scheduler.deadline()
    assert due is not None and due == T0 + Limits().retry_ms
    stage.now = due
    stage.run()

    assert stage.verdicts() == {"a": "accepted"}
    assert len(set(stage.sent)) == 1


@pytest.mark.parametrize("code", [RefusalCode.NOT_LEADER, RefusalCode.OVERLOADED, RefusalCode.UNKNOWN])
def test_what_nobody_judged_is_offered_again(code: RefusalCode) -> None:
    stage = Stage(a_node())
    stage.evaluate(item(A))
    stage.settle()
    refused(stage, code)
    assert stage.outcomes == []

    stage.now += Limits().retry_ms
    stage.run()

    assert stage.verdicts() == {"a": "accepted"}


def test_what_nobody_judged_of_a_proposal_is_offered_again_by_itself() -> None:
    stage = Stage(a_node())
    stage.evaluate(item(A), item(B))
    stage.settle()
    (proposal,) = stage.offers
    stage.offers.clear()
    unknown = Refusal(code=RefusalCode.UNKNOWN)
    superseded = Refusal(code=RefusalCode.SUPERSEDED)
    stage.tell(ProposalAnswer(id=proposal.id, term=Term(1), sequence=Sequence(2), outcomes=(superseded, unknown)))

    stage.now += Limits().retry_ms
    stage.run()

    assert stage.verdicts() == {"a": "superseded", "b": "accepted"}


def test_when_no_leader_answers_in_time_the_evaluation_is_unavailable_and_its_place_is_free() -> None:
    stage = Stage(a_node(cpu=1_000), limits=Limits(give_up_ms=1_000))
    stage.evaluate(item(A))
    stage.settle()
    stage.offers.clear()

    stage.now += 1_000
    stage.settle()
    assert stage.verdicts() == {"a": "unavailable"}

    stage.offers.clear()
    stage.evaluate(item(B), evaluation="e2")
    stage.run()
    assert stage.verdicts()["b"] == "accepted"


def test_an_answer_of_a_lower_term_is_ignored() -> None:
    stage = Stage(a_node(), leader=Leader(term=Term(7)))
    stage.evaluate(item(A))
    stage.run()
    stage.evaluate(item(B), evaluation="e2")
    stage.settle()

    (proposal,) = stage.offers
    stage.tell(ProposalAnswer(id=proposal.id, term=Term(6), sequence=Sequence(9), outcomes=(None,)))
    assert stage.verdicts() == {"a": "accepted"}

    stage.run()
    assert stage.verdicts() == {"a": "accepted", "b": "accepted"}
    assert stage.outcomes[-1].sequence == stage.leader.state.sequence
