"""May this event follow? One function per event type, asked before the event is folded (`check`).

Feasibility and entitlement, never order or score: choice belongs to the services (DESIGN section 1, law 2).
Each answers a refusal, or None when the event is lawful on the state as it stands.
"""

from collections.abc import Callable, Collection
from typing import Any

from berth.ids import AllocationKey, NodeId, RequestKey, allocation_id
from berth.messages.commands import Refusal, RefusalCode
from berth.messages.documents import NodeState
from berth.messages.events import (
    AllocationPlaced,
    AllocationsEnded,
    AllocationsOverran,
    AllocationsReleasing,
    CohortRemoved,
    CohortSet,
    Event,
    How,
    NodeChanged,
    NodeLeft,
    NodeLost,
    NodeRegistered,
    QuotaRemoved,
    QuotaSet,
    RequestEnded,
    RequestPlaced,
    RequestQueued,
    RequestsForgotten,
    RequestStatus,
    RequestSubmitted,
    ReservationActivated,
    ReservationCreated,
    ReservationEnded,
    ReservationHeld,
    StartPromised,
)
from berth.messages.reasons import ReasonCode, sentence
from berth.messages.requests import Effect, Request
from berth.model import entitlement, feasibility, holding, overruns, promises, reservation_rules
from berth.model.cluster import Allocation, AllocationState
from berth.model.ledger import State, why_moved
from berth.model.queue import SETTLED, RequestState
from berth.model.topology import Surroundings

LOST_TAINT = "berth/lost"
GROUNDS_OF_EVICTION = frozenset(
    {
        ReasonCode.DRAINED,
        ReasonCode.NAMESPACE_DRAINED,
        ReasonCode.LOST_WITH_NODE,
        ReasonCode.PREEMPTED,
        ReasonCode.RECLAIMED,
        ReasonCode.RESERVATION_CANCELLED,
        ReasonCode.TAINTED,
    }
)
RESERVATION_ENDS = frozenset(
    {ReasonCode.RESERVATION_UNKNOWN, ReasonCode.RESERVATION_NOT_OWNED, ReasonCode.RESERVATION_ENDED}
)
"""Why a request that names a reservation is rejected: judged again at the tip, which a service's view may lag."""
CLOCKS_DIFFER_MS = 1_000
"""A proposer's clock may be this far ahead of the leader's when it names a time to come."""

Rule = Callable[[State, Event, Any, int], Refusal | None]


def refuse(code: RefusalCode, detail: str) -> Refusal:
    return Refusal(code=code, detail=detail)


def why_not_next(state: State, event: Event, at: int, emptied: Collection[NodeId] = ()) -> Refusal | None:
    """Why `event` may not be folded next at `at` (milliseconds UTC), or None.

    `emptied`: nodes that register again, or leave, in the same transaction: nothing tolerates that.
    """
    if isinstance(event.data, AllocationsEnded):
        return _allocations_ended(state, event, event.data, at, emptied)
    rule = _RULES.get(type(event.data))
    if rule is None:
        return refuse(RefusalCode.INVALID, f"{event.type} is written by the leader alone")
    return rule(state, event, event.data, at)


# --- requests ---------------------------------------------------------------------------------------


def _submitted(state: State, event: Event, data: RequestSubmitted, _at: int) -> Refusal | None:
    key = data.request.key
    if key != event.key:
        return refuse(RefusalCode.INVALID, f"the event of {event.key} carries the body of {key}")
    known = state.queue.requests.get(key)
    if known is not None:
        same = known.digest == data.digest
        return refuse(RefusalCode.SUPERSEDED if same else RefusalCode.CONFLICT, f"{_spoken(key)} is known already")
    moved = why_moved(state, data.request)
    return None if moved is None else refuse(RefusalCode.CONFLICT, f"{_spoken(key)}: {moved}")


def _queued(state: State, event: Event, data: RequestQueued, _at: int) -> Refusal | None:
    request = _open_request(state, event)
    if isinstance(request, Refusal):
        return request
    if not data.reasons:
        return refuse(RefusalCode.INVALID, f"{_spoken(request.key)} would wait without a reason")
    if data.evaluated_at > state.sequence:
        return refuse(RefusalCode.INVALID, f"judged at {data.evaluated_at}, the ledger is at {state.sequence}")
    return None


