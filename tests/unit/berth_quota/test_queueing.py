"""What cannot be placed waits in the ledger and misses no wake-up (DESIGN section 2, "Queueing"; R100–R102)."""

import pytest

from berth.ids import NodeId, RequestId, Sequence
from berth.messages.commands import Verdict
from berth.messages.events import Event, NodeChanged, RequestQueued, WakeOn
from berth.messages.reasons import Reason, ReasonCode
from berth_quota.admission import ON_QUEUE
from tests.builders import HOUR, T0, TEAM_A, TEAM_B, a_node, a_quota, a_reservation, activated, ended
from tests.unit.berth_quota.settings_of_walks import a_walk, cores, wants
from tests.unit.berth_quota.walk import CAPACITY, NO_ROOM, Walk, outcome_of, verdict


def queued_event(walk: Walk, request: str) -> RequestQueued:
    """The last one about `request`."""
    found = [
        event.data
        for sequence in range(1, walk.leader.sequence + 1)
        for transaction in walk.record(sequence).transactions
        for event in transaction
        if event.request == request and isinstance(event.data, RequestQueued)
    ]
    return found[-1]


def a_full_walk(*, waiting: int, room: int = 1) -> Walk:
    """`full` takes the whole node; `waiting` requests of one shape wait for it."""
    walk = a_walk(room=room)
    walk.submit(wants("full", room))
    if waiting:
        walk.submit(*[wants(f"web-{number:02}") for number in range(waiting)])
    walk.evaluations.clear()
    return walk


def leaves(walk: Walk, request: str) -> None:
    walk.happened(ended(walk.leader, (TEAM_A, RequestId(request))))


def test_the_ledger_says_why_what_would_wake_it_and_when_it_was_judged() -> None:
    walk = a_walk(a_quota(hard=cores(1)))
    walk.submit(wants("a"))
    judged_at = walk.leader.sequence
    walk.submit(wants("b"))

    queued = queued_event(walk, "b")
    assert [(one.code, one.needed, one.best_available) for one in queued.reasons] == [(ReasonCode.QUOTA_HARD, 1_000, 0)]
    assert [wake.on for wake in queued.wake] == [WakeOn.QUOTA]
    assert queued.evaluated_at == judged_at


def test_what_a_scheduler_found_unplaceable_is_queued_in_its_words() -> None:
    walk = a_full_walk(waiting=1)

    queued = queued_event(walk, "web-00")
    assert (queued.reasons, queued.wake, queued.evaluated_at) == (NO_ROOM, (*CAPACITY, *ON_QUEUE), 2)


@pytest.mark.parametrize("change", ["release", "limit", "removal"])
def test_who_waits_for_a_quota_is_driven_when_that_quota_gives(change: str) -> None:
    walk = a_walk(a_quota(hard=cores(1)), a_quota(TEAM_B, hard=cores(1)))
    walk.submit(wants("a"))
    walk.submit(wants("b"))
    walk.submit(wants("other", namespace=TEAM_B))
    walk.release("other", namespace=TEAM_B)
    assert walk.said("b") == [("queued", 1)], "another namespace's quota is no news"

    if change == "release":
        leaves(walk, "a")
    else:
        walk.happened(a_quota(hard=cores(2) if change == "limit" else {}))

    assert walk.said("b") == [("queued", 1), ("placed", 2)]


def test_who_waits_for_a_cohort_is_driven_when_a_sibling_gives() -> None:
    walk = a_walk(a_quota(soft=cores(1), cohort="research"), a_quota(TEAM_B, soft=cores(1), cohort="research"))
    walk.submit(wants("sibling", 2, namespace=TEAM_B))
    walk.submit(wants("web"))
    assert walk.said("web") == [("queued", 1)]

    walk.release("sibling", namespace=TEAM_B)

    assert walk.said("web") == [("queued", 1), ("placed", 2)]


def test_who_joins_another_cohort_is_driven_by_that_one_from_then_on() -> None:
    walk = a_walk(
        a_quota(soft=cores(0), cohort="research"),
        a_quota(TEAM_B, soft=cores(1), cohort="sales"),
    )
    walk.submit(wants("other", namespace=TEAM_B))
    walk.submit(wants("web"))
    walk.happened(a_quota(soft=cores(0), cohort="sales"))
    assert walk.said("web") == [("queued", 1)]

    walk.release("other", namespace=TEAM_B)

    assert walk.said("web") == [("queued", 1), ("placed", 2)]


