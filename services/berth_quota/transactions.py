"""What quota proposes, as transactions on the newest state. Pure; each is None where there is nothing to do.

Times are milliseconds UTC. The leader checks each again at the tip, so a transaction that is made twice, or
on a view that is a little old, is refused and made anew.
"""

from collections.abc import Iterable

from berth.ids import AllocationId, Attempt, Namespace, RequestId, RequestKey, Sequence
from berth.messages.documents import StopPolicy
from berth.messages.events import (
    AllocationsEnded,
    AllocationsReleasing,
    Event,
    EventData,
    How,
    RequestEnded,
    RequestQueued,
    RequestsForgotten,
    RequestStatus,
    RequestSubmitted,
    StartPromised,
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
from berth_quota.growth import wants_more
from berth_quota.lanes import Waiting

AT_ONCE = Sequence(0)
"""Judged before anything changed: whoever folds it drives it."""

STATUS_AFTER: dict[How, RequestStatus] = {
    How.RELEASED: RequestStatus.RELEASED,
    How.EVICTED: RequestStatus.EVICTED,
    How.EXPIRED: RequestStatus.EXPIRED,
    How.LOST: RequestStatus.LOST,
}


# --- what waits --------------------------------------------------------------------------------------------


def queueing(
    waiting: Waiting,
    reasons: tuple[Reason, ...],
    wake: tuple[Wake, ...],
    evaluated_at: Sequence,
    promise: StartPromised | None = None,
) -> Transaction:
    """It cannot be placed as things stood at `evaluated_at`; any one of `wake` may change that."""
    queued = RequestQueued(reasons=reasons, wake=wake, evaluated_at=evaluated_at)
    said = (queued,) if promise is None else (queued, promise)
    events = [about(waiting.key, one, attempt=waiting.attempt, traceparent=waiting.traceparent) for one in said]
    return (*_opened(waiting), *events)


def rejection(waiting: Waiting, reasons: tuple[Reason, ...]) -> Transaction:
    """It can never be placed."""
    ended = RequestEnded(status=RequestStatus.REJECTED, reason=reasons[0].code, reasons=reasons)
    return (*_opened(waiting), about(waiting.key, ended, attempt=waiting.attempt, traceparent=waiting.traceparent))


def _opened(waiting: Waiting) -> Transaction:
    """`RequestSubmitted` opens a request's first transaction and alone carries its body."""
    if not waiting.is_new:
        return ()
    submitted = RequestSubmitted(request=waiting.request, digest=waiting.digest)
    return (about(waiting.key, submitted, attempt=waiting.attempt, traceparent=waiting.traceparent),)


def is_current(state: State, waiting: Waiting) -> bool:
    """Whether nothing has been decided about it since its attempt was read."""
    known = state.queue.requests.get(waiting.key)
    if known is None:
        return waiting.is_new
    waits = known.status is RequestStatus.QUEUED or wants_more(state, known)
    return waits and known.attempt == waiting.attempt and not waiting.is_new


def deadline_passed(state: State, key: RequestKey) -> Transaction | None:
    """It waited longer than it wanted to; None when it does not wait, or still has something that runs."""
    known = state.queue.requests.get(key)
    if known is None or known.status is not RequestStatus.QUEUED or known.live:
        return None
    return (_ended(known, RequestStatus.REJECTED, ReasonCode.QUEUE_DEADLINE_PASSED),)


# --- what ends ----------------------------------------------------------------------------------------------


def is_released(state: State, key: RequestKey) -> bool:
    """Whether nothing is left to release: settled, or on its way out by a release.

    What is unknown here may be known to the leader: this view may be behind.
    """
    known = state.queue.requests.get(key)
    if known is None:
        return False
    if known.is_settled:
        return True
    if known.status is RequestStatus.QUEUED:
        return False
    return all(_is_leaving(allocation) for allocation in _live(state, known))


def _is_leaving(allocation: Allocation) -> bool:
    return allocation.state is AllocationState.RELEASING and allocation.how is How.RELEASED


def release(state: State, key: RequestKey, now_ms: int, traceparent: str | None = None) -> Transaction | None:
    """Give back what runs, at once or after `grace_seconds`, and end the request with its last allocation.

    None when nothing can be done now: all is done, or what others take from it has not left yet. For what is
    unknown here it is a question: the leader answers `not_found`, or `superseded` where this view is behind.
    """
    known = state.queue.requests.get(key)
    if known is None:
        ended = RequestEnded(status=RequestStatus.RELEASED, reason=ReasonCode.RELEASED)
        return (about(key, ended, attempt=Attempt(1), traceparent=traceparent),)
    if known.is_settled:
        return None
    live = _live(state, known)
    placed = tuple(allocation.id for allocation in live if allocation.state is AllocationState.PLACED)
    if placed and known.request.grace_seconds:
        until = max(now_ms, state.at) + known.request.grace_seconds * 1000
        leaving = AllocationsReleasing(ids=placed, how=How.RELEASED, reason=ReasonCode.RELEASED, until=until)
        return (_of(known, leaving, traceparent),)
    events: list[Event] = []
    if placed:
        ended = AllocationsEnded(ids=placed, how=How.RELEASED, reason=ReasonCode.RELEASED)
        events.append(_of(known, ended, traceparent))
    if len(placed) == len(live):
        over = RequestEnded(status=RequestStatus.RELEASED, reason=ReasonCode.RELEASED)
        events.append(_of(known, over, traceparent))
    return tuple(events) or None


def draining(state: State, key: RequestKey, now_ms: int) -> Transaction | None:
    """All that runs leaves, at once or after `grace_seconds`, and the request waits again if it says so (R75).

    None when the namespace is not (any more) drained, or nothing of the request runs.
    """
    known = state.queue.requests.get(key)
    quota = state.quotas.quotas.get(key[0])
    if known is None or quota is None or quota.stop_policy is not StopPolicy.HOLD_AND_DRAIN:
        return None
    live = _live(state, known)
    placed = tuple(allocation.id for allocation in live if allocation.state is AllocationState.PLACED)
    if not placed:
        return None
    reason = ReasonCode.NAMESPACE_DRAINED
    if known.request.grace_seconds:
        until = max(now_ms, state.at) + known.request.grace_seconds * 1000
        return (_of(known, AllocationsReleasing(ids=placed, how=How.EVICTED, reason=reason, until=until)),)
    events = [_of(known, AllocationsEnded(ids=placed, how=How.EVICTED, reason=reason))]
    if len(placed) == len(live) and known.status is RequestStatus.PLACED:
        events.append(_taken(known, How.EVICTED, reason))
    return tuple(events)


def grace_over(state: State, key: RequestKey, now_ms: int) -> Transaction | None:
    """What was releasing until now ends; a request that thereby loses its last allocation ends, or waits again."""
    known = state.queue.requests.get(key)
    if known is None:
        return None
    live = _live(state, known)
    over = [one for one in live if one.state is AllocationState.RELEASING and (one.until or 0) <= now_ms]
    if not over:
        return None
    events = [_of(known, _ending(over, how)) for how in How if any(one.how is how for one in over)]
    if len(over) == len(live) and known.status is RequestStatus.PLACED:
        events.append(_after(known, over[-1]))
    return tuple(events)


def _ending(over: Iterable[Allocation], how: How) -> AllocationsEnded:
    ending = [one for one in over if one.how is how]
    reason = ending[0].reason
    assert reason is not None, f"{ending[0].id} leaves without a reason"
    return AllocationsEnded(ids=tuple(one.id for one in ending), how=how, reason=reason)


def _after(known: RequestState, last: Allocation) -> Event:
    """Taken from it and it says so: queued again; otherwise it ended as its last allocation did."""
    assert last.how is not None and last.reason is not None, f"{last.id} leaves without saying how"
    return _taken(known, last.how, last.reason)


def _taken(known: RequestState, how: How, reason: ReasonCode) -> Event:
    if how is How.EVICTED and known.request.reschedule is Reschedule.ON_LOSS:
        wake = (Wake(on=WakeOn.CAPACITY), Wake(on=WakeOn.NODES))
        return _of(known, RequestQueued(reasons=(Reason(code=reason),), wake=wake, evaluated_at=AT_ONCE))
    return _ended(known, STATUS_AFTER[how], reason)


def forgetting(state: State, namespace: Namespace, requests: Iterable[RequestId]) -> Transaction | None:
    """Settled requests of one namespace are known no longer."""
    known = state.queue.requests
    settled = tuple(one for one in requests if (found := known.get((namespace, one))) and found.is_settled)
    return (Event(RequestsForgotten(requests=settled), namespace),) if settled else None


# --- small parts --------------------------------------------------------------------------------------------


def _live(state: State, known: RequestState) -> list[Allocation]:
    namespace = known.request.namespace
    return [state.cluster.allocations[namespace, name] for name in known.live]


def _ended(known: RequestState, status: RequestStatus, reason: ReasonCode) -> Event:
    return _of(known, RequestEnded(status=status, reason=reason))


def _of(known: RequestState, data: EventData, traceparent: str | None = None) -> Event:
    return about(known.key, data, attempt=known.attempt, traceparent=traceparent or known.traceparent)


def graces(state: State, allocations: Iterable[AllocationId], namespace: Namespace, *, after: int = -1) -> int | None:
    """The earliest end of grace among these allocations that is later than `after`."""
    ends = [
        allocation.until
        for name in allocations
        if (allocation := state.cluster.allocations[namespace, name]).state is AllocationState.RELEASING
        and allocation.until is not None
        and allocation.until > after
    ]
    return min(ends, default=None)
