"""Free capacity over time, and the first window that works."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as some

from berth.ids import NodeId, ReservationId
from berth.messages.reservation_events import ReservationBody
from berth.model.ledger import State
from berth.model.reservation import unit_of
from berth.model.windows import units_that_fit
from berth.resources import Resources
from berth_reservation.calendar import free_over_time, in_the_way, starts_that_may_work
from tests.builders import (
    HOUR,
    MINUTE,
    T0,
    a_node,
    a_request,
    a_reservation,
    a_state,
    activated,
    placed,
)


def a_body(*, cpu: int = 4_000, count: int = 1, start: int = T0, length: int = HOUR) -> ReservationBody:
    return ReservationBody(
        id=ReservationId("wanted"), resources=Resources(cpu), count=count, start=start, end=start + length
    )


def cpu_over_time(state: State, node: str = "n1") -> list[tuple[int, int]]:
    """(minutes from now, free millicores)."""
    steps = free_over_time(state, state.cluster.nodes[NodeId(node)], T0)
    return [((step.since - T0) // MINUTE, step.free.cpu_millicores) for step in steps]


def first_start(state: State, body: ReservationBody, at: int = T0) -> int | None:
    return next(starts_that_may_work(state, body, state.cluster.nodes.values(), at), None)


def test_durations_and_windows_make_a_step_function() -> None:
    state = a_state(
        a_node(cpu=8_000),
        placed(a_request("short", cpu=1_000, duration_seconds=1_800), "n1"),
        placed(a_request("endless", cpu=2_000), "n1"),
        a_reservation(start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1}, cpu=4_000),
    )

    assert cpu_over_time(state) == [(0, 5_000), (30, 6_000), (60, 2_000), (120, 6_000)]


def test_what_is_drawn_from_an_active_reservation_counts_once() -> None:
    state = a_state(
        a_node(cpu=8_000),
        a_reservation(start=T0, end=T0 + HOUR, on={"n1": 1}, cpu=4_000),
        activated(),
        placed(a_request("drawer", cpu=3_000, reservation="res1"), "n1"),
    )

    assert cpu_over_time(state) == [(0, 4_000), (60, 5_000)], "afterwards only what runs on is taken"


def test_requests_without_a_duration_count_as_endless() -> None:
    state = a_state(a_node(cpu=4_000), placed(a_request("endless", cpu=1_000), "n1"))

    assert first_start(state, a_body()) is None
    assert in_the_way(state, a_body(), state.cluster.nodes.values(), T0) == ("team-a/endless (endless)",)


def test_the_first_window_begins_when_enough_has_ended() -> None:
    state = a_state(
        a_node("n1", cpu=4_000),
        a_node("n2", cpu=4_000),
        placed(a_request("long", cpu=1_000, duration_seconds=7_200), "n1"),
        placed(a_request("short", cpu=1_000, duration_seconds=1_800), "n2"),
    )

    assert first_start(state, a_body()) == T0 + 30 * MINUTE
    assert first_start(state, a_body(count=2)) == T0 + 2 * HOUR


def test_a_gap_between_windows_is_found_when_it_is_long_enough() -> None:
    state = a_state(
        a_node(cpu=4_000),
        a_reservation("one", start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1}),
        a_reservation("two", start=T0 + 3 * HOUR, end=T0 + 4 * HOUR, on={"n1": 1}),
    )

    assert first_start(state, a_body(start=T0 + HOUR // 2)) == T0 + 2 * HOUR
    assert first_start(state, a_body(length=HOUR + 1)) == T0 + 4 * HOUR


def test_who_is_in_the_way_is_named_with_its_end() -> None:
    state = a_state(
        a_node(cpu=8_000),
        placed(a_request("endless", cpu=1_000), "n1"),
        a_reservation(start=T0, end=T0 + HOUR, on={"n1": 1}),
        activated(),
    )

    assert in_the_way(state, a_body(), state.cluster.nodes.values(), T0) == (
        "team-a/endless (endless)",
        "reservation res1 (until 2026-01-01T01:00:00Z)",
    )


# ---------------------------------------------------------------- the same as asking window by window

minutes = some.integers(1, 60)
runs = some.lists(some.tuples(some.integers(1, 4), some.none() | minutes), max_size=5)
windows = some.lists(some.tuples(some.integers(0, 60), minutes, some.integers(1, 4)), max_size=3)


@given(runs=runs, windows=windows, length=minutes, cpu=some.integers(1, 8), count=some.integers(1, 4))
def test_the_calendar_finds_what_asking_every_minute_finds(
    runs: list[tuple[int, int | None]], windows: list[tuple[int, int, int]], length: int, cpu: int, count: int
) -> None:
    state = a_state(
        a_node("n1", cpu=16_000),
        a_node("n2", cpu=6_000),
        *(
            placed(
                a_request(f"run{number}", cpu=cores * 1_000, duration_seconds=None if end is None else end * 60),
                "n1" if number % 2 else "n2",
            )
            for number, (cores, end) in enumerate(runs)
        ),
        *(
            a_reservation(
                f"res{number}",
                start=T0 + begin * MINUTE,
                end=T0 + (begin + lasts) * MINUTE,
                on={"n1": 1},
                cpu=cores * 1_000,
            )
            for number, (begin, lasts, cores) in enumerate(windows)
        ),
    )
    body = a_body(cpu=cpu * 1_000, count=count, length=length * MINUTE)

    def works(start: int) -> bool:
        room = (
            units_that_fit(state, node, unit_of(body), start=start, end=start + length * MINUTE, at=T0)
            for node in state.cluster.nodes.values()
        )
        return sum(room) >= count

    every_minute = [T0 + minute * MINUTE for minute in range(125)]
    assert first_start(state, body) == next((start for start in every_minute if works(start)), None)
    for node in state.cluster.nodes.values():
        steps = free_over_time(state, node, T0)
        assert all(one.since < other.since and one.free != other.free for one, other in pairwise(steps))
