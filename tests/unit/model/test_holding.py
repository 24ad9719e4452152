"""What the leader lets become of a held reservation: no promise is broken in silence (R92)."""

from typing import Any

import pytest

from berth.ids import Namespace, NodeId, ReservationId
from berth.messages.commands import RefusalCode
from berth.messages.documents import Displace, OnNodeLoss, UnitSpread, Use
from berth.messages.events import (
    Event,
    NodeChanged,
    NodeLeft,
    NodeLost,
    ReservationCreated,
    ReservationHeld,
    Transaction,
)
from berth.messages.requests import Constraint, Operator
from berth.messages.reservation_events import Because, HeldOnNode, HoldCause, ReservationBody
from berth.model.check import check
from berth.model.ledger import State
from berth.resources import Resources
from tests.builders import HOUR, T0, TEAM_A, a_node, a_request, a_reservation, a_state, activated, happened, placed

ONE, TWO = T0 + HOUR, T0 + 2 * HOUR
LOST = Because(cause=HoldCause.NODE_LOST, names=("n1",))


def held(on: dict[str, int], because: Because | None = LOST, *, name: str = "res1", **sizes: int) -> Transaction:
    nodes = tuple(HeldOnNode(node=NodeId(node), count=count) for node, count in on.items())
    data = ReservationHeld(reservation=ReservationId(name), nodes=nodes, because=because, **sizes)
    return (Event(data, Namespace(TEAM_A)),)


def a_promise(**body: Any) -> State:
    """Two units on n1, for an hour from one o'clock; n2 and n3 are free."""
    promise = a_reservation(start=ONE, end=TWO, on={"n1": 2}, named=False, **body)
    return a_state(a_node("n1"), a_node("n2"), a_node("n3", labels={"zone": "b"}), promise)


def refused(state: State, transaction: Transaction, at: int = T0) -> RefusalCode | None:
    refusal = check(state, transaction, at)
    return None if refusal is None else refusal.code


@pytest.mark.parametrize("cause", [HoldCause.NODE_LOST, HoldCause.NODE_SMALLER, HoldCause.REFILLED, HoldCause.SHRUNK])
def test_units_are_not_taken_away_for_a_cause_that_is_not_true(cause: HoldCause) -> None:
    assert refused(a_promise(), held({"n1": 1}, Because(cause=cause, names=("n1",)))) is RefusalCode.RULE


def test_a_promise_is_not_changed_without_a_cause() -> None:
    assert refused(a_promise(), held({"n2": 2}, None)) is RefusalCode.ALREADY_DONE


@pytest.mark.parametrize(
    "change", [NodeLost(node=NodeId("n1")), NodeLeft(node=NodeId("n1")), NodeChanged(node=NodeId("n1"), draining=True)]
)
def test_units_on_a_node_that_will_not_be_there_may_move_or_be_missing(change: Any) -> None:
    state = a_promise()
    happened(state, (Event(change),))

    assert refused(state, held({"n2": 2})) is None
    assert refused(state, held({"n2": 1})) is None
    assert refused(state, held({})) is None


def test_units_that_a_smaller_node_cannot_carry_may_be_missing() -> None:
    state = a_promise()
    happened(state, a_node("n1", cpu=5_000))

    assert refused(state, held({"n1": 1}, Because(cause=HoldCause.NODE_SMALLER, names=("n1",)))) is None


def test_all_units_may_move_elsewhere_but_not_to_where_there_is_no_room_or_no_node() -> None:
    state = a_promise()
    happened(state, placed(a_request("endless", cpu=8_000), "n2"))

    assert refused(state, held({"n3": 2})) is None
    assert refused(state, held({"n2": 2})) is RefusalCode.WINDOW
    assert refused(state, held({"n9": 2})) is RefusalCode.NOT_FOUND
    assert refused(state, held({"n1": 2, "n3": 1})) is RefusalCode.INVALID


def test_a_static_reservation_does_not_move() -> None:
    state = a_promise(on_node_loss=OnNodeLoss.STATIC)
    happened(state, (Event(NodeLost(node=NodeId("n1"))),))

    assert refused(state, held({"n2": 2})) is RefusalCode.RULE


