"""Commands that wait for their answer: what they want of a state, and what the committed state says to them.

A command is answered from the ledger alone: when its reservation stands there, whoever put it there. So it may
be proposed again, by this service or another, until it is known what became of it.
"""

from dataclasses import dataclass

from berth.ids import Namespace, ReservationId
from berth.messages.commands import (
    CancelReservation,
    CreateReservation,
    ExtendReservation,
    Refusal,
    RefusalCode,
    ReservationAnswer,
    ReservationCommand,
    ResizeReservation,
    ShrinkReservation,
    SkipReservation,
)
from berth.messages.events import Transaction
from berth.messages.reservation_events import EndCause
from berth.model.answers import reservation_row
from berth.model.ledger import State
from berth.model.reservation import Reservation, ReservationState
from berth_reservation.booking import book, digest_of
from berth_reservation.giving_back import cancel, skip
from berth_reservation.resizing import resize, size_of

FINAL = frozenset({RefusalCode.CONFLICT, RefusalCode.INVALID, RefusalCode.TOO_LARGE, RefusalCode.INTERNAL})
"""What no newer view would change."""


@dataclass(slots=True, kw_only=True)
class Command:
    """One that has not been answered. Times are milliseconds UTC; `tries`: how often it was refused so far."""

    body: ReservationCommand
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
    body = command.body
    if isinstance(body, CreateReservation):
        return _created(state, command, body, known)
    if known.namespace != command.namespace:
        return None
    if isinstance(body, ResizeReservation):
        wanted = size_of(known.body, body)
        is_done = (wanted.end, wanted.count) == (known.body.end, known.body.count) and not known.is_over
    elif isinstance(body, SkipReservation):
        is_done = known.ended is EndCause.SKIPPED
    else:
        is_done = known.is_over and known.state is not ReservationState.EXPIRED
    if is_done:
        return ReservationAnswer(sequence=known.changed, reservation=reservation_row(state, known))
    if known.is_over:
        return refused(RefusalCode.ALREADY_DONE, f"{known.id} is {known.state}, and that is final")
    return None


def _created(state: State, command: Command, body: CreateReservation, known: Reservation) -> ReservationAnswer:
    same = (known.namespace, known.digest) == (command.namespace, digest_of(body.reservation))
    if same:
        return ReservationAnswer(sequence=known.created, reservation=reservation_row(state, known))
    differs = "body" if known.namespace == command.namespace else "namespace"
    return refused(RefusalCode.CONFLICT, f"the id {known.id} is taken by a reservation with another {differs}")


def plan(state: State, command: Command, at: int) -> Transaction | Refusal:
    """The transaction that carries the command out on `state` at `at`, or why that is not possible."""
    body, name, namespace = command.body, command.reservation, command.namespace
    match body:
        case CreateReservation():
            return book(state, body.reservation, at, asked_at=command.asked_at)
        case CancelReservation():
            return cancel(state, name, namespace, at, evict=body.evict)
        case SkipReservation():
            return skip(state, name, namespace, at)
        case ExtendReservation() | ShrinkReservation():
            return resize(state, body, namespace, at)


def refused(code: RefusalCode, detail: str) -> ReservationAnswer:
    return ReservationAnswer(refusal=Refusal(code=code, detail=detail))
