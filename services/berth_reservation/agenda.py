"""What time has made due, and when to look again: windows that start and end, unused ones, durations.

Keys are looked at when their time comes, planned on the state as it then is, and looked at again later unless
the ledger has settled them meanwhile. Times are milliseconds UTC of this process's clock; the leader's decides.
"""

from collections.abc import Iterator
from itertools import islice

from berth.ids import RequestKey, ReservationId
from berth.messages.commands import Refusal, RefusalCode
from berth.messages.envelope import Record
from berth.messages.events import (
    AllocationsEnded,
    AllocationsOverran,
    Event,
    NodeChanged,
    NodeLeft,
    NodeLost,
    NodeRegistered,
    RequestEnded,
    RequestPlaced,
    ReservationActivated,
    ReservationCreated,
    ReservationEnded,
    ReservationHeld,
    Transaction,
)
from berth.messages.reservation_events import EndCause, ReservationStatus
from berth.model.holding import why_unfit
from berth.model.ledger import State
from berth.model.reservation import Reservation, ReservationState
from berth_reservation.activation import activate
from berth_reservation.expiry import ends_of, expire, next_change, over, unused_by
from berth_reservation.pace import Pace
from berth_reservation.replanning import replan
from berth_reservation.timers import Phase, Timers

Key = ReservationId | RequestKey
"""What time changes: a reservation, or a request with a duration."""


