"""Commands that wait for their answer: what they want of a state, and what the committed state says to them.

A command is answered from the ledger alone: when its reservation stands there, whoever put it there. So it may
be proposed again, by this service or another, until it is known what became of it.
"""

from dataclasses import dataclass

from berth.ids import Namespace, ReservationId
from berth.messages.commands import (
    CancelReservation,
    CreateReservation,
    Refusal,
    RefusalCode,
    ReservationAnswer,
)
from berth.messages.events import Transaction
from berth.model.answers import reservation_row
from berth.model.ledger import State
from berth.model.reservation import Reservation, ReservationState
from berth_reservation.booking import book, cancel, digest_of

FINAL = frozenset({RefusalCode.CONFLICT, RefusalCode.INVALID, RefusalCode.TOO_LARGE, RefusalCode.INTERNAL})
"""What no newer view would change."""


@dataclass(slots=True, kw_only=True)
class Command:
    """One that has not been answered. Times are milliseconds UTC; `tries`: how often it was refused so far."""

    body: CreateReservation | CancelReservation
    namespace: Namespace
    reply_to: str | None
    traceparent: str | None
    asked_at: int
    gives_up_at: int
    tries: int = 0

    @property
    def reservation(self) -> ReservationId:
        wanted = self.body.reservation
        return ReservationId(wanted) if isinstance(wanted, str) else wanted.id


def outcome(state: State, command: Command) -> ReservationAnswer | None:
    """What the committed state says to the command; None: it has still to be carried out, or was never possible."""
    known = state.reservations.reservations.get(command.reservation)
    if known is None:
        return None
    if isinstance(command.body, CancelReservation):
        return _cancelled(state, command, known)
    same = (known.namespace, known.digest) == (command.namespace, digest_of(command.body.reservation))
    if same:
        return ReservationAnswer(sequence=known.created, reservation=reservation_row(state, known))
    differs = "body" if known.namespace == command.namespace else "namespace"
    return refused(RefusalCode.CONFLICT, f"the id {known.id} is taken by a reservation with another {differs}")


def _cancelled(state: State, command: Command, known: Reservation) -> ReservationAnswer | None:
    if known.namespace != command.namespace or not known.is_over:
        return None
    if known.state is ReservationState.EXPIRED:
        return refused(RefusalCode.ALREADY_DONE, f"{known.id} is expired, and that is final")
    return ReservationAnswer(sequence=known.changed, reservation=reservation_row(state, known))


def plan(state: State, command: Command, at: int) -> Transaction | Refusal:
    """The transaction that carries the command out on `state` at `at`, or why that is not possible."""
    if isinstance(command.body, CancelReservation):
        return cancel(state, command.reservation, command.namespace)
    return book(state, command.body.reservation, at, asked_at=command.asked_at)


def refused(code: RefusalCode, detail: str) -> ReservationAnswer:
    return ReservationAnswer(refusal=Refusal(code=code, detail=detail))
