"""A request is known by namespace, id and the digest of its body (DESIGN section 2, "Identity"; R106)."""

from berth import subjects
from berth.messages.commands import RequestBatch, Verdict
from berth.messages.events import RequestStatus
from berth.messages.reasons import ReasonCode
from berth.wire.codec import request_digest
from tests.builders import TEAM_A, a_quota
from tests.unit.berth_quota.settings_of_walks import a_walk, cores, wants
from tests.unit.berth_quota.walk import verdict


def test_a_request_within_quota_is_evaluated_placed_decided_and_then_acknowledged() -> None:
    walk = a_walk()

    walk.submit(wants("web"))

    assert walk.said("web") == [("placed", 1)]
    assert walk.log[-2:] == ["decision web", "acknowledge 1"]
    assert walk.decision("web").digest == request_digest(wants("web"))
    assert walk.decision("web").sequence == walk.leader.sequence


def test_a_message_is_acknowledged_when_all_its_requests_have_an_outcome() -> None:
    walk = a_walk(room=1)
    walk.hold_scheduler = True
    walk.submit(wants("a"), wants("b", 2), wants("c", reservation="unknown"))
    assert walk.acknowledged == []

    walk.hold_scheduler = False
    walk.run()

    assert [walk.decision(one).status for one in "abc"] == ["placed", "queued", "rejected"]
    assert walk.acknowledged == [1]


def test_the_same_digest_gets_the_current_outcome_again_and_is_charged_once() -> None:
    walk = a_walk()
    walk.submit(wants("web"))

    walk.submit(wants("web"))

    assert walk.said("web") == [("placed", 1), ("placed", 1)]
    assert walk.evaluated() == ["web"]
    assert walk.leader.quotas.used_by(TEAM_A).cpu_millicores == 1_000
    assert walk.acknowledged == [1, 2]


def test_the_outcome_that_is_said_again_is_the_current_one() -> None:
    walk = a_walk()
    walk.submit(wants("web"))
    walk.release("web")

    walk.submit(wants("web"))

    assert walk.said("web")[-1] == ("released", 2)


def test_another_digest_is_a_conflict_that_changes_nothing_and_names_its_own_body() -> None:
    walk = a_walk()
    walk.submit(wants("web"))
    before = walk.leader.sequence

    walk.submit(other := wants("web", 2))

    said = walk.decision("web")
    assert (said.status, [reason.code for reason in said.reasons]) == (RequestStatus.REJECTED, [ReasonCode.CONFLICT])
    assert (said.digest, said.sequence) == (request_digest(other), 0)
    assert walk.leader.sequence == before
    assert walk.acknowledged == [1, 2]


def test_a_second_body_waits_while_the_first_is_in_flight() -> None:
    walk = a_walk()
    walk.hold_scheduler = True
    walk.submit(first := wants("web"))
    walk.submit(second := wants("web", 2))
    assert walk.decisions == []

    walk.hold_scheduler = False
    walk.run()

    assert [(one.status, one.digest) for one in walk.decisions] == [
        (RequestStatus.PLACED, request_digest(first)),
        (RequestStatus.REJECTED, request_digest(second)),
    ]
    assert sorted(walk.acknowledged) == [1, 2]


def test_whoever_comes_second_to_the_ledger_with_another_body_gets_the_conflict() -> None:
    """Two active quota services took one body each; the ledger has the other one's."""
    walk = a_walk()
    walk.hold_scheduler = True
    mine = wants("web", 2)
    walk.submit(mine)

    other = a_walk()
    other.submit(wants("web"))
    walk.happened(*other.record(other.leader.sequence).transactions)

    (said,) = [one for one in walk.decisions if one.digest == request_digest(mine)]
    assert said.reasons[0].code is ReasonCode.CONFLICT
    assert walk.acknowledged == [1]


def test_two_bodies_under_one_id_in_one_message_are_one_request_and_one_conflict() -> None:
    walk = a_walk()

    walk.submit(wants("web"), wants("web"), wants("web", 2))

    assert [one.status for one in walk.decisions] == ["placed", "rejected"]
    assert walk.acknowledged == [1]


def test_a_message_that_is_delivered_again_while_it_is_worked_on_is_not_a_second_one() -> None:
    walk = a_walk()
    walk.hold_scheduler = True
    delivery = walk.submit(wants("web"))
    walk.redeliver(subjects.REQUEST, RequestBatch(namespace=TEAM_A, requests=(wants("web"),)), TEAM_A, delivery)

    walk.hold_scheduler = False
    walk.run()

    assert walk.evaluated() == ["web"]
    assert walk.said("web") == [("placed", 1)]
    assert walk.handles == ["d1.2"], "the newest delivery is the one to acknowledge"


def test_more_than_hard_could_ever_allow_is_rejected() -> None:
    walk = a_walk(a_quota(hard=cores(4)))

    walk.submit(wants("web", 5))

    said = walk.decision("web")
    assert (said.status, said.attempt, said.reasons[0].code) == ("rejected", 1, ReasonCode.EXCEEDS_HARD)
    assert walk.types_of("web") == ["RequestSubmitted", "RequestEnded"]
    assert walk.evaluations == []


def test_what_no_record_can_hold_is_rejected_by_name() -> None:
    walk = a_walk()
    refusal = {"code": "too_large", "detail": "1000 allocations do not fit one record"}
    walk.scheduler.verdicts["web"] = verdict("web", Verdict.REFUSED, refusal=refusal)

    walk.submit(wants("web"))

    said = walk.decision("web")
    assert (said.status, said.reasons[0].code) == ("rejected", ReasonCode.INVALID)
    assert said.reasons[0].detail == "1000 allocations do not fit one record"