class Agenda:
    """One per service. While the leader says that it is too early, only one key is tried at a time, ever more
    slowly: a clock that runs ahead costs a question now and then, not a flood of them.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._timers: Timers[Key] = Timers()
        self._tries: dict[Key, int] = {}
        self._too_early = 0
        self._not_before = 0
        self._short: dict[ReservationId, None] = {}
        self._short_looked_at = 0

    def begin(self, state: State, now: int) -> None:
        """Note everything that has a time."""
        for name in state.reservations.open:
            reservation = state.reservations.reservations[name]
            self._note_reservation(state, reservation, now)
            if reservation.missing or any(why_unfit(state, node) for node, _ in reservation.holds):
                self._look_at(state, name, now)
        for key in state.queue.requests:
            self._note_request(state, key)

    def follow(self, state: State, record: Record, now: int) -> None:
        """Note what a record that was folded has changed."""
        for transaction in record.transactions:
            for event in transaction:
                self._note(state, event, now)

    def next(self) -> int | None:
        """When something is due next, or None."""
        due = self._timers.next()
        return None if due is None else max(due, self._not_before)

    def due(self, state: State, now: int) -> Iterator[tuple[Key, list[Transaction]]]:
        """What has come due, one after the other, each planned on `state` when it is its turn.

        Whoever takes them folds each into `state` before it asks for the next. What is offered to the leader is
        looked at again when no answer has come, what is not (no transactions) at its next time.
        """
        if now < self._not_before:
            return
        several = 1 if self._too_early else self._pace.transactions_max
        keys = list(islice(self._timers.take(now), several))
        for key in keys:  # whatever happens while they are planned, they are not forgotten
            self._timers.set(key, now + self._pace.answer_ms, _phase(state, key))
        for key in keys:
            transactions = _planned(state, key, now)
            if not transactions:
                self._again(state, key, now)
            yield key, transactions

    def accepted(self) -> None:
        """The leader did something: its clock has come as far as this one."""
        self._too_early = 0

    def refused(self, state: State, key: Key, refusal: Refusal, now: int) -> bool:
        """Look at it again, later each time; whether this was its first refusal."""
        tries = self._tries[key] = self._tries.get(key, 0) + 1
        wait = self._pace.after(tries)
        if refusal.code is RefusalCode.TOO_EARLY:
            self._too_early += 1
            wait = self._pace.after(self._too_early)
            self._not_before = now + wait
        self._timers.set(key, now + wait, _phase(state, key))
        return tries == 1

    # --- one key ------------------------------------------------------------------------------------

    def _note(self, state: State, event: Event, now: int) -> None:
        match event.data:
            case ReservationCreated(reservation=body):
                self._note_reservation(state, state.reservations.reservations[body.id], now)
            case ReservationHeld(reservation=name) | ReservationActivated(reservation=name):
                self._note_reservation(state, state.reservations.reservations[name], now)
            case ReservationEnded(reservation=name):
                self._forget(name)
                self._short.pop(name, None)
                self._look_at_short(state, now)
            case NodeRegistered(node=node) | NodeChanged(node=node) | NodeLost(node=node) | NodeLeft(node=node):
                self._look_at_short(state, now)
                for name in state.reservations.on_node(node):
                    self._look_at(state, name, now)
            case AllocationsEnded():
                self._look_at_short(state, now)
            case AllocationsOverran() if event.key is not None:
                self._note_request(state, event.key)
            case RequestPlaced() if event.key is not None:
                self._note_request(state, event.key)
                self._note_drawing(state, event.key, now)
            case RequestEnded() if event.key is not None:
                self._forget(event.key)
            case _:
                pass

    def _note_reservation(self, state: State, reservation: Reservation, now: int) -> None:
        due = next_change(state, reservation, now)
        self._forget(reservation.id)
        if reservation.missing and not reservation.is_over:
            self._short[reservation.id] = None
        else:
            self._short.pop(reservation.id, None)
        if due is not None:
            self._timers.set(reservation.id, due, _phase(state, reservation.id))

    def _look_at(self, state: State, name: ReservationId, now: int) -> None:
        """Something has changed for it: it may have to be held elsewhere (R92), or may be held at last."""
        due = next_change(state, state.reservations.reservations[name], now)
        self._timers.set(name, now if due is None else min(due, now), _phase(state, name))

    def _look_at_short(self, state: State, now: int) -> None:
        """Room may have come for those that hold less than they ask for; looked at together, a little later."""
        if self._short and self._short_looked_at <= now:
            self._short_looked_at = now + self._pace.refill_ms
            for name in self._short:
                due = next_change(state, state.reservations.reservations[name], now)
                if due is None or not now < due < self._short_looked_at:
                    due = self._short_looked_at
                self._timers.set(name, due, _phase(state, name))

    def _note_request(self, state: State, key: RequestKey) -> None:
        ends = min(ends_of(state, key), default=None)
        if ends is not None:
            self._tries.pop(key, None)
            self._timers.set(key, ends, Phase.DURATION)

    def _note_drawing(self, state: State, key: RequestKey, now: int) -> None:
        """One that is to be used once has been used."""
        known = state.queue.requests.get(key)
        drawn = known.request.reservation if known else None
        reservation = state.reservations.reservations.get(drawn) if drawn else None
        if reservation is not None and reservation.body.allocate_once and not reservation.is_over:
            self._note_reservation(state, reservation, now)

    def _forget(self, key: Key) -> None:
        self._timers.drop(key)
        self._tries.pop(key, None)

    def _again(self, state: State, key: Key, now: int) -> None:
        """Nothing can be done for it now: look when its next time comes, or after a while."""
        if isinstance(key, tuple):
            due = min(ends_of(state, key), default=None)
        else:
            due = next_change(state, state.reservations.reservations[key], now)
        if due is None:
            self._forget(key)
        else:
            self._timers.set(key, due if due > now else now + self._pace.retry_max_ms, _phase(state, key))


def _phase(state: State, key: Key) -> Phase:
    if isinstance(key, tuple):
        return Phase.DURATION
    is_active = state.reservations.reservations[key].state is ReservationState.ACTIVE
    return Phase.END if is_active else Phase.START


def _planned(state: State, key: Key, now: int) -> list[Transaction]:
    if isinstance(key, tuple):
        return _alone(expire(state, key, now))
    reservation = state.reservations.reservations[key]
    if reservation.is_over:
        return []
    if reservation.body.end <= now:
        return over(state, reservation, ReservationStatus.EXPIRED, EndCause.OVER, now)
    if reservation.state is ReservationState.ACTIVE:
        cause = _why_done(state, reservation, now)
        if cause is not None:
            return over(state, reservation, ReservationStatus.RELEASED, cause, now)
    elif reservation.body.start <= now:
        return _alone(activate(state, reservation, now))
    return _alone(replan(state, reservation, now))


def _alone(transaction: Transaction | None) -> list[Transaction]:
    return [] if transaction is None else [transaction]


def _why_done(state: State, reservation: Reservation, now: int) -> EndCause | None:
    """Used, where it is to be used once (R94), or unused for as long as it allows (R92)."""
    if reservation.body.allocate_once and state.reservations.drawers.get(reservation.id):
        return EndCause.USED
    idle = unused_by(state, reservation)
    return EndCause.UNUSED if idle is not None and idle <= now else None