def test_the_shape_is_kept_where_it_moves() -> None:
    zone_b = Constraint(key="zone", operator=Operator.IN, values=("b",))
    state = a_state(
        a_node("n1", labels={"zone": "b"}),
        a_node("n2"),
        a_node("n3", labels={"zone": "b"}),
        a_reservation(start=ONE, end=TWO, on={"n1": 2}, named=False, constraints=(zone_b,)),
    )
    assert refused(state, held({"n2": 2})) is RefusalCode.RULE
    assert refused(state, held({"n3": 2})) is None

    spread = a_state(
        a_node("n1"),
        a_node("n2"),
        a_reservation(
            start=ONE, end=TWO, on={"n1": 1, "n2": 1}, named=False, spread=(UnitSpread(topology_key="node"),)
        ),
    )
    assert refused(spread, held({"n1": 2})) is RefusalCode.RULE


def test_a_window_changes_only_as_its_cause_says() -> None:
    state, extended = a_promise(), Because(cause=HoldCause.EXTENDED)

    assert refused(state, held({"n1": 2}, extended, end=TWO + HOUR)) is None
    assert refused(state, held({"n1": 2}, extended, end=TWO - 1)) is RefusalCode.INVALID
    assert refused(state, held({"n1": 2}, Because(cause=HoldCause.REFILLED), end=TWO + HOUR)) is RefusalCode.INVALID
    assert refused(state, held({"n1": 1}, Because(cause=HoldCause.SHRUNK), count=1)) is None
    assert refused(state, held({"n1": 2}, Because(cause=HoldCause.SHRUNK), end=ONE)) is RefusalCode.INVALID
    assert refused(state, held({"n1": 2}, extended)) is RefusalCode.ALREADY_DONE


# ---------------------------------------------------------------- in the place of others


def instead(*, priority: int = 90, displace: Displace = Displace.LOWER_PRIORITY, by: str = "vip") -> Transaction:
    """`vip` takes n1; what was promised there is held nowhere any more."""
    body = ReservationBody(
        id=ReservationId("vip"),
        resources=Resources(4_000),
        count=2,
        start=ONE,
        end=TWO,
        nodes=(NodeId("n1"),),
        priority=priority,
        displace=displace,
    )
    created = Event(ReservationCreated(reservation=body, digest="1" * 64), Namespace(TEAM_A))
    yielding = held({}, Because(cause=HoldCause.DISPLACED, names=(by,)))
    return (created, *yielding, *held({"n1": 2}, None, name="vip"))


def test_only_a_reservation_of_higher_priority_that_asks_takes_the_place_of_another() -> None:
    assert refused(a_promise(), instead()) is None
    assert refused(a_promise(), instead(priority=50)) is RefusalCode.RULE
    assert refused(a_promise(), instead(displace=Displace.NEVER)) is RefusalCode.RULE
    assert refused(a_promise(), instead(by="nobody")) is RefusalCode.RULE


def test_one_that_was_booked_before_takes_nobody_s_place_any_more() -> None:
    state = a_promise()
    vip = a_reservation("vip", start=ONE, end=TWO, on={"n2": 2}, priority=90, displace=Displace.LOWER_PRIORITY)
    happened(state, vip)

    assert refused(state, held({}, Because(cause=HoldCause.DISPLACED, names=("vip",)))) is RefusalCode.RULE


# ---------------------------------------------------------------- while it is active


def in_use(**body: Any) -> State:
    state = a_promise(**body)
    happened(state, activated(), at=ONE)
    happened(state, placed(a_request("drawer", cpu=3_000, reservation="res1"), "n1"))
    return state


def test_nothing_is_taken_from_under_what_draws() -> None:
    state = in_use()
    happened(state, (Event(NodeChanged(node=NodeId("n1"), draining=True)),))

    assert refused(state, held({"n2": 2}, Because(cause=HoldCause.NODE_DRAINED)), ONE) is RefusalCode.STALE_VICTIM
    assert refused(state, held({"n1": 1, "n2": 1}, Because(cause=HoldCause.NODE_DRAINED)), ONE) is None


def test_an_active_reservation_yields_to_nobody() -> None:
    assert refused(in_use(), instead(), ONE) is RefusalCode.STALE_VICTIM


def test_aligned_use_may_exceed_what_is_held_and_restricted_use_may_not() -> None:
    more = placed(a_request("more", cpu=5_000, reservation="res1"), "n1")
    small: dict[str, Any] = {"cpu": 2_000}

    assert refused(in_use(use=Use.ALIGNED, **small), more, ONE) is None
    assert refused(in_use(use=Use.RESTRICTED, **small), more, ONE) is RefusalCode.CAPACITY