def _placed(state: State, event: Event, data: RequestPlaced, _at: int) -> Refusal | None:
    request = _open_request(state, event)
    if isinstance(request, Refusal):
        return request
    live = [state.cluster.allocations[request.request.namespace, name] for name in request.live]
    taken = {one.index for one in live if one.state is AllocationState.PLACED}  # a releasing one has its successor
    around = feasibility.surroundings_of(state, request.request)
    for placed in data.allocations:
        found = _instance(state, request, placed, taken, around)
        if isinstance(found, Refusal):
            return found
        taken.add(found)
        if around is not None:
            around.count(state.cluster.nodes[placed.node], 1)  # the next instance sees this one as its sibling
    return None if data.allocations else refuse(RefusalCode.INVALID, f"{_spoken(request.key)} is placed nowhere")


def _instance(
    state: State, request: RequestState, placed: AllocationPlaced, taken: set[int], around: Surroundings | None
) -> int | Refusal:
    """Which instance of its request it is, or why it may not be placed there."""
    body = request.request
    if (body.namespace, placed.id) in state.cluster.allocations:
        return refuse(RefusalCode.SUPERSEDED, f"{placed.id} exists already")
    index = _index_of(body, placed.id)
    if index is None or index in taken:
        return refuse(RefusalCode.INVALID, f"{placed.id} names no free instance of {body.id} (count {body.count})")
    if placed.charge != body.charge:
        return refuse(RefusalCode.INVALID, f"{placed.id} is charged {placed.charge}, its request says {body.charge}")
    node = state.cluster.nodes.get(placed.node)
    if node is None:
        return refuse(RefusalCode.RULE, f"no node {placed.node}")
    if around is None and body.reservation is None and feasibility.admits(node, body):
        return index  # nothing but the node's own row could be against it
    reasons = feasibility.required_reasons(state, node, body, around)
    if reasons:
        return refuse(RefusalCode.RULE, f"{placed.id} on {node.id}: {sentence(reasons[0])}")
    return index


def _index_of(request: Request, name: str) -> int | None:
    parts = name.removeprefix(f"{request.id}.").split(".")
    if not name.startswith(f"{request.id}.") or len(parts) > 2 or not all(part.isdigit() for part in parts):
        return None
    index, replacement = int(parts[0]), int(parts[1]) if len(parts) == 2 else 0
    written_so = name == allocation_id(request.id, index, replacement)
    return index if written_so and index < request.count else None


def _promised(state: State, event: Event, data: StartPromised, at: int) -> Refusal | None:
    request = _open_request(state, event)
    if isinstance(request, Refusal):
        return request
    return promises.refuse_promised(state, request, data, at, takes=feasibility.admits)


def _ended(state: State, event: Event, data: RequestEnded, at: int) -> Refusal | None:
    request = _open_request(state, event)
    if isinstance(request, Refusal):
        return request
    if data.status not in SETTLED:
        return refuse(RefusalCode.INVALID, f"{data.status} is no end")
    if request.live:
        return refuse(RefusalCode.RULE, f"{_spoken(request.key)} still has {len(request.live)} live allocations")
    if data.status is not RequestStatus.REJECTED:
        return None
    if data.reason is ReasonCode.EXCEEDS_HARD and not entitlement.never(state, request.request):
        return refuse(RefusalCode.QUOTA, f"{_spoken(request.key)} may fit the hard quota after all")
    if data.reason in RESERVATION_ENDS:
        found = feasibility.reservation_reason(state, request.request)
        if found is None or found.code is not data.reason:
            return refuse(RefusalCode.RULE, f"{_spoken(request.key)} may draw on its reservation after all")
    deadline = request.request.queue_deadline_seconds
    passed = deadline is not None and at >= request.submitted_at + deadline * 1000
    if data.reason is ReasonCode.QUEUE_DEADLINE_PASSED and not passed:
        return refuse(RefusalCode.TOO_EARLY, f"{_spoken(request.key)} may wait longer")
    return None


def _forgotten(state: State, event: Event, data: RequestsForgotten, _at: int) -> Refusal | None:
    for name in data.requests:
        key = _key(event, name)
        known = state.queue.requests.get(key) if key else None
        if known is None:
            return refuse(RefusalCode.ALREADY_DONE, f"{name} is not known")
        if not known.is_settled:
            return refuse(RefusalCode.RULE, f"{name} is {known.status}, only settled requests are forgotten")
    return None if data.requests else refuse(RefusalCode.INVALID, "nothing to forget")