def test_who_waits_for_a_reservation_is_driven_when_it_becomes_active() -> None:
    walk = a_walk(a_reservation(start=T0, end=T0 + HOUR, on={"n1": 1}, cpu=1_000))
    walk.submit(wants("web", reservation="res1"))
    (reason,) = queued_event(walk, "web").reasons
    assert reason.code is ReasonCode.RESERVATION_NOT_ACTIVE
    assert walk.evaluations == []

    walk.happened(activated())

    assert walk.evaluated() == ["web"]


def test_infeasible_wakes_on_nodes_only() -> None:
    walk = a_full_walk(waiting=0)
    wake = [{"on": "nodes"}]
    reasons = [Reason(code=ReasonCode.INFEASIBLE)]
    walk.scheduler.verdicts["big"] = verdict("big", Verdict.UNPLACEABLE, reasons=reasons, wake=wake, evaluated_at=2)
    walk.submit(wants("big", 4))
    walk.evaluations.clear()

    leaves(walk, "full")
    assert walk.evaluated() == []
    walk.happened(a_node("n2"))

    assert walk.said("big") == [("queued", 1), ("placed", 2)]


def test_a_change_between_the_judgement_and_the_queueing_drives_at_once() -> None:
    walk = a_full_walk(waiting=0)
    walk.hold_leader = True
    walk.submit(wants("web"))
    assert walk.evaluated() == ["web"]
    leaves(walk, "full")

    walk.hold_leader = False
    walk.run()

    assert walk.said("web") == [("queued", 1), ("placed", 2)]


def test_a_change_while_it_is_being_driven_drives_it_once_more() -> None:
    walk = a_full_walk(waiting=1)
    walk.hold_scheduler = True
    walk.happened(a_node("tiny", cpu=1))
    assert walk.evaluated() == ["web-00"]
    late = verdict("web-00", Verdict.UNPLACEABLE, reasons=NO_ROOM, wake=CAPACITY, evaluated_at=walk.leader.sequence)
    walk.scheduler.verdicts["web-00"] = late
    leaves(walk, "full")

    walk.hold_scheduler = False
    walk.run()

    assert walk.evaluated() == ["web-00", "web-00"]
    assert walk.said("web-00")[-1] == ("placed", 2)


def test_a_scheduler_that_judged_on_an_older_view_is_asked_again() -> None:
    walk = a_full_walk(waiting=2, room=2)
    behind = {"reasons": NO_ROOM, "wake": CAPACITY, "evaluated_at": walk.leader.sequence}
    walk.hold_scheduler = True
    leaves(walk, "full")
    (evaluation,) = walk.evaluations
    walk.answer(walk.quota, outcome_of(evaluation.items[0], Verdict.UNPLACEABLE, **behind))
    walk.run()
    assert walk.evaluated() == ["web-00", "web-01"], "the other one of its lane has no answer yet"

    walk.scheduler.verdicts["web-00"] = verdict("web-00", Verdict.UNPLACEABLE, **behind)
    walk.hold_scheduler = False
    walk.run()

    assert walk.evaluated() == ["web-00", "web-01", "web-00"]
    assert walk.said("web-00")[-1] == ("placed", 2)


def test_what_was_judged_after_the_change_is_not_driven_again() -> None:
    walk = a_full_walk(waiting=0)
    newer = Sequence(walk.leader.sequence + 1)
    walk.scheduler.verdicts["web"] = verdict(
        "web", Verdict.UNPLACEABLE, reasons=NO_ROOM, wake=CAPACITY, evaluated_at=newer
    )
    walk.hold_leader = True
    walk.submit(wants("web"))
    walk.happened(a_node("tiny", cpu=1))

    walk.hold_leader = False
    walk.run()

    assert walk.said("web") == [("queued", 1)]
    assert walk.evaluated() == ["full", "web"] or walk.evaluated() == ["web"]


def test_a_failed_drive_with_unchanged_reasons_writes_no_event() -> None:
    walk = a_full_walk(waiting=1)
    before = walk.leader.sequence

    walk.happened(a_node("tiny", cpu=1))

    assert walk.evaluated() == ["web-00"]
    assert walk.leader.sequence == before + 1
    assert walk.said("web-00") == [("queued", 1)]
    walk.happened((Event(NodeChanged(node=NodeId("tiny"), labels={"fast": "yes"})),))
    assert walk.evaluated() == ["web-00", "web-00"], "it is remembered when it was judged last"


