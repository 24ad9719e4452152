"""May this window be booked, and on which nodes?"""

from typing import Any

import pytest

from berth.ids import NodeId
from berth.messages.commands import Refusal, RefusalCode
from berth.messages.documents import RESERVATION, ReservationDocument
from berth.messages.events import (
    Event,
    NodeChanged,
    NodeLost,
    ReservationActivated,
    ReservationCreated,
    ReservationHeld,
    Transaction,
)
from berth.messages.requests import Effect, Taint
from berth.model.check import accept
from berth.model.ledger import State
from berth_reservation.booking import book, digest_of
from tests.builders import (
    HOUR,
    MINUTE,
    T0,
    a_node,
    a_quota,
    a_request,
    a_reservation,
    a_state,
    happened,
    placed,
)

ONE_O_CLOCK, TWO_O_CLOCK = "2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"
IN_AN_HOUR: dict[str, Any] = {"start": ONE_O_CLOCK, "end": TWO_O_CLOCK}


def a_document(**document: Any) -> ReservationDocument:
    written = {"id": "res1", "namespace": "team-a", "resources": {"cpu_cores": 4}, **document}
    return RESERVATION.validate_python(written, strict=False)


def booked(state: State, at: int = T0, **document: Any) -> Transaction:
    """Booked, and what was booked is lawful."""
    transaction = book(state, a_document(**document), at, asked_at=at)
    assert not isinstance(transaction, Refusal), transaction.detail
    with state.journal.trial():
        assert accept(state, transaction, at, state.sequence) is None
    return transaction


def holds(state: State, at: int = T0, **document: Any) -> dict[str, int]:
    (held,) = (event.data for event in booked(state, at, **document) if isinstance(event.data, ReservationHeld))
    return {one.node: one.count for one in held.nodes}


def why_not(state: State, at: int = T0, **document: Any) -> tuple[RefusalCode, str]:
    refusal = book(state, a_document(**document), at, asked_at=at)
    assert isinstance(refusal, Refusal)
    return refusal.code, refusal.detail


# ---------------------------------------------------------------- the window


def test_a_window_to_come_is_held_and_one_from_now_on_is_active() -> None:
    state = a_state(a_node())

    later = [event.type for event in booked(state, nodes=["n1"], **IN_AN_HOUR)]
    now = [event.type for event in booked(state, nodes=["n1"], duration_seconds=60)]

    assert later == ["ReservationCreated", "ReservationHeld"]
    assert now == ["ReservationCreated", "ReservationHeld", "ReservationActivated"]


def test_a_duration_counts_from_the_start_or_from_when_it_was_asked_for() -> None:
    state = a_state(a_node())

    def window(**document: Any) -> tuple[int, int]:
        (created,) = (one.data for one in booked(state, **document) if isinstance(one.data, ReservationCreated))
        return created.reservation.start, created.reservation.end

    assert window(nodes=["n1"], start=ONE_O_CLOCK, duration_seconds=60) == (T0 + HOUR, T0 + HOUR + MINUTE)
    assert window(nodes=["n1"], duration_seconds=60) == (T0, T0 + MINUTE)
    assert window(nodes=["n1"], end=TWO_O_CLOCK) == (T0, T0 + 2 * HOUR)


def test_a_window_that_has_begun_is_active_for_the_rest_of_it() -> None:
    state = a_state(a_node())

    events = booked(state, T0 + HOUR + MINUTE, nodes=["n1"], **IN_AN_HOUR)

    assert isinstance(events[-1].data, ReservationActivated)


def test_a_window_that_is_over_is_refused_with_both_times() -> None:
    code, detail = why_not(a_state(a_node()), T0 + 2 * HOUR, nodes=["n1"], **IN_AN_HOUR)

    assert code is RefusalCode.INVALID
    assert detail == (
        "the window ends at 2026-01-01T02:00:00Z, and it is 2026-01-01T02:00:00Z; "
        "it would work from 2026-01-01T02:00:00Z to 2026-01-01T03:00:00Z"
    )


def test_a_later_window_needs_no_nodes_named() -> None:
    state = a_state(a_node("n1"), a_node("n2", cpu=16_000))

    assert holds(state, count=5, **IN_AN_HOUR) == {"n2": 4, "n1": 1}


# ---------------------------------------------------------------- named nodes


def test_named_nodes_share_the_units_evenly_in_their_order() -> None:
    state = a_state(a_node("n1", cpu=16_000), a_node("n2", cpu=16_000), a_node("n3", cpu=16_000))

    assert holds(state, nodes=["n2", "n1"], count=3, **IN_AN_HOUR) == {"n2": 2, "n1": 1}


def test_a_named_node_with_little_room_takes_what_it_can() -> None:
    state = a_state(a_node("n1", cpu=4_000), a_node("n2", cpu=16_000))

    assert holds(state, nodes=["n1", "n2"], count=4, **IN_AN_HOUR) == {"n1": 1, "n2": 3}


def test_units_that_do_not_fit_are_refused_with_the_room_there_is() -> None:
    state = a_state(a_node("n1", cpu=8_000), a_node("n2", cpu=8_000))
    happened(state, placed(a_request("endless", cpu=1_000), "n1"))

    code, detail = why_not(state, nodes=["n1", "n2"], count=4, **IN_AN_HOUR)

    assert code is RefusalCode.CAPACITY
    assert detail == (
        "3 of 4 units fit from 2026-01-01T01:00:00Z to 2026-01-01T02:00:00Z: n2 has room for 2, n1 has room for 1; "
        "in the way: team-a/endless (endless); no later window of this length would work either"
    )


