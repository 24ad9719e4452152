"""What ends with time: windows, what draws on them, and the durations of allocations. Pure; milliseconds UTC."""

from collections.abc import Iterable, Iterator

from berth.ids import AllocationId, RequestKey, Sequence
from berth.messages.commands import Refusal
from berth.messages.documents import OnExpiry
from berth.messages.envelope import RECORD_BYTES_MAX, RECORD_EVENTS_MAX
from berth.messages.events import (
    AllocationsEnded,
    AllocationsOverran,
    Event,
    How,
    ReservationEnded,
    Transaction,
    about,
)
from berth.messages.reasons import ReasonCode
from berth.messages.reservation_events import EndCause, ReservationCreated, ReservationStatus
from berth.model.charging import draws_on
from berth.model.check import accept
from berth.model.cluster import Allocation, AllocationState
from berth.model.ledger import State
from berth.model.queue import RequestState
from berth.model.reservation import Reservation, ReservationState
from berth.model.reservation_rules import is_due
from berth_reservation.booking import attempt
from berth_reservation.departures import departure, notice
from berth_reservation.recurrence import next_occurrence

EVENTS_MAX = RECORD_EVENTS_MAX - 64
BYTES_MAX = RECORD_BYTES_MAX // 2
"""A part stays well inside one record, whose head and digests need room too."""

EVENT_BYTES = 512
"""An event without its ids, generously."""


def over(
    state: State, reservation: Reservation, status: ReservationStatus, cause: EndCause, at: int
) -> list[Transaction]:
    """End the reservation at `at`. With `on_expiry: evict`, what draws on it goes first: in the same transaction, or
    in as many as one record each can hold; the last of them ends the reservation and books the next of its series.
    """
    parts: list[list[Event]] = [[]]
    if status is ReservationStatus.EXPIRED and reservation.body.on_expiry is OnExpiry.EVICT:
        for key, names in drawers_of(state, reservation).items():
            events = _taken_along(state, reservation, key, names, at)
            if _is_full(parts[-1], events):
                parts.append([])
            parts[-1] += events
    parts[-1].append(ended_event(reservation, status, cause))
    parts[-1] += following(state, reservation, [tuple(part) for part in parts], at)
    return [tuple(part) for part in parts]


def ended_event(reservation: Reservation, status: ReservationStatus, cause: EndCause) -> Event:
    data = ReservationEnded(reservation=reservation.id, status=status, cause=cause)
    return Event(data, reservation.namespace)


def _taken_along(
    state: State, reservation: Reservation, key: RequestKey, names: list[AllocationId], at: int
) -> list[Event]:
    """Its time is over with that of the reservation: at once, or when its grace is over too."""
    body = reservation.body
    until = body.end + body.grace_seconds * 1000
    if until > at:
        return notice(state, key, names, How.EXPIRED, ReasonCode.RESERVATION_OVER, until=until)
    return departure(state, key, names, How.EXPIRED, ReasonCode.RESERVATION_OVER)


def following(state: State, reservation: Reservation, ending: Iterable[Transaction], at: int) -> list[Event]:
    """The next window of its series, held on what is free when `ending` is done; pending while there is no room."""
    body = next_occurrence(state, reservation.body, at)
    if body is None:
        return []
    with state.journal.trial():
        for transaction in ending:
            if accept(state, transaction, at, Sequence(state.sequence + 1)) is not None:
                return []  # the leader will refuse that too: it is looked at again
        tried = attempt(state, body, reservation.namespace, reservation.digest, at)
    if not isinstance(tried, Refusal):
        return list(tried)
    return [Event(ReservationCreated(reservation=body, digest=reservation.digest), reservation.namespace)]


def drawers_of(state: State, reservation: Reservation) -> dict[RequestKey, list[AllocationId]]:
    """What draws on it, by request."""
    found: dict[RequestKey, list[AllocationId]] = {}
    if reservation.state is not ReservationState.ACTIVE:
        return found
    for node, _ in reservation.holds:
        for allocation in state.cluster.on_node(node).values():
            owner = draws_on(state, allocation)
            if owner is not None and owner.id == reservation.id:
                found.setdefault(allocation.request_key, []).append(allocation.id)
    return found


def _is_full(part: list[Event], more: list[Event]) -> bool:
    return bool(part) and not fits_one_record(part + more)


def fits_one_record(events: list[Event]) -> bool:
    return len(events) <= EVENTS_MAX and _size(events) <= BYTES_MAX


def _size(events: list[Event]) -> int:
    named = (event.data.ids for event in events if isinstance(event.data, AllocationsEnded))
    return EVENT_BYTES * len(events) + sum(len(name) + 3 for names in named for name in names)


def next_change(state: State, reservation: Reservation, now: int) -> int | None:
    """When something is due for it; a time in the past is due at once. None: never, it is over.

    One that is in use cannot be idle for long enough sooner than its whole idle time from now.
    """
    body = reservation.body
    match reservation.state:
        case ReservationState.PENDING | ReservationState.HELD:
            return body.start
        case ReservationState.ACTIVE:
            if body.allocate_once and state.reservations.drawers.get(reservation.id):
                return now
            idle = unused_by(state, reservation)
            seconds = body.release_if_unused_after_seconds
            if idle is None and seconds is not None:
                idle = now + seconds * 1000
            return body.end if idle is None else min(idle, body.end)
        case _:
            return None


def unused_by(state: State, reservation: Reservation) -> int | None:
    """When an active reservation has been idle for as long as it allows; None: in use, or it allows any time (R92)."""
    seconds = reservation.body.release_if_unused_after_seconds
    since = state.reservations.idle_since.get(reservation.id)
    return None if seconds is None or since is None else since + seconds * 1000


# --- durations --------------------------------------------------------------------------------------------


def ends_of(state: State, key: RequestKey) -> Iterator[int]:
    """When the durations of a request's placed allocations are over, and what follows from that."""
    known = state.queue.requests.get(key)
    for name in known.live if known else ():
        allocation = state.cluster.allocations[key[0], name]
        by = allocation.ends_at if _may_overrun(allocation) else allocation.gone_by
        if by is not None and allocation.state is AllocationState.PLACED:
            yield by


def _may_overrun(allocation: Allocation) -> bool:
    """It may run longer than it declared, and nobody has said yet that it does."""
    return allocation.overrun_ms != 0 and not allocation.overran


def expire(state: State, key: RequestKey, at: int) -> Transaction | None:
    """End what of a request has had its time at `at`, or say that it overruns; None: neither."""
    known = state.queue.requests.get(key)
    live = [state.cluster.allocations[key[0], name] for name in known.live] if known else []
    due = [one.id for one in live if is_due(state, one, at) and one.ends_at is not None and one.ends_at <= at]
    if known is None:
        return None
    if not due:
        return _overrun(known, live, at)
    is_plain = all(one.state is AllocationState.PLACED for one in live)
    attempt = known.attempt if is_plain else None
    return tuple(departure(state, key, due, How.EXPIRED, ReasonCode.DURATION_OVER, attempt=attempt))


def _overrun(known: RequestState, live: list[Allocation], at: int) -> Transaction | None:
    """What has run as long as it declared goes on, and that is said once."""
    ids = tuple(
        one.id
        for one in live
        if one.state is AllocationState.PLACED and _may_overrun(one) and one.ends_at is not None and one.ends_at <= at
    )
    return (about(known.key, AllocationsOverran(ids=ids), attempt=known.attempt),) if ids else None