def test_a_failed_drive_with_new_reasons_says_so() -> None:
    walk = a_full_walk(waiting=1)
    reasons = [Reason(code=ReasonCode.NODE_CORDONED, nodes=1)]
    walk.scheduler.verdicts["web-00"] = verdict(
        "web-00", Verdict.UNPLACEABLE, reasons=reasons, wake=[{"on": "nodes"}], evaluated_at=walk.leader.sequence + 1
    )

    walk.happened((Event(NodeChanged(node=NodeId("n1"), labels={"fast": "yes"})),))

    assert walk.said("web-00") == [("queued", 1), ("queued", 2)]
    assert [reason.code for reason in walk.decision("web-00").reasons] == [ReasonCode.NODE_CORDONED]


def test_wake_ups_stop_after_sixteen_failures_in_a_row_of_one_shape() -> None:
    walk = a_full_walk(waiting=40)
    walk.submit(wants("other", 1, priority=1))
    walk.evaluations.clear()

    walk.happened(a_node("tiny", cpu=1))

    driven = walk.evaluated()
    assert driven == [f"web-{number:02}" for number in range(16)] + ["other"], "in queue order, each shape for itself"


def test_a_success_begins_the_row_anew() -> None:
    walk = a_full_walk(waiting=40, room=20)

    leaves(walk, "full")

    placed = [f"web-{number:02}" for number in range(20)]
    assert [walk.said(one)[-1] for one in placed] == [("placed", 2)] * 20
    assert 16 <= len(walk.evaluated()) - 20 <= 32
    assert walk.evaluated()[:20] == placed


def test_the_next_change_begins_with_the_oldest_again() -> None:
    walk = a_full_walk(waiting=20)
    walk.happened(a_node("tiny", cpu=1))
    walk.evaluations.clear()

    walk.happened(a_node("small", cpu=1_000))

    assert walk.said("web-00")[-1] == ("placed", 2)
    assert walk.evaluated()[0] == "web-00"


def test_new_arrivals_do_not_overtake_who_waits_for_the_same() -> None:
    walk = a_full_walk(waiting=3)
    walk.hold_scheduler = True
    leaves(walk, "full")
    walk.submit(wants("late"))

    walk.hold_scheduler = False
    walk.run()

    assert walk.evaluated() == ["web-00", "web-01", "web-02", "late"]
    assert walk.said("web-00")[-1] == ("placed", 2)
    assert walk.said("late") == [("queued", 1)]


def test_a_higher_priority_goes_first_whenever_it_came() -> None:
    walk = a_full_walk(waiting=3)
    walk.submit(wants("urgent", priority=90))
    walk.evaluations.clear()

    leaves(walk, "full")

    assert walk.evaluated()[0] == "urgent"
    assert walk.said("urgent")[-1] == ("placed", 2)


def test_a_head_that_does_not_fit_does_not_block_others() -> None:
    walk = a_walk(room=4)
    walk.submit(wants("a", 2), wants("b", 2))
    walk.submit(wants("big", 4), wants("small", 1))

    leaves(walk, "a")

    assert walk.said("big") == [("queued", 1)]
    assert walk.said("small")[-1] == ("placed", 2)


def test_one_that_no_scheduler_answers_for_does_not_hold_up_the_wake_ups_of_others() -> None:
    walk = a_full_walk(waiting=1)
    walk.submit(wants("other", 1, priority=10))
    walk.hold_scheduler = True
    walk.happened(a_node("tiny", cpu=1))
    walk.hold_scheduler = False
    walk.drop_asked("web-00")
    walk.evaluations.clear()

    leaves(walk, "full")
    walk.wait(walk.bounds.turn_ms)
    walk.wait(walk.bounds.gather_ms)

    assert walk.said("other")[-1] == ("placed", 2)


def test_one_that_is_driven_again_before_it_was_to_be_judged_again_is_in_flight_once() -> None:
    walk = a_full_walk(waiting=1)
    walk.scheduler.verdicts["web-00"] = verdict("web-00", Verdict.SUPERSEDED)
    walk.happened(a_node("tiny", cpu=1))
    walk.wait(walk.bounds.evaluation_ms - 1)
    walk.hold_scheduler = True
    walk.happened(a_node("tiny-too", cpu=1))
    assert walk.evaluated() == ["web-00", "web-00"]

    walk.wait(10)
    walk.hold_scheduler = False
    leaves(walk, "full")

    assert walk.said("web-00")[-1] == ("placed", 2)
    assert walk.quota.unsettled == 0


def test_no_work_grows_with_the_length_of_the_queue() -> None:
    walk = a_full_walk(waiting=200)
    walk.happened(a_node("tiny", cpu=1))
    assert len(walk.evaluated()) == 16
    walk.evaluations.clear()

    walk.happened(a_quota(TEAM_B, hard=cores(1)))

    assert walk.evaluated() == [], "nobody waits for that"
