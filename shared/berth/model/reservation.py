"""Reservations: capacity booked for a window, on named nodes once it is held."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from berth.ids import Namespace, NodeId, ReservationId, Sequence
from berth.messages.events import ReservationBody, ReservationStatus
from berth.model.tables import DigestedTable, Journal, Table
from berth.resources import NOTHING, ONE_INSTANCE, Resources


class ReservationState(StrEnum):
    PENDING = "pending"
    HELD = "held"
    ACTIVE = "active"
    RELEASED = "released"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """`holds`: how many units are held on which node; a unit is the body's resources and one of `instances`."""

    id: ReservationId
    namespace: Namespace
    body: ReservationBody
    digest: str
    state: ReservationState
    holds: tuple[tuple[NodeId, int], ...] = ()
    created: Sequence
    changed: Sequence

    @property
    def unit(self) -> Resources:
        return self.body.resources + ONE_INSTANCE

    @property
    def is_over(self) -> bool:
        return self.state not in (ReservationState.PENDING, ReservationState.HELD, ReservationState.ACTIVE)

    def held_on(self, node: NodeId) -> Resources:
        """What is held on `node`, drawn or not."""
        for holder, count in self.holds:
            if holder == node:
                return self.unit.times(count)
        return NOTHING

    @property
    def total(self) -> Resources:
        """What all holds together are."""
        return self.unit.times(sum(count for _, count in self.holds))


def _describe(reservation: Reservation) -> Any:
    return (
        reservation.namespace,
        reservation.digest,
        reservation.state.value,
        reservation.holds,
        reservation.created,
        reservation.changed,
    )


DrawnKey = tuple[ReservationId, NodeId]


class Reservations:
    """`drawn`: charges of live allocations that draw on a reservation, per node.

    `on_node`: which reservations hold something on a node, active or in a future window.
    """

    def __init__(self, journal: Journal) -> None:
        self.reservations: DigestedTable[ReservationId, Reservation] = DigestedTable(journal, _describe)
        self.drawn: Table[DrawnKey, Resources] = Table(journal)
        self.open: Table[ReservationId, None] = Table(journal)
        self._on_node: dict[NodeId, Table[ReservationId, None]] = {}
        self._journal = journal

    @property
    def digest(self) -> int:
        return self.reservations.digest

    def on_node(self, node: NodeId) -> Table[ReservationId, None]:
        table = self._on_node.get(node)
        if table is None:
            table = self._on_node[node] = Table(self._journal)
        return table

    def put(self, reservation: Reservation) -> None:
        """The new state of a reservation; the indexes follow."""
        before = self.reservations.get(reservation.id)
        for node, _ in before.holds if before else ():
            if reservation.id in self.on_node(node):
                self.on_node(node).drop(reservation.id)
        self.reservations.put(reservation.id, reservation)
        if not reservation.is_over:
            self.open.put(reservation.id, None)
            for node, _ in reservation.holds:
                self.on_node(node).put(reservation.id, None)
        elif reservation.id in self.open:
            self.open.drop(reservation.id)

    def drawn_on(self, reservation: ReservationId, node: NodeId) -> Resources:
        return self.drawn.get((reservation, node), NOTHING)

    def draw(self, reservation: ReservationId, node: NodeId, charge: Resources) -> None:
        self.drawn.put((reservation, node), self.drawn_on(reservation, node) + charge)

    def give_back(self, reservation: ReservationId, node: NodeId, charge: Resources) -> None:
        self.drawn.put((reservation, node), self.drawn_on(reservation, node) - charge)

    def undrawn_on(self, node: NodeId) -> Resources:
        """What active reservations still hold on `node` beyond what is drawn: taken, though nobody runs there."""
        total = NOTHING
        for name in self._on_node.get(node, ()):
            reservation = self.reservations[name]
            if reservation.state is ReservationState.ACTIVE:
                total += reservation.held_on(node).beyond(self.drawn_on(name, node))
        return total

    def charged(self, reservation: Reservation) -> Resources:
        """What an active reservation charges its namespace: what is held, or drawn where that is more (R93)."""
        total = NOTHING
        for node, _ in reservation.holds:
            held, drawn = reservation.held_on(node), self.drawn_on(reservation.id, node)
            total += drawn + held.beyond(drawn)
        return total


STATE_OF: dict[ReservationStatus, ReservationState] = {
    ReservationStatus.RELEASED: ReservationState.RELEASED,
    ReservationStatus.EXPIRED: ReservationState.EXPIRED,
    ReservationStatus.CANCELLED: ReservationState.CANCELLED,
}


def ended(reservation: Reservation, status: ReservationStatus, sequence: Sequence) -> Reservation:
    assert not reservation.is_over, f"I11: {reservation.id} is {reservation.state} and that is final (R96)"
    return replace(reservation, state=STATE_OF[status], changed=sequence)
