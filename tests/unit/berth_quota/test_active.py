"""Who receives messages is active; the others fold and nudge (DESIGN section 2, "Active quota service", "Answers")."""

import pytest

from berth.effects import Message
from berth.ids import RequestId
from tests.builders import MINUTE, SECOND, TEAM_A, a_node, a_quota, ended
from tests.unit.berth_quota.settings_of_walks import a_walk, cores, wants
from tests.unit.berth_quota.walk import Walk

FULL = (TEAM_A, RequestId("full"))


def test_a_passive_one_folds_and_says_nothing() -> None:
    walk = a_walk(count=2)
    walk.services.reverse()
    standby = walk.services[1]

    walk.submit(wants("web"))
    walk.release("web")

    assert walk.said("web") == [("placed", 1), ("released", 2)], "each decision once, by the active one"
    assert standby.sequence == walk.leader.sequence
    assert not standby.is_active
    assert walk.quota.is_active


def test_a_message_makes_it_active_and_it_drives_every_queued_request_once_in_order() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"))
    walk.submit(*[wants(f"web-{number:02}") for number in range(20)])
    walk.submit(wants("urgent", priority=90))
    walk.kill()
    walk.evaluations.clear()
    walk.start()
    assert walk.evaluations == [], "nobody told it that it is the active one"

    walk.nudged()

    assert walk.evaluated() == ["urgent", *[f"web-{number:02}" for number in range(20)]]
    assert walk.acknowledged[-1] == 4, "a nudge is acknowledged at once"


def test_on_take_over_the_decisions_of_the_last_minute_are_published_again() -> None:
    walk = a_walk()
    walk.submit(wants("old"))
    walk.wait(MINUTE + 1)
    walk.submit(wants("new"))
    walk.submit(wants("newest"))
    walk.kill()
    walk.decisions.clear()
    walk.start()

    walk.nudged()

    assert [decision.request for decision in walk.decisions] == ["new", "newest"]


def test_killed_in_the_middle_everything_gets_exactly_one_outcome_from_the_next_one() -> None:
    walk = a_walk(a_quota(hard=cores(5)), count=2)
    walk.hold_scheduler = walk.hold_leader = True
    requests = [wants(f"web-{number}") for number in range(10)]
    for request in requests:
        walk.submit(request, run=False)
    walk.run()
    unacknowledged = walk.deliveries
    walk.kill()

    for subject, body, namespace, delivery in unacknowledged:
        walk.redeliver(subject, body, namespace, delivery, run=False)
    walk.hold_scheduler = walk.hold_leader = False
    walk.run()

    assert [walk.decision(one.id).status for one in requests] == ["placed"] * 5 + ["queued"] * 5
    assert sorted(walk.acknowledged) == list(range(1, 11))
    assert walk.leader.quotas.used_by(TEAM_A).cpu_millicores == 5_000


def test_a_lost_pin_ends_everything_but_the_fold() -> None:
    walk = a_walk(count=2)
    walk.hold_scheduler = True
    walk.submit(wants("web"))
    walk.lose_pin()
    walk.hold_scheduler = False
    walk.run()
    assert walk.said("web") == [], "another one publishes now"
    assert walk.acknowledged == []
    walk.wait(10 * SECOND)
    assert walk.in_progress == []

    subject, body, namespace, delivery = walk.deliveries[0]
    walk.redeliver(subject, body, namespace, delivery)

    assert walk.said("web")[-1] == ("placed", 1)
    assert walk.acknowledged == [1]
    assert walk.types_of("web") == ["RequestSubmitted", "RequestPlaced"]


def test_one_that_was_passive_for_a_while_drives_what_changed_meanwhile() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"), wants("web"))
    walk.lose_pin()
    walk.happened(ended(walk.leader, FULL))
    assert walk.said("web") == [("queued", 1)]

    walk.nudged()

    assert walk.said("web")[-1] == ("placed", 2)


def a_standby(**more: object) -> Walk:
    """Two of one shape wait; whoever was active is gone, a passive one has folded everything."""
    walk = a_walk(room=1, **more)
    walk.submit(wants("full", grace_seconds=10), wants("web"), wants("other"))
    walk.kill()
    walk.start()
    walk.wait(10 * SECOND)
    walk.nudges.clear()
    return walk


def test_a_passive_one_that_folds_a_wake_up_publishes_an_empty_nudge() -> None:
    walk = a_standby()

    walk.happened(ended(walk.leader, FULL))

    assert walk.nudges == [f"nudge-{walk.leader.sequence}"]


def test_two_passive_ones_send_the_same_nudge() -> None:
    walk = a_standby()
    walk.start()
    walk.wait(10 * SECOND)
    walk.nudges.clear()

    walk.happened(ended(walk.leader, FULL))

    assert walk.nudges == [f"nudge-{walk.leader.sequence}"] * 2, "one for the stream"


def test_at_most_one_nudge_in_two_seconds() -> None:
    walk = a_standby()
    for number in range(20):
        walk.happened(a_node(f"tiny-{number}", cpu=1))
        walk.wait(SECOND // 4)

    assert 2 <= len(walk.nudges) <= 3


def test_what_wakes_nobody_is_no_reason_to_nudge() -> None:
    walk = a_standby()

    walk.happened(a_quota("team-c", hard=cores(1)))
    walk.wait(MINUTE)

    assert walk.nudges == []


def test_one_that_starts_while_something_waits_nudges_once_and_each_start_by_its_own_name() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"), wants("web"))
    walk.kill()
    walk.start()
    walk.run()
    (first,) = walk.nudges

    walk.kill()
    walk.start()
    walk.run()

    assert len(set(walk.nudges)) == 2
    assert walk.nudges[0] == first


def test_a_timer_that_nobody_met_is_a_reason_to_nudge() -> None:
    walk = a_walk()
    walk.submit(wants("web", grace_seconds=10))
    walk.release("web")
    walk.kill()
    walk.start()
    walk.wait(11 * SECOND)
    assert walk.nudges == [], "the active one may be a little late"

    walk.wait(2 * SECOND)
    assert len(walk.nudges) == 1
    walk.nudged()

    assert walk.said("web")[-1] == ("released", 3)


def test_an_active_one_does_not_nudge() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"), wants("web"))

    walk.happened(ended(walk.leader, FULL))

    assert walk.nudges == []


def test_what_no_quota_service_takes_is_an_error() -> None:
    walk = a_walk()
    message = Message(subject=walk.quota.subscriptions[0], body=object(), tokens={})

    with pytest.raises(TypeError, match="object"):
        walk.quota.handle(message, walk.now)