def test_what_ends_before_the_window_is_not_in_its_way() -> None:
    state = a_state(a_node(cpu=8_000))
    happened(state, placed(a_request("short", cpu=8_000, duration_seconds=3_600), "n1"))

    assert holds(state, nodes=["n1"], count=2, **IN_AN_HOUR) == {"n1": 2}
    assert why_not(state, nodes=["n1"], duration_seconds=60)[0] is RefusalCode.CAPACITY


def test_unknown_nodes_are_named() -> None:
    code, detail = why_not(a_state(a_node()), nodes=["n1", "n8", "n9"], **IN_AN_HOUR)

    assert (code, detail) == (RefusalCode.NOT_FOUND, "no node n8, n9: see `berth nodes list`")


def test_a_lost_node_is_booked_for_later_only() -> None:
    state = a_state(a_node(), (Event(NodeLost(node=NodeId("n1"))),))

    assert holds(state, nodes=["n1"], **IN_AN_HOUR) == {"n1": 1}
    assert why_not(state, nodes=["n1"], duration_seconds=60) == (
        RefusalCode.RULE,
        "n1 is lost: name another, or start later",
    )


def test_a_named_node_must_meet_the_constraints_too() -> None:
    state = a_state(a_node(labels={"zone": "a"}))
    zone_b = [{"key": "zone", "operator": "in", "values": ["b"]}]

    assert why_not(state, nodes=["n1"], constraints=zone_b, **IN_AN_HOUR) == (
        RefusalCode.RULE,
        "n1 does not meet zone in b",
    )


# ---------------------------------------------------------------- anywhere, from now on


def test_from_now_on_as_few_nodes_as_will_do_are_held() -> None:
    state = a_state(a_node("n1", cpu=4_000), a_node("n2", cpu=12_000), a_node("n3", cpu=8_000))

    assert holds(state, count=4, duration_seconds=60) == {"n2": 3, "n3": 1}


def test_equal_nodes_are_taken_by_name_whatever_the_order_in_which_they_came() -> None:
    one = a_state(a_node("n1"), a_node("n2"))
    other = a_state(a_node("n2"), a_node("n1"))

    assert holds(one, duration_seconds=60) == holds(other, duration_seconds=60) == {"n1": 1}


def test_constraints_say_where_and_what_is_preferred_comes_first() -> None:
    state = a_state(
        a_node("n1", labels={"zone": "a"}),
        a_node("n2", labels={"zone": "b"}),
        a_node("n3", labels={"zone": "b", "disk": "ssd"}),
    )
    constraints = [
        {"key": "zone", "operator": "equals", "values": ["b"]},
        {"key": "disk", "operator": "exists", "mode": "preferred", "weight": 5},
    ]

    assert holds(state, constraints=constraints, duration_seconds=60) == {"n3": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"schedulable": False},
        {"draining": True},
        {"taints": (Taint(key="dedicated", value="gpu", effect=Effect.NO_SCHEDULE),)},
    ],
)
def test_nodes_that_take_no_plain_work_are_held_by_name_only(change: dict[str, Any]) -> None:
    state = a_state(a_node())
    happened(state, (Event(NodeChanged(node=NodeId("n1"), **change)),))

    assert why_not(state, duration_seconds=60)[0] is RefusalCode.CAPACITY
    assert holds(state, nodes=["n1"], duration_seconds=60) == {"n1": 1}


# ---------------------------------------------------------------- limits


def test_a_window_beyond_the_hard_limit_of_its_namespace_is_refused_with_the_numbers() -> None:
    state = a_state(a_node(cpu=64_000), a_quota(hard={"cpu_millicores": 8_000}))
    happened(state, a_reservation("other", start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1}, cpu=6_000))

    code, detail = why_not(state, nodes=["n1"], **IN_AN_HOUR)

    assert code is RefusalCode.QUOTA
    assert detail == (
        "team-a would use 10000 of cpu_millicores at 2026-01-01T01:00:00Z, its hard limit is 8000; "
        "it would work from 2026-01-01T02:00:00Z to 2026-01-01T03:00:00Z"
    )


def test_a_reservation_of_nothing_is_refused() -> None:
    assert why_not(a_state(a_node()), resources={}, nodes=["n1"], **IN_AN_HOUR)[0] is RefusalCode.INVALID


# ---------------------------------------------------------------- identity


def test_r106_the_same_document_has_the_same_digest_however_its_window_is_written() -> None:
    by_end = a_document(start=ONE_O_CLOCK, end=TWO_O_CLOCK)
    by_duration = a_document(start="2026-01-01T02:00:00+01:00", duration_seconds=3_600)

    assert digest_of(by_end) == digest_of(by_duration)
    assert digest_of(by_end) == digest_of(a_document(start=ONE_O_CLOCK, end=TWO_O_CLOCK, count=1)), "said or default"
    assert digest_of(by_end) != digest_of(a_document(start=ONE_O_CLOCK, end=TWO_O_CLOCK, count=2))


def test_r106_a_window_from_now_on_is_the_same_whenever_it_is_asked_for() -> None:
    state = a_state(a_node())

    def digest(at: int) -> str:
        (created,) = (
            one.data for one in booked(state, at, duration_seconds=60) if isinstance(one.data, ReservationCreated)
        )
        return created.digest

    assert digest(T0) == digest(T0 + MINUTE)
