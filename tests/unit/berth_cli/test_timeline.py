"""Reservations drawn against time."""

from datetime import UTC, datetime, timedelta

from berth_cli.timeline import WIDTH, Bar, timeline

NINE = datetime(2026, 1, 1, 9, tzinfo=UTC)


def a_bar(name: str, state: str, *, begins: int, hours: int) -> Bar:
    start = NINE + timedelta(hours=begins)
    return Bar(name=name, state=state, start=start, end=start + timedelta(hours=hours))


def test_bars_share_one_scale_from_now_or_the_first_start_to_the_last_end() -> None:
    lines = timeline([a_bar("later", "held", begins=2, hours=2), a_bar("now", "active", begins=-1, hours=2)], NINE)

    assert lines[0].split() == ["2026-01-01", "08:00Z", "2026-01-01", "13:00Z"]
    assert [line.split()[0] for line in lines[1:]] == ["now", "later"], "in the order of their starts"
    running, coming = (line[len("later") + 2 :] for line in lines[1:])
    assert running.strip("=|") == ""
    assert coming.index("-") > coming.index("|")
    assert len(coming) == WIDTH


def test_what_waits_for_room_is_marked_and_nothing_is_drawn_of_nothing() -> None:
    assert "?" in timeline([a_bar("series-2", "pending", begins=1, hours=1)], NINE)[1]
    assert timeline([], NINE) == []
