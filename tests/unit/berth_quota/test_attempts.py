"""Every transaction is made for an attempt and raises it (DESIGN section 2, "Attempts")."""

from berth.ids import NodeId, RequestId, Sequence
from berth.messages.commands import Verdict
from berth.messages.events import AllocationsEnded, Event, How, NodeLost, RequestQueued, Wake, WakeOn, about
from berth.messages.reasons import Reason, ReasonCode
from tests.builders import TEAM_A, a_node, a_quota
from tests.unit.berth_quota.settings_of_walks import a_walk, cores, wants
from tests.unit.berth_quota.walk import Walk, verdict


def loses_its_node(walk: Walk, request: str) -> None:
    """The node is lost, and with it the allocation; the request is queued again in the same transaction."""
    key = (TEAM_A, RequestId(request))
    known = walk.leader.queue.requests[key]
    walk.happened((Event(NodeLost(node=NodeId("n1"))),))
    queued = RequestQueued(
        reasons=(Reason(code=ReasonCode.LOST_WITH_NODE),),
        wake=(Wake(on=WakeOn.CAPACITY), Wake(on=WakeOn.NODES)),
        evaluated_at=Sequence(0),
    )
    ended = AllocationsEnded(ids=known.live, how=How.LOST, reason=ReasonCode.LOST_WITH_NODE)
    walk.happened((about(key, ended), about(key, queued)))


def test_decisions_show_the_attempt_they_were_made_for() -> None:
    walk = a_walk(a_quota(hard=cores(2)))
    walk.submit(wants("other", 2))
    walk.submit(wants("web", 2))
    walk.release("other")
    walk.scheduler.verdicts["web"] = verdict("web", Verdict.UNAVAILABLE)
    loses_its_node(walk, "web")
    walk.happened(a_node("n2"))
    walk.wait(5_000)
    walk.release("web")

    assert walk.said("web") == [("queued", 1), ("placed", 2), ("queued", 3), ("placed", 4), ("released", 5)]


def test_a_superseded_evaluation_ends_and_the_ledgers_outcome_stands() -> None:
    walk = a_walk()
    walk.hold_scheduler = True
    walk.submit(wants("web"))
    other = a_walk()
    other.submit(wants("web"))
    walk.happened(*other.record(other.leader.sequence).transactions)
    assert walk.said("web") == [("placed", 1)]

    walk.hold_scheduler = False
    walk.run()

    assert walk.said("web") == [("placed", 1)]
    assert walk.types_of("web") == ["RequestSubmitted", "RequestPlaced"]


def test_a_scheduler_that_says_superseded_before_the_ledger_does_ends_the_evaluation_only() -> None:
    walk = a_walk()
    walk.scheduler.verdicts["web"] = verdict("web", Verdict.SUPERSEDED)
    walk.submit(wants("web"))
    assert walk.decisions == []

    walk.wait(walk.bounds.evaluation_ms)

    assert walk.evaluated() == ["web", "web"]
    assert walk.said("web") == [("placed", 1)]


def test_two_active_quota_services_are_harmless() -> None:
    walk = a_walk(a_quota(hard=cores(2)), count=2)
    walk.hold_scheduler = walk.hold_leader = True
    requests = [wants(f"web-{number}") for number in range(4)]
    walk.submit(*requests, run=False)
    walk.services.reverse()
    walk.submit(*requests, run=False)
    walk.run()

    walk.hold_scheduler = walk.hold_leader = False
    walk.run()
    walk.wait(10_000)

    for request in requests:
        assert len(walk.leader.queue.requests[request.key].allocations) <= 1
    assert [walk.decision(one.id).status for one in requests] == ["placed", "placed", "queued", "queued"]
    assert walk.leader.quotas.used_by(TEAM_A).cpu_millicores == 2_000
    assert sorted(walk.acknowledged) == [1, 2]


def test_a_second_offer_after_a_lost_answer_is_harmless() -> None:
    walk = a_walk(a_quota(hard=cores(0)), a_quota("team-b"))
    walk.hold_leader = True
    walk.submit(wants("web", 0, ram=1, reservation="unknown"))
    assert len(walk.proposals) == 1

    walk.wait(walk.bounds.proposal_ms)
    assert len(walk.proposals) == 2, "nobody answered, so it is offered again"
    walk.hold_leader = False
    walk.run()

    assert walk.types_of("web") == ["RequestSubmitted", "RequestEnded"]
    assert walk.said("web") == [("rejected", 1)]


def test_a_late_answer_to_an_earlier_attempt_says_nothing() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("a"))
    walk.submit(wants("b"))
    assert walk.said("b") == [("queued", 1)]
    before = walk.leader.sequence

    late = verdict("b", Verdict.UNPLACEABLE, reasons=[Reason(code=ReasonCode.INFEASIBLE)])
    walk.answer(walk.quota, late.model_copy(update={"attempt": 1}))
    walk.run()

    assert walk.leader.sequence == before
