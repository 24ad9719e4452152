"""What is in flight counts as used until it is settled (DESIGN section 2, "In-flight table", "Races")."""

import pytest

from berth.messages.commands import EvaluationOutcome, RefusalCode, Verdict
from berth.messages.reasons import ReasonCode
from berth_quota.bounds import Bounds
from tests.builders import TEAM_A, TEAM_B, a_quota
from tests.unit.berth_quota.settings_of_walks import a_walk, cores, wants
from tests.unit.berth_quota.walk import outcome_of, verdict


def test_what_fails_only_because_of_what_is_in_flight_waits_in_memory_and_is_not_queued() -> None:
    walk = a_walk(a_quota(hard=cores(2)))
    walk.hold_scheduler = True
    walk.submit(wants("a", 2))
    walk.submit(wants("b", 2))

    assert walk.evaluated() == ["a"]
    assert walk.proposals == []

    walk.hold_scheduler = False
    walk.run()
    assert (walk.decision("a").status, walk.decision("b").status) == ("placed", "queued")


def test_it_goes_when_the_entry_goes_without_being_used() -> None:
    walk = a_walk(a_quota(hard=cores(9)))
    walk.hold_scheduler = True
    walk.submit(wants("a", 9))
    walk.submit(wants("b", 2))
    assert walk.evaluated() == ["a"]

    walk.hold_scheduler = False
    walk.run()

    assert (walk.decision("a").status, walk.decision("b").status) == ("queued", "placed")


def test_nobody_overtakes_who_waits_for_what_is_in_flight() -> None:
    walk = a_walk(a_quota(hard=cores(4)))
    walk.hold_scheduler = True
    walk.submit(wants("a", 3))
    walk.submit(wants("b", 2))
    walk.submit(wants("small", 1))
    assert walk.evaluated() == ["a"]
    walk.scheduler.verdicts["a"] = verdict("a", Verdict.UNPLACEABLE, reasons=[], evaluated_at=1)

    walk.hold_scheduler = False
    walk.run()

    assert walk.evaluated() == ["a", "b", "small"]


def test_whoever_shares_no_limit_with_it_does_not_wait() -> None:
    walk = a_walk(a_quota(hard=cores(2)), a_quota(TEAM_B, hard=cores(2)))
    walk.hold_scheduler = True
    walk.submit(wants("a", 2))
    walk.submit(wants("b", 2))
    walk.submit(wants("other", 2, namespace=TEAM_B))
    walk.wait(walk.bounds.turn_ms)

    assert walk.evaluated() == ["a", "other"]


def test_siblings_of_a_cohort_wait_for_what_the_others_have_in_flight() -> None:
    walk = a_walk(a_quota(soft=cores(2), cohort="research"), a_quota(TEAM_B, soft=cores(2), cohort="research"))
    walk.hold_scheduler = True
    walk.submit(wants("a", 3))
    walk.submit(wants("b", 2, namespace=TEAM_B))
    assert walk.evaluated() == ["a"]

    walk.hold_scheduler = False
    walk.run()

    assert walk.decision("b").reasons[0].code is ReasonCode.QUOTA_CEILING


def test_accepted_is_not_the_end_of_an_entry() -> None:
    walk = a_walk(a_quota(hard=cores(2)))
    walk.hold_scheduler = True
    walk.submit(wants("a", 2))
    walk.submit(wants("b", 2))
    (item,) = walk.evaluations[0].items

    walk.answer(walk.quota, outcome_of(item, Verdict.ACCEPTED, sequence=2))
    walk.run()

    assert walk.evaluated() == ["a"], "the ledger has not shown it yet, so it counts as used still"
    assert walk.decisions == []


def test_at_the_deadline_it_is_sent_again_with_the_same_attempt() -> None:
    walk = a_walk()
    walk.hold_scheduler = True
    walk.submit(wants("web"))
    walk.wait(walk.bounds.evaluation_ms - 1)
    assert walk.evaluated() == ["web"]

    walk.wait(1)

    assert walk.evaluated() == ["web", "web"]
    assert [item.attempt for evaluation in walk.evaluations for item in evaluation.items] == [1, 1]
    assert walk.evaluations[0].id != walk.evaluations[1].id
    walk.hold_scheduler = False
    walk.run()
    assert walk.said("web") == [("placed", 1)]


def test_when_nobody_is_there_it_is_sent_again_more_and_more_seldom() -> None:
    walk = a_walk(nobody_evaluates=True)
    walk.submit(wants("web"))
    walk.wait(10_000)
    assert 5 < len(walk.evaluations) < 20

    walk.nobody_evaluates = False
    walk.wait(walk.bounds.evaluation_ms)

    assert walk.said("web") == [("placed", 1)]


def test_a_proposal_that_nobody_is_there_to_take_is_made_again() -> None:
    walk = a_walk(nobody_leads=True)
    walk.submit(wants("web", reservation="unknown"))
    walk.wait(3_000)
    assert 2 < len(walk.proposals) < 100

    walk.nobody_leads = False
    walk.wait(walk.bounds.proposal_ms)

    assert walk.said("web") == [("rejected", 1)]


def test_when_another_leads_what_was_proposed_to_the_last_one_is_proposed_at_once() -> None:
    walk = a_walk()
    walk.hold_leader = True
    walk.submit(wants("web", reservation="unknown"))
    assert len(walk.proposals) == 1

    walk.elected("raft-2", term=2)

    assert len(walk.proposals) == 2
    walk.hold_leader = False
    walk.run()
    assert walk.said("web") == [("rejected", 1)]