def _key(event: Event, name: Any) -> RequestKey | None:
    return None if event.namespace is None else (event.namespace, name)


def _open_request(state: State, event: Event) -> RequestState | Refusal:
    """The request an event is of, still undecided or placed."""
    request = state.queue.requests.get(event.key) if event.key else None
    if request is None:
        return refuse(RefusalCode.NOT_FOUND, f"{event.type} of a request that is not known")
    if request.is_settled:
        return refuse(RefusalCode.SUPERSEDED, f"{_spoken(request.key)} is {request.status}, and that is final")
    return request


def _spoken(key: RequestKey) -> str:
    return f"{key[0]}/{key[1]}"


# --- allocations --------------------------------------------------------------------------------------


def _releasing(state: State, event: Event, data: AllocationsReleasing, at: int) -> Refusal | None:
    for name in data.ids:
        allocation = _live(state, event, name)
        if isinstance(allocation, Refusal):
            return allocation
        if allocation.state is not AllocationState.PLACED:
            return refuse(RefusalCode.ALREADY_DONE, f"{name} is releasing already")
        grace = reservation_rules.grace_seconds(state, allocation)
        if data.until > at + grace * 1000 + CLOCKS_DIFFER_MS:
            return refuse(RefusalCode.INVALID, f"{name} may release for {grace} s at most")
        refusal = _may_end(state, event, allocation, data.how, data.reason, at)
        if refusal is not None:
            return refusal
    return None if data.ids else refuse(RefusalCode.INVALID, "no allocation is named")


def _allocations_ended(
    state: State, event: Event, data: AllocationsEnded, at: int, emptied: Collection[NodeId]
) -> Refusal | None:
    for name in data.ids:
        allocation = _live(state, event, name)
        if isinstance(allocation, Refusal):
            return allocation
        if allocation.state is AllocationState.RELEASING and data.how is not How.LOST:
            refusal = _releasing_ends(event, allocation, data.how, at)
        elif data.how is How.LOST:
            refusal = _lost_with_node(state, allocation, at, emptied)
        else:
            refusal = _may_end(state, event, allocation, data.how, data.reason, at)
        if refusal is not None:
            return refusal
    return (
        None
        if len(set(data.ids)) == len(data.ids) > 0
        else refuse(RefusalCode.INVALID, "ids stand twice or not at all")
    )


def _live(state: State, event: Event, name: Any) -> Allocation | Refusal:
    key: AllocationKey | None = None if event.namespace is None else (event.namespace, name)
    allocation = state.cluster.allocations.get(key) if key else None
    if allocation is None or not allocation.is_live:
        return refuse(RefusalCode.STALE_VICTIM, f"{name} is not live")
    if allocation.request_key != event.key:
        return refuse(RefusalCode.INVALID, f"{name} belongs to {_spoken(allocation.request_key)}")
    return allocation


def _releasing_ends(event: Event, allocation: Allocation, how: How, at: int) -> Refusal | None:
    """An agent's `stopped` (a victim's event, without attempt) ends it at once, a timer when its time has come."""
    if how is not allocation.how:
        return refuse(RefusalCode.INVALID, f"{allocation.id} is being {allocation.how}, not {how}")
    if event.attempt is not None and allocation.until is not None and at < allocation.until:
        return refuse(RefusalCode.TOO_EARLY, f"{allocation.id} may release until {allocation.until}")
    return None


def _may_end(
    state: State, event: Event, allocation: Allocation, how: How, reason: ReasonCode, at: int
) -> Refusal | None:
    match how:
        case How.RELEASED:
            if event.attempt is None:
                return refuse(RefusalCode.INVALID, f"{allocation.id} is released for no attempt")
            return None
        case How.EXPIRED:
            releasing = isinstance(event.data, AllocationsReleasing)
            return reservation_rules.refuse_duration_end(state, allocation, at, releasing=releasing)
        case How.LOST:
            return refuse(RefusalCode.INVALID, f"{allocation.id} is lost at once or not at all")
        case How.EVICTED:
            return _evicted(reason)


