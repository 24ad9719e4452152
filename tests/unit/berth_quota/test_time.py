"""Timers only propose; the leader refuses what comes too early (DESIGN section 2, "Time")."""

from berth.ids import RequestId
from berth.messages.events import RequestsForgotten
from berth.messages.reasons import ReasonCode
from berth_quota.bounds import Bounds
from tests.builders import HOUR, MINUTE, SECOND, TEAM_A, TEAM_B
from tests.unit.berth_quota.settings_of_walks import a_walk, drained, wants

DAY = 24 * HOUR


def test_a_queue_deadline_rejects_what_waited_too_long() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"))
    walk.submit(wants("web", queue_deadline_seconds=60))
    walk.wait(59 * SECOND)
    assert walk.said("web") == [("queued", 1)]

    walk.wait(2 * SECOND)

    assert walk.said("web") == [("queued", 1), ("rejected", 2)]
    assert [reason.code for reason in walk.decision("web").reasons] == [ReasonCode.QUEUE_DEADLINE_PASSED]


def test_what_was_placed_in_time_has_no_deadline_any_more() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"))
    walk.submit(wants("web", queue_deadline_seconds=60))
    walk.release("full")

    walk.wait(2 * MINUTE)

    assert walk.said("web") == [("queued", 1), ("placed", 2)]


def test_a_clock_that_is_ahead_of_the_leaders_is_refused_and_tries_again() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"))
    walk.submit(wants("web", queue_deadline_seconds=60))
    walk.leader_behind_ms = 2 * SECOND

    walk.wait(61 * SECOND)
    assert walk.said("web") == [("queued", 1)]
    walk.wait(2 * SECOND)

    assert walk.said("web") == [("queued", 1), ("rejected", 2)]
    assert len(walk.proposals) < 12, "too early is no reason to hurry"


def test_settled_requests_are_forgotten_after_a_week_and_not_before() -> None:
    walk = a_walk()
    walk.submit(wants("web"))
    walk.submit(wants("stays"))
    walk.release("web")
    walk.wait(7 * DAY - SECOND)
    assert (TEAM_A, RequestId("web")) in walk.leader.queue.requests

    walk.wait(2 * SECOND)

    assert list(walk.leader.queue.requests) == [(TEAM_A, "stays")]
    walk.submit(wants("web", 2))
    assert walk.said("web")[-1] == ("placed", 1), "the id is unknown again"


def test_they_are_forgotten_by_namespace_a_few_at_a_time() -> None:
    walk = a_walk(bounds=Bounds(forgotten_max=2, retention_ms=HOUR))
    names = [f"web-{number}" for number in range(3)]
    walk.submit(*[wants(name) for name in names])
    walk.submit(wants("other", namespace=TEAM_B))
    walk.release(*names)
    walk.release("other", namespace=TEAM_B)

    walk.wait(2 * HOUR)

    forgotten = [
        (event.namespace, len(event.data.requests))
        for sequence in range(1, walk.leader.sequence + 1)
        for transaction in walk.record(sequence).transactions
        for event in transaction
        if isinstance(event.data, RequestsForgotten)
    ]
    assert sorted(forgotten) == [(TEAM_A, 1), (TEAM_A, 2), (TEAM_B, 1)]
    assert not walk.leader.queue.requests
    assert not walk.leader.cluster.allocations


def test_timers_are_found_again_after_a_restart() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full", grace_seconds=30))
    walk.submit(wants("web", queue_deadline_seconds=60))
    walk.release("full")
    walk.submit(wants("old"))
    walk.release("old")
    walk.kill()
    walk.start()
    walk.nudged()

    walk.wait(31 * SECOND)
    assert walk.decision("full").status == "released"
    assert walk.said("web")[-1] == ("placed", 2)
    walk.wait(8 * DAY)

    assert [key[1] for key in walk.leader.queue.requests] == ["web"]


def test_a_request_that_ran_has_its_deadline_from_when_it_waits_again() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("web", queue_deadline_seconds=60))
    walk.wait(HOUR)
    walk.happened(*drained(walk, "web"))
    assert walk.decision("web").status == "queued"

    walk.wait(59 * SECOND)
    assert walk.decision("web").status == "queued"
    walk.wait(2 * SECOND)

    assert walk.decision("web").status == "rejected"


def test_the_deadline_of_an_earlier_wait_is_not_that_of_a_later_one() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"), wants("web", queue_deadline_seconds=60))
    walk.wait(10 * SECOND)
    walk.release("full")
    walk.wait(20 * SECOND)
    walk.happened(*drained(walk, "web"))

    walk.wait(59 * SECOND)
    assert walk.decision("web").status == "queued"
    walk.wait(2 * SECOND)

    assert walk.decision("web").status == "rejected"
