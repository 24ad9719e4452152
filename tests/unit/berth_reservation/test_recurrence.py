"""Reservations that come again (R91), and what changing clocks do to them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from berth.errors import InvalidCommand
from berth.ids import NodeId
from berth.messages.documents import RESERVATION, Recurrence, time_text
from berth.messages.events import Event, NodeChanged
from berth.messages.reservation_events import EndCause
from berth.messages.validation import parse
from berth.model.reservation import ReservationState
from berth_reservation.recurrence import first_start, start_after
from tests.builders import HOUR, MINUTE, SECOND, T0, a_node
from tests.unit.berth_reservation.scene import Scene

DAILY = {"cron": "0 9 * * *", "time_zone": "UTC"}
NINE, DAY = T0 + 9 * HOUR, 24 * HOUR


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def starts(cron: str, zone: str, since: str, count: int) -> list[str]:
    recurrence, moment, found = Recurrence(cron=cron, time_zone=zone), at(since), list[str]()
    for _ in range(count):
        following = start_after(recurrence, moment)
        assert following is not None
        found.append(time_text(following))
        moment = following
    return found


# ---------------------------------------------------------------- clocks


def test_a_start_keeps_its_local_time_when_the_clock_changes() -> None:
    assert starts("0 9 * * *", "Europe/Berlin", "2026-03-28T00:00:00", 2) == [
        "2026-03-28T08:00:00Z",
        "2026-03-29T07:00:00Z",
    ]


def test_a_start_that_the_clock_skips_in_spring_comes_right_after_the_gap() -> None:
    assert starts("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00", 2) == [
        "2026-03-29T01:00:00Z",  # 03:00 in Berlin: 02:30 does not exist
        "2026-03-30T00:30:00Z",
    ]


def test_a_start_that_the_clock_repeats_in_autumn_comes_once() -> None:
    assert starts("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00", 2) == [
        "2026-10-25T00:30:00Z",  # the first 02:30, in summer time
        "2026-10-26T01:30:00Z",
    ]


def test_every_hour_is_every_hour_that_passes() -> None:
    assert starts("30 * * * *", "Europe/Berlin", "2026-10-24T23:00:00", 3) == [
        "2026-10-24T23:30:00Z",
        "2026-10-25T00:30:00Z",
        "2026-10-25T01:30:00Z",
    ]


def test_a_series_has_no_start_after_its_last() -> None:
    recurrence = Recurrence.model_validate({**DAILY, "until": "2026-01-02T09:00:00Z"})

    assert first_start(recurrence, NINE) == NINE
    assert start_after(recurrence, NINE) == NINE + DAY
    assert start_after(recurrence, NINE + DAY) is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('{"cron": "0 9 * * *", "time_zone": "Europe/Berln"}', "did you mean Europe/Berlin"),
        ('{"cron": "0 9 * * *", "time_zone": "../../etc/passwd"}', "expected a time zone such as Europe/Berlin"),
        ('{"cron": "61 * * * *", "time_zone": "UTC"}', "expected a cron expression of five fields"),
    ],
)
def test_an_unknown_zone_and_a_wrong_expression_are_refused_with_what_would_work(written: str, expected: str) -> None:
    document = f"""{{"id": "r", "namespace": "team-a", "resources": {{"cpu_cores": 1}},
        "duration_seconds": 60, "recurrence": {written}}}"""

    with pytest.raises(InvalidCommand, match=expected):
        parse(RESERVATION, document, root="reservation")


# ---------------------------------------------------------------- one after the other


def a_series(**document: Any) -> Scene:
    scene = Scene(a_node("n1"))
    scene.create(duration_seconds=7_200, recurrence=DAILY, **document)
    scene.run()
    return scene


def test_r91_the_next_occurrence_is_created_when_the_current_ends() -> None:
    scene = a_series()
    assert scene.reservation().body.start == NINE
    assert list(scene.leader.reservations.reservations) == ["res1"]

    scene.advance(NINE + 2 * HOUR)

    assert scene.types[-3:] == ["ReservationEnded", "ReservationCreated", "ReservationHeld"]
    following = scene.reservation("res1-2")
    assert (following.state, following.body.start) == (ReservationState.HELD, NINE + DAY)
    assert (following.body.series, following.body.occurrence) == ("res1", 2)

    scene.advance(NINE + 2 * DAY + HOUR)
    assert scene.activated == ["res1", "res1-2", "res1-3"]


def test_r91_one_occurrence_is_skipped_and_the_series_goes_on() -> None:
    scene = a_series()
    skipped = scene.skip()
    scene.run()

    assert scene.why(skipped) is None
    assert (scene.reservation().state, scene.reservation().ended) == (ReservationState.CANCELLED, EndCause.SKIPPED)
    assert scene.reservation("res1-2").body.start == NINE + DAY

    again = scene.skip()
    scene.run()
    assert scene.why(again) is None
    assert list(scene.leader.reservations.open) == ["res1-2"], "asked twice, skipped once"


def test_what_has_begun_or_does_not_recur_is_not_skipped() -> None:
    scene = a_series()
    scene.create(id="once", start="2026-01-03T00:00:00Z", duration_seconds=60)
    scene.advance(NINE + MINUTE)

    begun, once = scene.skip(), scene.skip("once")
    scene.run()

    assert "has begun" in (scene.why(begun) or "")
    assert scene.why(once) == "once does not recur: cancel it instead"


def test_cancelling_ends_the_series() -> None:
    scene = a_series()
    scene.cancel()
    scene.advance(NINE + 3 * DAY)

    assert list(scene.leader.reservations.reservations) == ["res1"]


def test_occurrences_that_were_missed_altogether_are_left_out() -> None:
    scene = a_series()
    scene.now = NINE + 3 * DAY + HOUR
    scene.run()

    current = scene.reservation("res1-2")
    assert (current.state, current.body.start) == (ReservationState.ACTIVE, NINE + 3 * DAY)
    assert scene.activated == ["res1-2"]


def test_an_occurrence_without_room_waits_for_it() -> None:
    scene = a_series()
    scene.advance(NINE + HOUR)
    scene.commit((Event(NodeChanged(node=NodeId("n1"), schedulable=False)),))
    scene.advance(NINE + 2 * HOUR)
    waiting = scene.reservation("res1-2")
    assert (waiting.state, waiting.missing) == (ReservationState.PENDING, 1)

    scene.commit((Event(NodeChanged(node=NodeId("n1"), schedulable=True)),))
    scene.advance(NINE + 2 * HOUR + SECOND)

    assert scene.reservation("res1-2").state is ReservationState.HELD
