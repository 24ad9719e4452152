"""The events by which allocations leave their node, and what becomes of their requests.

A request that keeps at least `min_count` instances runs on with fewer. Below that all of it leaves and is
queued again, if it says so (`reschedule`), or ends (DESIGN section 4, "Allocation"). These are a victim's
events: they name no attempt.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from berth.ids import RequestKey, Sequence
from berth.messages.envelope import RECORD_BYTES_MAX, RECORD_EVENTS_MAX
from berth.messages.events import (
    AllocationsEnded,
    AllocationsReleasing,
    Event,
    EventData,
    How,
    RequestEnded,
    RequestQueued,
    RequestStatus,
    Transaction,
    Wake,
    WakeOn,
    about,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Reschedule
from berth.model.cluster import Allocation, AllocationState
from berth.model.ledger import State
from berth.model.queue import RequestState
from berth.wire.codec import encode_event

ROOM = (Wake(on=WakeOn.CAPACITY), Wake(on=WakeOn.NODES))
AT_ONCE = Sequence(0)
"""A request that was judged before anything else happened is driven at once."""
EVENTS_MAX = RECORD_EVENTS_MAX - 12
BYTES_MAX = RECORD_BYTES_MAX - 16 * 1024
"""A transaction fits one record, with room for what stands beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """How placed allocations leave, and why; releasing ones end as they were going to.

    `at`: milliseconds UTC, from which grace counts. Not `graceful`: their node goes at once; siblings that
    leave with them elsewhere still have their grace.
    """

    how: How
    reason: ReasonCode
    at: int
    graceful: bool = True


def departures(state: State, leaving: Iterable[Allocation], cause: Cause) -> list[tuple[Event, ...]]:
    """The events of each request that loses `leaving`, one group a request, ordered by request."""
    by_request: dict[RequestKey, list[Allocation]] = {}
    for allocation in sorted(leaving, key=lambda one: one.key):
        by_request.setdefault(allocation.request_key, []).append(allocation)
    return [
        _departure(state, state.queue.requests[key], allocations, cause)
        for key, allocations in sorted(by_request.items())
    ]


def _departure(state: State, known: RequestState, leaving: list[Allocation], cause: Cause) -> tuple[Event, ...]:
    request = known.request
    live = [state.cluster.allocations[request.namespace, name] for name in known.live]
    gone = {one.id for one in leaving}
    placed = [one for one in live if one.state is AllocationState.PLACED]
    staying = [one for one in placed if one.id not in gone]
    struck = len(staying) < len(placed)
    siblings = staying if struck and len(staying) < request.needed else []
    abrupt = cause.how is How.LOST or not cause.graceful
    graceful = siblings if abrupt else [one for one in placed if one.id in gone] + siblings
    if not request.grace_seconds:
        graceful = []
    ended: dict[How, list[Allocation]] = {}
    for one in (*leaving, *siblings):
        if one not in graceful:
            ended.setdefault(_how(one, cause, is_sibling=one.id not in gone), []).append(one)
    events: list[EventData] = [
        AllocationsEnded(ids=tuple(one.id for one in those), how=how, reason=_why(those, cause))
        for how, those in ended.items()
    ]
    if graceful:
        until = cause.at + request.grace_seconds * 1000
        ids = tuple(one.id for one in graceful)
        events.append(AllocationsReleasing(ids=ids, how=How.EVICTED, reason=cause.reason, until=until))
    how = cause.how if struck else _how(leaving[-1], cause, is_sibling=False)
    events += _standing(
        known,
        RequestQueued(
            reasons=(Reason(code=cause.reason),),
            wake=ROOM,
            evaluated_at=AT_ONCE if graceful else state.sequence,  # nothing becomes free yet that would wake it
        ),
        RequestEnded(status=RequestStatus(how.value), reason=_why(leaving, cause)),
        waits=struck and len(siblings) == len(staying) and request.reschedule is Reschedule.ON_LOSS,
        left=len(live) - sum(len(those) for those in ended.values()),
    )
    return tuple(about(known.key, data) for data in events)


def _how(allocation: Allocation, cause: Cause, *, is_sibling: bool) -> How:
    if allocation.state is AllocationState.RELEASING:
        assert allocation.how is not None
        return allocation.how
    return How.EVICTED if is_sibling else cause.how


def _why(ending: list[Allocation], cause: Cause) -> ReasonCode:
    """The cause, unless all of them were leaving anyway."""
    struck = any(one.state is AllocationState.PLACED for one in ending)
    return cause.reason if struck else ending[0].reason or cause.reason


def _standing(
    known: RequestState, queued: RequestQueued, ended: RequestEnded, *, waits: bool, left: int
) -> list[EventData]:
    """Whether the request waits again, or is over with its last live allocation, or runs on."""
    if known.status is not RequestStatus.PLACED:
        return []
    if waits:
        return [queued]
    return [] if left else [ended]


def packed(groups: Iterable[tuple[Event, ...]], *, first: Transaction = ()) -> list[Transaction]:
    """`first` and the groups in as few transactions as fit one record each; a group is never torn."""
    transactions: list[list[Event]] = [list(first)]
    size = sum(len(encode_event(event)) for event in first)
    for group in groups:
        grows = sum(len(encode_event(event)) + 16 for event in group)
        full = len(transactions[-1]) + len(group) > EVENTS_MAX or size + grows > BYTES_MAX
        if transactions[-1] and full:
            transactions.append([])
            size = 0
        transactions[-1].extend(group)
        size += grows
    return [tuple(events) for events in transactions if events]
