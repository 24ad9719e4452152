"""What each event of a request makes of it. What else the event does, to nodes and usage, is done to the state."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from berth.ids import Attempt, Sequence
from berth.messages.documents import Queueing
from berth.messages.events import (
    AllocationPlaced,
    AllocationsEnded,
    AllocationsReleasing,
    Event,
    How,
    RequestEnded,
    RequestPlaced,
    RequestQueued,
    RequestStatus,
    RequestSubmitted,
    StartPromised,
    WakeOn,
)
from berth.model.charging import charge, is_above_soft, quota_scope, uncharge
from berth.model.cluster import Allocation, AllocationState
from berth.model.queue import RequestState

if TYPE_CHECKING:
    from berth.model.ledger import State

STATE_AFTER: dict[How, AllocationState] = {
    How.RELEASED: AllocationState.RELEASED,
    How.EVICTED: AllocationState.EVICTED,
    How.EXPIRED: AllocationState.EXPIRED,
    How.LOST: AllocationState.LOST,
}


def _request_submitted(
    state: "State", before: RequestState | None, event: Event, data: RequestSubmitted, at: int, sequence: Sequence
) -> RequestState:
    request = data.request
    same = request.id == event.request and request.namespace == event.namespace
    assert same, f"I8: the event of {event.key} carries the body of {request.key}"
    assert before is None, f"I8: {event.key} is submitted twice"
    state.demand.submitted(request)
    return RequestState(
        request=request,
        digest=data.digest,
        status=RequestStatus.QUEUED,
        attempt=Attempt(1),
        order=sequence,
        submitted_at=at,
        decided=sequence,
        decided_at=at,
        traceparent=event.traceparent,
    )


def _known(before: RequestState | None, event: Event) -> RequestState:
    assert before is not None, f"I8: {event.type} of {event.key}, which nobody submitted"
    return before


def _request_queued(
    _state: "State", before: RequestState | None, event: Event, data: RequestQueued, _at: int, _sequence: Sequence
) -> RequestState:
    return _known(before, event)._replace(
        status=RequestStatus.QUEUED,
        reasons=data.reasons,
        wake=data.wake,
        evaluated_at=data.evaluated_at,
    )


def _request_placed(
    state: "State", before: RequestState | None, event: Event, data: RequestPlaced, at: int, sequence: Sequence
) -> RequestState:
    request = _known(before, event)
    _left_the_queue(state, request, sequence)
    state.touch(WakeOn.PLACEMENT, "", sequence)
    for placed in data.allocations:
        allocation = new_allocation(request, placed, at=at, sequence=sequence)
        state.cluster.add(allocation)
        charge(state, allocation)
    if is_above_soft(state, request.request.namespace):
        state.touch(WakeOn.RECLAIM, quota_scope(state, request.request.namespace), sequence)
    return request.placed(tuple([placed.id for placed in data.allocations]))


def _left_the_queue(state: "State", before: RequestState, sequence: Sequence) -> None:
    """Whoever waits behind it in a namespace that is strict_fifo may be the first now (R73)."""
    if before.status is RequestStatus.QUEUED:
        quota = state.quotas.quotas.get(before.request.namespace)
        if quota is not None and quota.queueing is Queueing.STRICT_FIFO:
            state.touch(WakeOn.QUEUE, before.request.namespace, sequence)


def new_allocation(request: RequestState, placed: AllocationPlaced, *, at: int, sequence: Sequence) -> Allocation:
    """The allocation that `RequestPlaced` brings about (also what a scheduler assumes before it is committed)."""
    body = request.request
    return Allocation(
        id=placed.id,
        namespace=body.namespace,
        request=body.id,
        node=placed.node,
        charge=body.charge if placed.charge == body.charge else placed.charge,  # one object for all that are alike
        state=AllocationState.PLACED,
        labels=body.labels,
        priority=body.priority,
        anti_affinity=body.anti_affinity,
        placed_at=at,
        ends_at=None if body.duration_seconds is None else at + body.duration_seconds * 1000,
        reservation=body.reservation,
        sequence=sequence,
    )


def _start_promised(
    _state: "State", before: RequestState | None, event: Event, data: StartPromised, _at: int, _sequence: Sequence
) -> RequestState:
    return _known(before, event)._replace(promised_start=data.start)


def _allocations_releasing(
    state: "State", before: RequestState | None, event: Event, data: AllocationsReleasing, _at: int, sequence: Sequence
) -> RequestState:
    request = _known(before, event)
    for name in data.ids:
        allocation = state.cluster.allocations[request.request.namespace, name]
        state.cluster.change(
            allocation.moved(
                AllocationState.RELEASING, until=data.until, how=data.how, reason=data.reason, sequence=sequence
            )
        )
    return request


def _allocations_ended(
    state: "State", before: RequestState | None, event: Event, data: AllocationsEnded, at: int, sequence: Sequence
) -> RequestState:
    request = _known(before, event)
    namespace = request.request.namespace
    for name in data.ids:
        ending = state.cluster.allocations[namespace, name]
        assert ending.is_live, f"I8: {name} ends twice"
        state.cluster.change(
            ending.moved(STATE_AFTER[data.how], how=data.how, reason=data.reason, until=None, sequence=sequence)
        )
        uncharge(state, ending, at)
    state.touch(WakeOn.CAPACITY, "", sequence)
    state.touch(WakeOn.QUOTA, quota_scope(state, namespace), sequence)
    gone = set(data.ids)
    return request._replace(live=tuple(name for name in request.live if name not in gone))


def _request_ended(
    state: "State", before: RequestState | None, event: Event, data: RequestEnded, _at: int, sequence: Sequence
) -> RequestState:
    request = _known(before, event)
    _left_the_queue(state, request, sequence)
    assert not request.live, f"I13: {event.key} ends with live allocations"
    return request._replace(status=data.status, ended=data.reason, reasons=data.reasons, wake=())


REQUEST_FOLDS: dict[type, Callable[["State", RequestState | None, Event, Any, int, Sequence], RequestState]] = {
    RequestSubmitted: _request_submitted,
    RequestQueued: _request_queued,
    RequestPlaced: _request_placed,
    StartPromised: _start_promised,
    AllocationsReleasing: _allocations_releasing,
    AllocationsEnded: _allocations_ended,
    RequestEnded: _request_ended,
}
"""Events of a request. Each answers what the request is afterwards; the state itself keeps that, once for all
events of a transaction.
"""