def test_a_scheduler_that_is_not_ready_is_asked_again_soon() -> None:
    walk = a_walk()
    walk.scheduler.verdicts["web"] = verdict("web", Verdict.UNAVAILABLE)
    walk.submit(wants("web"))
    assert walk.decisions == []

    walk.wait(100)

    assert walk.said("web") == [("placed", 1)]


def failing(request: str) -> EvaluationOutcome:
    return verdict(request, Verdict.UNAVAILABLE, refusal={"code": "internal", "detail": "see its log"})


def test_one_request_on_which_a_scheduler_fails_does_not_take_the_others_of_its_message_with_it() -> None:
    walk = a_walk()
    walk.scheduler.verdicts.update({name: failing(name) for name in "abc"})
    walk.submit(wants("a"), wants("b"), wants("c"))
    walk.scheduler.verdicts["b"] = failing("b")

    walk.wait(1_000)

    assert [len(evaluation.items) for evaluation in walk.evaluations[:4]] == [3, 1, 1, 1]
    assert [walk.said(name) for name in "ac"] == [[("placed", 1)]] * 2
    assert walk.said("b") == [("placed", 1)], "it failed twice"


def test_nobody_waits_for_what_schedulers_always_fail_on() -> None:
    walk = a_walk(a_quota(hard=cores(2)))
    walk.scheduler.fails_on = "bad"
    walk.submit(wants("bad", 2))
    walk.submit(wants("good", 2))
    assert walk.evaluated() == ["bad"]

    walk.wait(10_000)

    assert walk.said("good") == [("placed", 1)]
    walk.wait(walk.bounds.rest_ms)
    assert walk.said("bad") == [("queued", 1)], "it is judged again: now its quota is used"


def test_what_lost_its_races_is_sent_again_alone() -> None:
    walk = a_walk()
    walk.scheduler.verdicts["b"] = verdict("b", Verdict.CONTENDED)

    walk.submit(wants("a"), wants("b"), wants("c"))

    assert [[item.request.id for item in evaluation.items] for evaluation in walk.evaluations] == [
        ["a", "b", "c"],
        ["b"],
    ]
    assert [item.alone for item in walk.evaluations[1].items] == [True]
    assert walk.said("b") == [("placed", 1)], "a request is never queued for losing races"


def test_what_lost_its_races_at_the_deadline_is_sent_again_once() -> None:
    walk = a_walk()
    walk.hold_scheduler = True
    walk.submit(wants("web"))
    (item,) = walk.evaluations[0].items
    walk.now += walk.bounds.evaluation_ms

    walk.answer(walk.quota, outcome_of(item, Verdict.CONTENDED))
    walk.run()

    assert walk.evaluated() == ["web", "web"]


def test_what_was_sent_again_sooner_has_its_deadline_from_then_on() -> None:
    walk = a_walk()
    walk.hold_scheduler = True
    walk.submit(wants("web"))
    (item,) = walk.evaluations[0].items
    walk.wait(1_000)
    walk.answer(walk.quota, outcome_of(item, Verdict.UNAVAILABLE))
    walk.wait(100)
    assert len(walk.evaluations) == 2

    walk.wait(walk.bounds.evaluation_ms - 200)

    assert len(walk.evaluations) == 2


@pytest.mark.parametrize("code", [RefusalCode.QUOTA, RefusalCode.CLASS])
def test_refused_for_quota_it_is_judged_on_the_newest_state(code: RefusalCode) -> None:
    walk = a_walk(a_quota(hard=cores(4)))
    walk.scheduler.verdicts["web"] = verdict("web", Verdict.REFUSED, refusal={"code": code})
    walk.submit(wants("web", 3))
    assert walk.decisions == []

    walk.happened(a_quota(hard=cores(2)))
    assert [reason.code for reason in walk.decision("web").reasons] == [ReasonCode.EXCEEDS_HARD]


def test_refused_for_quota_without_any_news_it_is_tried_again_after_a_while() -> None:
    walk = a_walk(a_quota(hard=cores(4)))
    walk.scheduler.verdicts["web"] = verdict("web", Verdict.REFUSED, refusal={"code": "quota"})
    walk.submit(wants("web", 3))

    walk.wait(walk.bounds.backoff_ms)

    assert walk.said("web") == [("placed", 1)]


def test_while_it_holds_a_message_it_signals_work_in_progress() -> None:
    walk = a_walk()
    walk.hold_scheduler = True
    walk.submit(wants("web"))

    walk.wait(9_000)
    assert walk.in_progress == [1, 1, 1]
    walk.hold_scheduler = False
    walk.run()
    walk.wait(9_000)

    assert walk.in_progress == [1, 1, 1]
    assert walk.acknowledged == [1]


def test_only_so_many_are_in_flight_at_one_time_and_in_one_message() -> None:
    walk = a_walk(room=100, bounds=Bounds(in_flight_max=5, evaluation_items_max=3))
    walk.hold_scheduler = True
    walk.submit(*[wants(f"web-{number}") for number in range(9)])
    for _ in range(3):
        walk.wait(walk.bounds.turn_ms)
    assert [len(evaluation.items) for evaluation in walk.evaluations] == [3, 2]

    walk.hold_scheduler = False
    walk.run()

    assert walk.evaluated() == [f"web-{number}" for number in range(9)]
    assert walk.leader.quotas.used_by(TEAM_A).instances == 9


def test_a_message_to_schedulers_stays_below_what_the_bus_takes() -> None:
    walk = a_walk(room=100, bounds=Bounds(message_bytes_max=3_000))
    labels = {f"label-{number}": "x" * 60 for number in range(20)}

    walk.submit(*[wants(f"web-{number}", labels=labels) for number in range(4)])

    assert [len(evaluation.items) for evaluation in walk.evaluations] == [1, 1, 1, 1]
