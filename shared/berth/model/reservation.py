"""Reservations: capacity booked for a window, on named nodes once it is held."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from berth.ids import Namespace, NodeId, ReservationId, Sequence
from berth.messages.reservation_events import (
    Because,
    EndCause,
    ReservationBody,
    ReservationEnded,
    ReservationHeld,
    ReservationStatus,
)
from berth.model.tables import CountedTable, DigestedTable, Journal, Table
from berth.resources import NOTHING, ONE_INSTANCE, Resources


class ReservationState(StrEnum):
    PENDING = "pending"
    HELD = "held"
    ACTIVE = "active"
    RELEASED = "released"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


def unit_of(body: ReservationBody) -> Resources:
    """What one unit takes of a node, its share of `instances` included."""
    return body.resources + ONE_INSTANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """`holds`: how many units are held on which node; a unit is the body's resources and one of `instances`.

    `because`: why it was last held otherwise than before; `ended`: why it is over.
    """

    id: ReservationId
    namespace: Namespace
    body: ReservationBody
    digest: str
    state: ReservationState
    holds: tuple[tuple[NodeId, int], ...] = ()
    created: Sequence
    changed: Sequence
    because: Because | None = None
    ended: EndCause | None = None

    @property
    def unit(self) -> Resources:
        return unit_of(self.body)

    @property
    def is_over(self) -> bool:
        return self.state not in (ReservationState.PENDING, ReservationState.HELD, ReservationState.ACTIVE)

    @property
    def units(self) -> int:
        """How many units are held, on all nodes together."""
        return sum(count for _, count in self.holds)

    @property
    def missing(self) -> int:
        """How many of the units that it asks for are held nowhere: a promise broken, or not made yet."""
        return self.body.count - self.units

    @property
    def total(self) -> Resources:
        """What all holds together are."""
        return self.unit.times(self.units)


def _describe(reservation: Reservation) -> Any:
    because = reservation.because
    held_again = () if because is None else (reservation.body.end, reservation.body.count, because.written())
    return (
        reservation.namespace,
        reservation.digest,
        reservation.state.value,
        reservation.holds,
        reservation.created,
        reservation.changed,
        *held_again,
    )


DrawnKey = tuple[ReservationId, NodeId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is taken on a node at one moment.

    `held`: by every reservation that is open then, drawn or not. `committed`: by allocations that run beyond
    that moment and draw on none of those. `drawn`: what each of those has drawn then, where it is anything.
    """

    held: Resources
    committed: Resources
    drawn: Mapping[ReservationId, Resources]

    @property
    def total(self) -> Resources:
        return self.held + self.committed


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A future [start, end) on a node (milliseconds UTC), and the load at its start, itself included."""

    start: int
    end: int
    reservation: ReservationId
    load: Load


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarPage:
    """The windows of one node, and the versions of what they were derived from."""

    allocations: int
    holders: int
    windows: tuple[Window, ...]


class Reservations:
    """`drawn`: charges of live allocations that draw on a reservation, per node; `drawers`: how many those are.

    `idle_since`: when an active reservation was last drawn on, or became active; absent while it is in use.
    `pages`: derived, not state; `berth.model.windows` keeps it and trusts it only while the versions agree.
    """

    def __init__(self, journal: Journal) -> None:
        self.reservations: DigestedTable[ReservationId, Reservation] = DigestedTable(journal, _describe)
        self.drawn: Table[DrawnKey, Resources] = Table(journal)
        self.drawers: Table[ReservationId, int] = Table(journal)
        self.idle_since: Table[ReservationId, int] = Table(journal)
        self.open: Table[ReservationId, None] = Table(journal)
        self.pages: dict[NodeId, CalendarPage] = {}
        self._on_node: dict[NodeId, CountedTable[ReservationId, int]] = {}
        self._journal = journal

    @property
    def digest(self) -> int:
        return self.reservations.digest

    def on_node(self, node: NodeId) -> CountedTable[ReservationId, int]:
        """Which reservations hold how many units on a node, active or in a future window."""
        table = self._on_node.get(node)
        if table is None:
            table = self._on_node[node] = CountedTable(self._journal)
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
            for node, count in reservation.holds:
                self.on_node(node).put(reservation.id, count)
        elif reservation.id in self.open:
            self.open.drop(reservation.id)

    def index(self) -> None:
        """Find what follows from reservations that were restored from a snapshot."""
        for name in self.open:
            for node, count in self.reservations[name].holds:
                self.on_node(node).put(name, count)

    def held_on(self, reservation: Reservation, node: NodeId) -> Resources:
        """What an open reservation holds on `node`, drawn or not."""
        return reservation.unit.times(self.on_node(node).get(reservation.id, 0))

    def drawn_on(self, reservation: ReservationId, node: NodeId) -> Resources:
        return self.drawn.get((reservation, node), NOTHING)

    def draw(self, reservation: ReservationId, node: NodeId, charge: Resources) -> None:
        self.drawn.put((reservation, node), self.drawn_on(reservation, node) + charge)
        self.drawers.put(reservation, self.drawers.get(reservation, 0) + 1)
        if reservation in self.idle_since:
            self.idle_since.drop(reservation)

    def give_back(self, reservation: ReservationId, node: NodeId, charge: Resources, *, at: int) -> None:
        """An allocation that drew is gone at `at` (milliseconds UTC)."""
        self.drawn.put((reservation, node), self.drawn_on(reservation, node) - charge)
        left = self.drawers[reservation] - 1
        self.drawers.put(reservation, left)
        if not left:
            self.idle_since.put(reservation, at)

    def leave(self, reservation: Reservation, node: NodeId) -> None:
        """It holds nothing on `node` any more, where nobody draws on it."""
        if (reservation.id, node) in self.drawn:
            assert self.drawn_on(reservation.id, node) == NOTHING, f"I13: {reservation.id} is drawn on {node}"
            self.drawn.drop((reservation.id, node))

    def forget_use(self, reservation: Reservation) -> None:
        """It is over: what still runs draws on it no longer."""
        for node, _ in reservation.holds:
            if (reservation.id, node) in self.drawn:
                self.drawn.drop((reservation.id, node))
        for table in (self.drawers, self.idle_since):
            if reservation.id in table:
                table.drop(reservation.id)

    def drawn_in_all(self, reservation: Reservation) -> Resources:
        """What live allocations draw on it, all nodes together."""
        total = NOTHING
        for node, _ in reservation.holds:
            total += self.drawn_on(reservation.id, node)
        return total

    def undrawn(self, reservation: Reservation) -> Resources:
        """What it holds beyond what is drawn, all nodes together."""
        total = NOTHING
        for node, _ in reservation.holds:
            total += self.held_on(reservation, node).beyond(self.drawn_on(reservation.id, node))
        return total

    def undrawn_on(self, node: NodeId) -> Resources:
        """What active reservations still hold on `node` beyond what is drawn: taken, though nobody runs there."""
        total = NOTHING
        for name in self._on_node.get(node, ()):
            reservation = self.reservations[name]
            if reservation.state is ReservationState.ACTIVE:
                total += self.held_on(reservation, node).beyond(self.drawn_on(name, node))
        return total

    def charged_on(self, reservation: Reservation, node: NodeId) -> Resources:
        """What an active reservation charges its namespace on `node`: held, or drawn where that is more (R93)."""
        held, drawn = self.held_on(reservation, node), self.drawn_on(reservation.id, node)
        return drawn + held.beyond(drawn)

    def charged(self, reservation: Reservation) -> Resources:
        """The same, on all nodes together."""
        total = NOTHING
        for node, _ in reservation.holds:
            total += self.charged_on(reservation, node)
        return total


STATE_OF: dict[ReservationStatus, ReservationState] = {
    ReservationStatus.RELEASED: ReservationState.RELEASED,
    ReservationStatus.EXPIRED: ReservationState.EXPIRED,
    ReservationStatus.CANCELLED: ReservationState.CANCELLED,
}


def ended(reservation: Reservation, data: ReservationEnded, sequence: Sequence) -> Reservation:
    assert not reservation.is_over, f"I13: {reservation.id} is {reservation.state} and that is final (R96)"
    return replace(reservation, state=STATE_OF[data.status], ended=data.cause, changed=sequence)


def held(reservation: Reservation, data: ReservationHeld, sequence: Sequence) -> Reservation:
    """As `data` says it is held from now on; one that is active stays active."""
    changes: dict[str, int] = {}
    if data.end is not None:
        changes["end"] = data.end
    if data.count is not None:
        changes["count"] = data.count
    is_active = reservation.state is ReservationState.ACTIVE
    return replace(
        reservation,
        state=ReservationState.ACTIVE if is_active else ReservationState.HELD,
        body=reservation.body.model_copy(update=changes) if changes else reservation.body,
        holds=tuple((one.node, one.count) for one in data.nodes),
        because=data.because,
        changed=sequence,
    )
