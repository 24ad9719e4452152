"""Restarts, pauses and clocks that jump: each window begins once and ends once, at the true time."""

import pytest

from berth.messages.events import How
from berth.messages.reservation_events import EndCause, ReservationEnded
from berth.model.reservation import ReservationState
from tests.builders import HOUR, MINUTE, T0, a_node, a_request, a_reservation, placed
from tests.unit.berth_reservation.scene import Scene

ONE, TWO = T0 + HOUR, T0 + 2 * HOUR


def a_scene() -> Scene:
    return Scene(a_node("n1"), a_reservation(start=ONE, end=TWO, on={"n1": 1}), replicas=2)


def when(scene: Scene, kind: str) -> list[int]:
    return [record.at for record in scene.records for one in record.transactions for e in one if e.type == kind]


@pytest.mark.parametrize("before", [ONE - MINUTE, ONE, ONE + MINUTE])
def test_a_clock_that_jumps_an_hour_gives_one_activation_and_one_expiry(before: int) -> None:
    scene = a_scene()
    scene.now = before
    scene.run()

    scene.now += HOUR
    scene.run()
    scene.advance(TWO + HOUR)

    assert (scene.activated, scene.over) == (["res1"], ["res1"])


def test_a_late_start_and_a_late_end_happen_at_once_with_the_true_time() -> None:
    scene = a_scene()
    scene.now = ONE + 10 * MINUTE
    scene.run()
    scene.now = TWO + 20 * MINUTE
    scene.run()

    assert when(scene, "ReservationActivated") == [ONE + 10 * MINUTE]
    assert when(scene, "ReservationEnded") == [TWO + 20 * MINUTE]
    (ended,) = scene.data(ReservationEnded)
    assert ended.cause is EndCause.OVER


def test_a_clock_that_goes_back_repeats_nothing() -> None:
    scene = a_scene()
    scene.now = ONE
    scene.run()

    scene.now = T0
    scene.run()
    scene.advance(TWO)

    assert (scene.activated, scene.over) == (["res1"], ["res1"])


def test_a_replica_that_slept_through_it_all_changes_nothing_when_it_wakes() -> None:
    scene = a_scene()
    scene.behind.add(1)
    scene.advance(TWO)
    before = len(scene.records)

    scene.catch_up(1)
    scene.advance(TWO + MINUTE)

    assert len(scene.records) == before
    assert (scene.activated, scene.over) == (["res1"], ["res1"])


def test_a_service_that_starts_after_the_start_begins_what_is_due() -> None:
    scene = Scene(a_node("n1"), a_reservation(start=ONE, end=TWO, on={"n1": 1}), now=ONE + MINUTE)

    scene.run()

    assert scene.activated == ["res1"]
    assert scene.reservation().state is ReservationState.ACTIVE


def test_a_window_that_was_slept_through_is_over_without_having_begun() -> None:
    scene = a_scene()
    scene.commit(placed(a_request("short", cpu=8_000, duration_seconds=3_600), "n1"))
    scene.now = TWO + HOUR
    scene.run()

    assert (scene.activated, scene.over) == ([], ["res1"])
    (gone,) = scene.leader.cluster.allocations.values()
    assert gone.how is How.EXPIRED
