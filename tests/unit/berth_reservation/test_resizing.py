"""A later or an earlier end, more units or fewer."""

from typing import Any

from berth.ids import Namespace
from berth.messages.events import ReservationHeld, Transaction
from berth.messages.reservation_events import HoldCause
from tests.builders import HOUR, T0, TEAM_A, a_node, a_quota, a_request, a_reservation, placed
from tests.unit.berth_reservation.scene import Scene

TWO = T0 + 2 * HOUR
IN_AN_HOUR: dict[str, Any] = {"start": "2026-01-01T01:00:00Z", "end": "2026-01-01T02:00:00Z"}
THREE_O_CLOCK, FOUR_O_CLOCK = "2026-01-01T03:00:00Z", "2026-01-01T04:00:00Z"


def a_scene(*more: Transaction, **document: Any) -> Scene:
    scene = Scene(a_node("n1"), a_quota(hard={"cpu_millicores": 16_000}), *more)
    scene.create(**{**IN_AN_HOUR, **document})
    scene.run()
    return scene


def used(scene: Scene) -> int:
    return scene.leader.quotas.used_by(Namespace(TEAM_A)).cpu_millicores


def test_a_held_reservation_gets_a_later_end_and_more_units() -> None:
    scene = a_scene()
    longer = scene.extend(end=THREE_O_CLOCK)
    scene.run()
    larger = scene.extend(count=2)
    scene.run()

    assert (scene.why(longer), scene.why(larger)) == (None, None)
    assert (scene.reservation().body.end, scene.reservation().holds) == (T0 + 3 * HOUR, (("n1", 2),))
    assert [one.because.cause for one in scene.data(ReservationHeld)[1:]] == [HoldCause.EXTENDED] * 2
    scene.advance(T0 + 3 * HOUR - 1)
    assert (scene.activated, scene.over) == (["res1"], [])
    scene.advance(T0 + 3 * HOUR)
    assert scene.over == ["res1"]


def test_an_active_one_is_charged_for_what_it_has_from_then_on() -> None:
    scene = a_scene(start=None, end=None, duration_seconds=3_600)
    assert used(scene) == 4_000

    scene.extend(count=2)
    scene.run()
    assert used(scene) == 8_000

    scene.shrink(count=1)
    scene.run()
    assert used(scene) == 4_000


def test_asking_twice_changes_once() -> None:
    scene = a_scene()
    for _ in range(2):
        token = scene.extend(end=THREE_O_CLOCK)
        scene.run()
        assert scene.why(token) is None

    assert len(scene.data(ReservationHeld)) == 2


def test_what_is_in_the_way_of_a_later_end_is_told_with_how_far_it_may_go() -> None:
    scene = a_scene(a_reservation("next", start=T0 + 3 * HOUR, end=T0 + 5 * HOUR, on={"n1": 2}))

    token = scene.extend(end=FOUR_O_CLOCK)
    scene.run()

    assert (scene.why(token) or "").endswith("it may be extended until 2026-01-01T03:00:00Z")
    assert scene.reservation().body.end == TWO


def test_a_held_one_may_move_to_where_it_can_last_longer() -> None:
    scene = a_scene(a_node("n2"), a_reservation("next", start=T0 + 3 * HOUR, end=T0 + 5 * HOUR, on={"n1": 2}))
    assert scene.reservation().holds == (("n1", 1),)

    token = scene.extend(end=FOUR_O_CLOCK)
    scene.run()

    assert scene.why(token) is None
    assert scene.reservation().holds == (("n2", 1),)


def test_more_than_the_hard_limit_of_its_namespace_is_refused() -> None:
    scene = a_scene(a_node("n2", cpu=64_000))
    token = scene.extend(count=5)
    scene.run()

    assert "its hard limit is 16000" in (scene.why(token) or "")


def test_shrinking_never_takes_what_is_drawn() -> None:
    scene = a_scene(start=None, end=None, duration_seconds=3_600, count=2)
    scene.commit(placed(a_request("drawer", cpu=3_000, count=2, reservation="res1"), "n1", "n1"))

    token = scene.shrink(count=1)
    scene.run()

    assert (scene.why(token) or "").startswith("2 units of res1 are drawn")
    assert scene.reservation().holds == (("n1", 2),)


def test_an_earlier_end_makes_room_for_others_at_once() -> None:
    scene = a_scene(count=2)
    scene.shrink(end="2026-01-01T01:30:00Z")
    scene.create(id="other", start="2026-01-01T01:30:00Z", duration_seconds=60)
    scene.run()

    assert scene.reservation("other").holds == (("n1", 1),)


def test_the_wrong_direction_and_an_end_that_has_passed_are_refused_with_what_to_do() -> None:
    scene = a_scene()
    smaller = scene.extend(end="2026-01-01T01:30:00Z")
    scene.run()
    larger = scene.shrink(count=2)
    scene.run()
    gone = scene.shrink(end="2026-01-01T00:30:00Z")
    scene.run()

    assert (scene.why(smaller) or "").endswith("that is `berth reservation shrink`")
    assert (scene.why(larger) or "").endswith("that is `berth reservation extend`")
    assert (scene.why(gone) or "").endswith("cancel it instead")