def _lost_with_node(state: State, allocation: Allocation, at: int, emptied: Collection[NodeId]) -> Refusal | None:
    node = state.cluster.nodes[allocation.node]
    if node.state is not NodeState.LOST or node.lost_at is None:
        return refuse(RefusalCode.STALE_VICTIM, f"{node.id} is not lost")
    if node.id in emptied:
        return None
    request = state.queue.requests[allocation.request_key].request
    patience = lost_toleration_seconds(request)
    if patience is None or at < node.lost_at + patience * 1000:
        return refuse(RefusalCode.TOO_EARLY, f"{allocation.id} tolerates the loss of its node longer")
    return None


def lost_toleration_seconds(request: Request) -> int | None:
    """How long the request's allocations outlive their node's loss; None: for ever (R27, default 0)."""
    given = [
        toleration.seconds
        for toleration in request.tolerations
        if toleration.key in (None, LOST_TAINT) and toleration.effect in (None, Effect.NO_EXECUTE)
    ]
    if not given:
        return 0
    bounded = [max(0, seconds) for seconds in given if seconds is not None]
    return min(bounded) if bounded else None


def _evicted(reason: ReasonCode) -> Refusal | None:
    """Who is taken from whom is judged with the whole transaction (`check`)."""
    if reason in GROUNDS_OF_EVICTION:
        return None
    return refuse(RefusalCode.CLASS, f"{reason} is no ground for an eviction")


# --- nodes and quotas ---------------------------------------------------------------------------------


def _registered(_state: State, _event: Event, data: NodeRegistered, _at: int) -> Refusal | None:
    if not (data.capacity.is_non_negative() and data.reserved.is_non_negative()):
        return refuse(RefusalCode.INVALID, f"{data.node} has less than nothing")
    return None


def _known_node(state: State, _event: Event, data: NodeChanged | NodeLost | NodeLeft, _at: int) -> Refusal | None:
    node = state.cluster.nodes.get(data.node)
    if node is None:
        return refuse(RefusalCode.NOT_FOUND, f"no node {data.node}")
    if isinstance(data, NodeChanged) and data.drain_until is not None and not data.draining:
        return refuse(RefusalCode.INVALID, f"a deadline for {data.node}, which is not to be drained")
    if isinstance(data, NodeLost) and node.state is NodeState.LOST:
        return refuse(RefusalCode.ALREADY_DONE, f"{data.node} is lost already")
    if isinstance(data, NodeLeft) and state.cluster.on_node(data.node):
        return refuse(RefusalCode.RULE, f"{data.node} still has live allocations")
    return None


def _quota_set(_state: State, event: Event, _data: QuotaSet, _at: int) -> Refusal | None:
    return None if event.namespace else refuse(RefusalCode.INVALID, "a quota belongs to a namespace")


def _quota_removed(state: State, event: Event, _data: QuotaRemoved, _at: int) -> Refusal | None:
    if event.namespace is None or event.namespace not in state.quotas.quotas:
        return refuse(RefusalCode.NOT_FOUND, f"{event.namespace} has no quota")
    return None


def _cohort_set(_state: State, _event: Event, data: CohortSet, _at: int) -> Refusal | None:
    return None if data.parent != data.name else refuse(RefusalCode.INVALID, f"{data.name} is its own parent")


def _cohort_removed(state: State, _event: Event, data: CohortRemoved, _at: int) -> Refusal | None:
    known = {str(name) for name in state.quotas.cohorts}
    return None if data.name in known else refuse(RefusalCode.NOT_FOUND, f"no cohort {data.name}")


_RULES: dict[type, Rule] = {
    RequestSubmitted: _submitted,
    RequestQueued: _queued,
    RequestPlaced: _placed,
    StartPromised: _promised,
    RequestEnded: _ended,
    RequestsForgotten: _forgotten,
    AllocationsReleasing: _releasing,
    AllocationsOverran: overruns.refuse_overrun,
    NodeRegistered: _registered,
    NodeChanged: _known_node,
    NodeLost: _known_node,
    NodeLeft: _known_node,
    QuotaSet: _quota_set,
    QuotaRemoved: _quota_removed,
    CohortSet: _cohort_set,
    CohortRemoved: _cohort_removed,
    ReservationCreated: lambda state, event, _data, at: reservation_rules.refuse_created(state, event, at),
    ReservationHeld: lambda state, event, _data, at: holding.refuse_held(state, event, at),
    ReservationActivated: lambda state, event, _data, at: reservation_rules.refuse_activated(state, event, at),
    ReservationEnded: lambda state, event, _data, at: reservation_rules.refuse_ended(state, event, at),
}
