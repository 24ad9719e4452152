"""What follows for a request when time or a reservation takes its allocations: its events in one transaction."""

from collections.abc import Iterable

from berth.ids import AllocationId, Attempt, RequestKey
from berth.messages.events import (
    AllocationsEnded,
    AllocationsReleasing,
    Event,
    How,
    RequestEnded,
    RequestQueued,
    RequestStatus,
    Wake,
    WakeOn,
    about,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Reschedule
from berth.model.cluster import Allocation, AllocationState
from berth.model.ledger import State
from berth.model.queue import RequestState


def departure(
    state: State,
    key: RequestKey,
    leaving: Iterable[AllocationId],
    how: How,
    reason: ReasonCode,
    *,
    attempt: Attempt | None = None,
    waits_again: bool = True,
) -> list[Event]:
    """End `leaving`, all of it when too few of the request would stay, and then the request (or queue it again).

    What is releasing already ends as it was going to, and decides nothing more for a request that waits again.
    `attempt` None: the request is taken along by something else. An evicted request waits again when it says
    so, and is driven at once: its own going is the change. Without `waits_again` it ends, as there is nothing more
    to wait for.
    """
    known = state.queue.requests[key]
    live = [state.cluster.allocations[key[0], name] for name in known.live]
    going = _going(known, live, set(leaving))
    ends = _by_how(going, how, reason)
    events = [
        about(key, AllocationsEnded(ids=tuple(ids), how=ends_as, reason=because), attempt=attempt)
        for ends_as, (because, ids) in ends.items()
    ]
    if len(going) == len(live) and known.status is RequestStatus.PLACED:
        ends_as = how if how in ends else next(iter(ends))
        afterwards = _afterwards(state, known, ends_as, ends[ends_as][0], waits_again=waits_again)
        events.append(about(key, afterwards, attempt=attempt))
    return events


def notice(
    state: State, key: RequestKey, leaving: Iterable[AllocationId], how: How, reason: ReasonCode, *, until: int
) -> list[Event]:
    """Tell `leaving`, and what cannot stay without it, to be gone by `until` (milliseconds UTC)."""
    known = state.queue.requests[key]
    live = [state.cluster.allocations[key[0], name] for name in known.live]
    told = tuple(one.id for one in _going(known, live, set(leaving)) if one.state is AllocationState.PLACED)
    return [about(key, AllocationsReleasing(ids=told, how=how, reason=reason, until=until))] if told else []


def _going(known: RequestState, live: list[Allocation], leaving: set[AllocationId]) -> list[Allocation]:
    placed = [one for one in live if one.state is AllocationState.PLACED]
    staying = [one for one in placed if one.id not in leaving]
    is_broken = len(staying) < len(placed) and len(staying) < known.request.needed
    return live if is_broken else [one for one in live if one.id in leaving]


def _by_how(
    going: Iterable[Allocation], how: How, reason: ReasonCode
) -> dict[How, tuple[ReasonCode, list[AllocationId]]]:
    found: dict[How, tuple[ReasonCode, list[AllocationId]]] = {}
    for one in going:
        releasing = one.state is AllocationState.RELEASING and one.how is not None
        ends_as, because = (one.how, one.reason) if releasing else (how, reason)
        assert ends_as is not None and because is not None
        found.setdefault(ends_as, (because, []))[1].append(one.id)
    return found


def _afterwards(
    state: State, known: RequestState, how: How, reason: ReasonCode, *, waits_again: bool
) -> RequestQueued | RequestEnded:
    if waits_again and how is How.EVICTED and known.request.reschedule is Reschedule.ON_LOSS:
        wake = (Wake(on=WakeOn.CAPACITY), Wake(on=WakeOn.QUOTA))
        return RequestQueued(reasons=(Reason(code=reason),), wake=wake, evaluated_at=state.sequence)
    return RequestEnded(status=RequestStatus(how.value), reason=reason)
