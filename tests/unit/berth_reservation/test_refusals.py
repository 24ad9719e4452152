"""What cannot be booked is refused with what would work instead."""

from typing import Any

import pytest

from berth.errors import InvalidCommand
from berth.messages.commands import Refusal, RefusalCode
from berth.messages.documents import RESERVATION
from berth.messages.validation import parse
from berth.model.ledger import State
from berth_reservation.booking import book
from tests.builders import HOUR, T0, a_node, a_quota, a_request, a_reservation, a_state, placed

NINE, TEN, ELEVEN = "2026-01-01T09:00:00Z", "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z"


def refused(state: State, at: int = T0, **document: Any) -> Refusal:
    written = {"id": "res1", "namespace": "team-a", "resources": {"cpu_cores": 4}, **document}
    answer = book(state, RESERVATION.validate_python(written, strict=False), at, asked_at=at)
    assert isinstance(answer, Refusal)
    return answer


def would_work(state: State, answer: Refusal, *, hours: int, **document: Any) -> bool:
    """Whether the window that the refusal names is booked when it is asked for."""
    assert answer.earliest_start is not None
    body = {"start": None, "end": None, "duration_seconds": hours * 3_600, **document}
    written = {"id": "res1", "namespace": "team-a", "resources": {"cpu_cores": 4}, **body}
    wanted = RESERVATION.validate_python(written, strict=False).model_copy(update={"start": answer.earliest_start})
    return not isinstance(book(state, wanted, T0 + 12 * HOUR if hours == 2 else T0, asked_at=T0), Refusal)


def test_a_window_in_the_past() -> None:
    answer = refused(a_state(a_node()), T0 + 12 * HOUR, start=NINE, end=ELEVEN)

    assert answer.code is RefusalCode.INVALID
    assert answer.detail == (
        "the window ends at 2026-01-01T11:00:00Z, and it is 2026-01-01T12:00:00Z; "
        "it would work from 2026-01-01T12:00:00Z to 2026-01-01T14:00:00Z"
    )
    assert would_work(a_state(a_node()), answer, hours=2)


def test_an_end_before_the_start() -> None:
    document = f"""{{"id": "r", "namespace": "team-a", "resources": {{"cpu_cores": 1}},
        "start": "{ELEVEN}", "end": "{NINE}"}}"""

    with pytest.raises(InvalidCommand, match=f"did you mean from {NINE} to {ELEVEN}"):
        parse(RESERVATION, document, root="reservation")


def test_more_than_the_cluster_has_ever_had() -> None:
    state = a_state(a_node("n1", cpu=8_000), a_node("n2", cpu=10_000))

    answer = refused(state, count=9, start=NINE, end=ELEVEN)

    assert answer.code is RefusalCode.CAPACITY
    assert answer.detail == (
        "9 units are asked for, and the suitable nodes have room for 4 when they are empty: "
        "ask for fewer, or for smaller ones"
    )


def test_overlapping_exclusive_use() -> None:
    """Two want the same whole node at the same time."""
    state = a_state(
        a_node("n1", cpu=4_000), a_reservation("first", start=T0 + 9 * HOUR, end=T0 + 11 * HOUR, on={"n1": 1})
    )

    answer = refused(state, nodes=["n1"], start=TEN, duration_seconds=3_600)

    assert answer.code is RefusalCode.CAPACITY
    assert answer.in_the_way == ("reservation first (until 2026-01-01T11:00:00Z)",)
    assert answer.detail.endswith("it would work from 2026-01-01T11:00:00Z to 2026-01-01T12:00:00Z")
    assert would_work(state, answer, hours=1, nodes=["n1"])


def test_a_window_that_nothing_but_the_limit_forbids() -> None:
    state = a_state(
        a_node(cpu=64_000),
        a_quota(hard={"cpu_millicores": 4_000}),
        a_reservation("first", start=T0 + 9 * HOUR, end=T0 + 11 * HOUR, on={"n1": 1}),
    )

    answer = refused(state, start=TEN, duration_seconds=3_600)

    assert answer.code is RefusalCode.QUOTA
    assert answer.earliest_start == T0 + 11 * HOUR
    assert not answer.in_the_way


def test_a_window_that_endless_work_forbids_for_ever() -> None:
    state = a_state(a_node(cpu=4_000), placed(a_request("endless", cpu=1_000), "n1"))

    answer = refused(state, start=NINE, end=ELEVEN)

    assert answer.earliest_start is None
    assert answer.in_the_way == ("team-a/endless (endless)",)
    assert answer.detail.endswith("no later window of this length would work either")


def test_a_spread_that_there_is_no_room_for() -> None:
    state = a_state(
        a_node("n1", cpu=16_000, labels={"zone": "a"}),
        a_node("n2", cpu=4_000, labels={"zone": "b"}),
    )

    answer = refused(state, count=4, spread=[{"topology_key": "zone"}], start=NINE, end=ELEVEN)

    assert "4 of 4 units fit" in answer.detail
    assert "but not spread as asked" in answer.detail
