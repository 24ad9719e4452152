"""The shape of a reservation: its units on nodes and domains (R34–R36, R98)."""

from typing import Any

from berth.messages.commands import Refusal
from berth.messages.documents import RESERVATION
from berth.messages.events import ReservationHeld
from berth.model.ledger import State
from berth_reservation.booking import book
from tests.builders import T0, a_node, a_state

IN_AN_HOUR: dict[str, Any] = {"start": "2026-01-01T01:00:00Z", "end": "2026-01-01T02:00:00Z"}


def held(state: State, **document: Any) -> dict[str, int] | None:
    written = {"id": "res1", "namespace": "team-a", "resources": {"cpu_cores": 4}, **IN_AN_HOUR, **document}
    answer = book(state, RESERVATION.validate_python(written, strict=False), T0, asked_at=T0)
    if isinstance(answer, Refusal):
        return None
    (data,) = (event.data for event in answer if isinstance(event.data, ReservationHeld))
    return {str(one.node): one.count for one in data.nodes}


def test_r98_units_on_distinct_nodes_need_as_many_nodes() -> None:
    state = a_state(a_node("n1", cpu=64_000), a_node("n2"), a_node("n3"))
    strict = {"spread": [{"topology_key": "node"}]}

    assert held(state, count=3, **strict) == {"n1": 1, "n2": 1, "n3": 1}
    assert held(state, count=3, resources={"cpu_cores": 10}, **strict) is None, "a unit fits one node"


def test_units_are_spread_over_zones_as_evenly_as_asked() -> None:
    state = a_state(
        a_node("a1", cpu=64_000, labels={"zone": "a"}),
        a_node("b1", cpu=8_000, labels={"zone": "b"}),
        a_node("none", cpu=64_000),
    )

    assert held(state, count=4, spread=[{"topology_key": "zone"}]) == {"a1": 2, "b1": 2}
    assert held(state, count=6, spread=[{"topology_key": "zone"}]) is None
    assert held(state, count=6, spread=[{"topology_key": "zone", "max_skew": 2}]) == {"a1": 4, "b1": 2}


def test_what_is_only_preferred_is_spread_as_far_as_it_goes() -> None:
    state = a_state(
        a_node("a1", cpu=64_000, labels={"zone": "a"}),
        a_node("b1", cpu=4_000, labels={"zone": "b"}),
    )

    assert held(state, count=4, spread=[{"topology_key": "zone", "mode": "preferred"}]) == {"a1": 3, "b1": 1}


def test_fewer_domains_than_asked_for_hold_no_more_than_the_skew_each() -> None:
    state = a_state(a_node("a1", cpu=64_000, labels={"zone": "a"}), a_node("b1", cpu=64_000, labels={"zone": "b"}))
    three_zones = {"spread": [{"topology_key": "zone", "min_domains": 3}]}

    assert held(state, count=2, **three_zones) == {"a1": 1, "b1": 1}
    assert held(state, count=3, **three_zones) is None


def test_constraints_choose_the_nodes_and_preferences_order_them() -> None:
    state = a_state(
        a_node("n1", cpu=64_000, labels={"disk": "hdd"}),
        a_node("n2", labels={"disk": "ssd"}),
        a_node("n3", labels={"disk": "ssd", "fast": "yes"}),
    )
    ssd = {"key": "disk", "operator": "in", "values": ["ssd"]}
    fast = {"key": "fast", "operator": "exists", "mode": "preferred", "weight": 5}

    assert held(state, count=3, constraints=[ssd, fast]) == {"n3": 2, "n2": 1}
    assert held(state, count=5, constraints=[ssd]) is None
