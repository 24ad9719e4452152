"""Whose work a request may take: less important work of its own namespace (R53), and in its cohort tree what
others use above their soft quota (R60–R64; SEMANTICS, "Reclaim and preemption under quotas, step by step").

The same functions serve quota service, scheduler and leader. Usage is counted again after each removal: callers
take removed work off `state.quotas` inside a trial. Choice, minimality and nodes belong to the scheduler.
"""

import heapq
from collections.abc import Collection, Iterable, Iterator
from enum import IntEnum

from berth.ids import Namespace, NodeId, RequestKey
from berth.messages.commands import Grant, Refusal, RefusalCode
from berth.messages.documents import Preemption, Reclaim
from berth.messages.requests import Request, RequestPreemption
from berth.model import windows
from berth.model.charging import draws_on, quota_scope
from berth.model.claims import Claim, claim_of, exceeds, level_of, may_reclaim
from berth.model.cluster import Allocation, AllocationState
from berth.model.entitlement import classes, lending, shortfall
from berth.model.ledger import State
from berth.resources import Resources


class Tier(IntEnum):
    """In which order work is taken: burst first, then borrowed, then by priority in the own namespace."""

    BURST = 0
    BORROWED = 1
    UNFAVOURED_BURST = 2
    UNFAVOURED_BORROWED = 3
    """Of others, without advantage over them."""
    OWN = 4

    @property
    def is_unfavoured(self) -> bool:
        """Of others, without advantage over them: only for who borrows nothing."""
        return self in (Tier.UNFAVOURED_BURST, Tier.UNFAVOURED_BORROWED)


Place = tuple[Tier, int, int, str, str]


# --- may anything be taken? -------------------------------------------------------------------------------


def may_preempt(state: State, request: Request) -> bool:
    """Whether `request` may take the room of less important work of its own namespace at all (R53)."""
    return _keeps_off(state, request) is None


def _keeps_off(state: State, request: Request) -> Refusal | None:
    if request.preemption is RequestPreemption.NEVER:
        return _protected(f"{request.id} evicts nobody")
    quota = state.quotas.quotas.get(request.namespace)
    if quota is not None and quota.preemption is Preemption.NEVER:
        return _protected(f"the quota of {request.namespace} lets nobody evict")
    return None


# --- candidates --------------------------------------------------------------------------------------------


def candidates(state: State, request: Request, grant: Grant, at: int, claim: Claim | None = None) -> list[Allocation]:
    """Whom `request` may evict at `at` (milliseconds UTC), in the order in which they are taken (R60).

    Others of the tree first where there is a `claim`, then the own namespace; inside each lower priority first,
    then later `placed_at`, then lower allocation id. Of a request of which something is out of reach (drawn,
    or placed too lately) nothing is taken: its instances leave together. Whether one may still be taken
    after others have been, `why_not_taken` says.
    """
    own = grant.preempt and may_preempt(state, request)
    debtors = _debtors(state, claim) if claim is not None and grant.reclaim else {}
    if not own and not debtors:
        return []
    found: list[Allocation] = []
    protected: set[RequestKey] = set()
    for node in state.cluster.nodes:
        for one in state.cluster.on_node(node).values():
            if one.namespace == request.namespace:
                is_candidate = own and one.priority < request.priority
                youngest = at - grant.min_run_seconds * 1000
            else:
                is_candidate = one.namespace in debtors and claim is not None and _is_reclaimable(claim, one)
                youngest = at - debtors.get(one.namespace, 0)
            if not is_candidate or one.state is not AllocationState.PLACED:
                continue
            if one.key not in state.cluster.allocations:
                continue  # only assumed so far
            if one.placed_at > youngest or draws_on(state, one) is not None:
                protected.add(one.request_key)
            found.append(one)
    reachable = [one for one in found if one.request_key not in protected]
    bursts = {name: _burst_of(state, name) for name in debtors}
    return sorted(reachable, key=lambda one: _place(state, claim, one, bursts.get(one.namespace, ())))


def _debtors(state: State, claim: Claim) -> dict[Namespace, int]:
    """Who uses more than its soft quota of what is asked for, and how long what it runs is spared (ms, R65)."""
    found: dict[Namespace, int] = {}
    for name, member in lending(state.quotas).namespaces.items():
        if name != claim.namespace and exceeds(member, claim.wanted) and level_of(claim, member) is not None:
            found[name] = _spared_seconds(state, name) * 1000
    return found


def _spared_seconds(state: State, namespace: Namespace) -> int:
    """For how long nobody takes back what has begun to run there (R65)."""
    quota = state.quotas.quotas.get(namespace)
    return 0 if quota is None or quota.min_run_seconds is None else quota.min_run_seconds


def _is_reclaimable(claim: Claim, one: Allocation) -> bool:
    """Its priority is within the policy, and it uses something of what is asked for."""
    if claim.policy is Reclaim.LOWER_PRIORITY and one.priority >= claim.priority:
        return False
    return any(one.charge.amount(dimension) for dimension in claim.wanted)


def spared_until(state: State, request: Request, at: int) -> int | None:
    """When the next of what others run may have been spared for long enough (R65), at the latest: look again then.

    None where nobody spares anything. Milliseconds UTC, after `at`.
    """
    if not may_reclaim(state, request):
        return None
    scope = quota_scope(state, request.namespace)
    spared = {
        name: quota.min_run_seconds * 1000
        for name, quota in state.quotas.quotas.items()
        if quota.min_run_seconds and name != request.namespace and quota_scope(state, name) == scope
    }
    if not spared:
        return None
    times = [
        one.placed_at + spared[one.namespace]
        for one in state.cluster.allocations.values()
        if one.state is AllocationState.PLACED and one.namespace in spared
    ]
    return min((time for time in times if time > at), default=at + min(spared.values()))


# --- order --------------------------------------------------------------------------------------------------


def tier_of(state: State, claim: Claim | None, one: Allocation) -> Tier:
    """What of its namespace's usage goes with it: the last rung first (DESIGN section 4, "Quota")."""
    is_own = claim is None or one.namespace == claim.namespace
    return _tier(state, claim, one, () if is_own else _burst_of(state, one.namespace))


def in_order(state: State, claim: Claim | None, those: Iterable[Allocation]) -> Iterator[Allocation]:
    """Those, next to be taken first. A caller that takes work off `state.quotas` on the way is answered from
    what is left: whose burst is used up comes with the borrowers.
    """
    waiting = list(those)
    bursts = {one.namespace: _burst_of(state, one.namespace) for one in waiting}
    heap = [(_place(state, claim, one, bursts[one.namespace]), one) for one in waiting]
    heapq.heapify(heap)
    while heap:
        place, one = heapq.heappop(heap)
        now = _place(state, claim, one, _burst_of(state, one.namespace))
        if now > place:
            heapq.heappush(heap, (now, one))
        else:
            yield one


def _place(state: State, claim: Claim | None, one: Allocation, burst: Collection[str]) -> Place:
    """Where it stands among the candidates: smaller is taken first (R60)."""
    return (_tier(state, claim, one, burst), one.priority, -one.placed_at, one.id, one.namespace)


def _tier(state: State, claim: Claim | None, one: Allocation, burst: Collection[str]) -> Tier:
    if claim is None or one.namespace == claim.namespace:
        return Tier.OWN
    member = lending(state.quotas).namespaces.get(one.namespace)
    level = None if member is None else level_of(claim, member)
    is_burst = any(dimension in claim.wanted and one.charge.amount(dimension) for dimension in burst)
    if level is not None and claim.is_favoured(level):
        return Tier.BURST if is_burst else Tier.BORROWED
    return Tier.UNFAVOURED_BURST if is_burst else Tier.UNFAVOURED_BORROWED


def _burst_of(state: State, namespace: Namespace) -> Collection[str]:
    """The dimensions in which it bursts now; who must not burst, borrows."""
    member = lending(state.quotas).namespaces.get(namespace)
    if member is None or not member.allowance:
        return ()
    return classes(state, namespace).burst.keys()


# --- the law --------------------------------------------------------------------------------------------------


def short_of(state: State, request: Request, amount: Resources, at: int) -> tuple[str, ...]:
    """The dimensions in which the quota alone keeps `amount` from being charged."""
    reasons = shortfall(state, request, amount, at=at)
    return tuple(reason.dimension for reason in reasons if reason.dimension is not None)


def why_not_taken(state: State, claim: Claim, one: Allocation, dimensions: Collection[str]) -> Refusal | None:
    """Why `one`, of another namespace, may not be taken next for what is short in `dimensions` (R61, R64).

    Its namespace, and every cohort below the first one that both share, must use more than its quota of
    something that is short and that goes with it; and nobody falls below its soft quota.
    """
    member = lending(state.quotas).namespaces.get(one.namespace)
    level = None if member is None else level_of(claim, member)
    if member is None or level is None:
        return _protected(f"{one.id} belongs to {one.namespace}, which shares no cohort with {claim.namespace}")
    if claim.policy is Reclaim.LOWER_PRIORITY and one.priority >= claim.priority:
        return _protected(f"{one.id} has priority {one.priority}, not less than {claim.priority} (R62)")
    goes = [dimension for dimension in dimensions if one.charge.amount(dimension)]
    node, shared = member, claim.path[level - 1]
    while node is not None and node.name != shared:
        if not exceeds(node, goes):
            what = ", ".join(goes) or "anything that is short"
            return _protected(f"{one.id} cannot be taken: {node.name} uses no more than its quota of {what} (R61)")
        node = node.parent
    for dimension in goes:
        soft, used = member.nominal.get(dimension), member.used.get(dimension, 0)
        left = used - one.charge.amount(dimension)
        if soft is not None and left < soft <= used:
            return _protected(f"without {one.id} {one.namespace} would use {left} of {dimension}, its soft is {soft}")
    return None


def lawful(
    state: State, request: Request, victims: Iterable[Allocation], at: int, *, nodes: Collection[NodeId]
) -> Refusal | None:
    """Whether `request`, to be placed on `nodes`, may take the room of `victims`, all of them together.

    Own work of strictly lower priority (R53); of others what is above their soft quota in what is short,
    counted again after each (R61), and without advantage over them only where the namespace then borrows
    nothing. Never what draws on a reservation, never more than the quota's `max_evictions`. What is
    leaving already is no victim any more.
    """
    leaving = list(victims)
    own = [one for one in leaving if one.namespace == request.namespace]
    others = [one for one in leaving if one.namespace != request.namespace]
    refusal = _keeps_off(state, request) if own else None
    if refusal is not None:
        return refusal
    for one in leaving:
        if one.state is not AllocationState.PLACED:
            return Refusal(code=RefusalCode.STALE_VICTIM, detail=f"{one.id} is {one.state}, not placed")
        if one.namespace == request.namespace and one.priority >= request.priority:
            return _protected(f"{one.id} has priority {one.priority}, not less than {request.priority}")
        if draws_on(state, one) is not None:
            return _protected(f"{one.id} draws on reservation {one.reservation}")
    quota = state.quotas.quotas.get(request.namespace)
    if quota is not None and quota.max_evictions is not None and len(leaving) > quota.max_evictions:
        return _protected(f"{len(leaving)} would leave, the quota of {request.namespace} allows {quota.max_evictions}")
    return _why_not_reclaimed(state, request, own, others, at, nodes) if others else None


def _why_not_reclaimed(
    state: State,
    request: Request,
    own: list[Allocation],
    others: list[Allocation],
    at: int,
    nodes: Collection[NodeId],
) -> Refusal | None:
    amount = request.charge.times(len(nodes))
    claim = claim_of(state, request, amount)
    if claim is None:
        return _protected(f"{others[0].id} belongs to {others[0].namespace}, and {request.id} takes nothing back")
    dimensions = short_of(state, request, amount, at) or lacking(state, request, nodes)
    dimensions = [dimension for dimension in dimensions if dimension in claim.wanted]
    unfavoured = [one for one in others if tier_of(state, claim, one).is_unfavoured]
    with state.journal.trial():
        for one in in_order(state, claim, others):
            spared = _spared_seconds(state, one.namespace)
            if at < one.placed_at + spared * 1000:
                return _protected(f"{one.id} has run for less than {spared} s (R65)")
            refusal = why_not_taken(state, claim, one, dimensions)
            if refusal is not None:
                return refusal
            state.quotas.release(one.namespace, one.charge)
        for one in own:
            state.quotas.release(one.namespace, one.charge)
        if unfavoured and is_borrowing(state, claim):
            return _protected(f"{unfavoured[0].id} cannot be taken: {request.namespace} would still borrow")
    return None


def is_borrowing(state: State, claim: Claim) -> bool:
    """Whether its namespace would use more than its quota with what the claim wants."""
    member = lending(state.quotas).namespaces[claim.namespace]
    return any(member.used.get(name, 0) + more > member.nominal[name] for name, more in claim.wanted.items())


def lacking(state: State, request: Request, nodes: Iterable[NodeId]) -> tuple[str, ...]:
    """The dimensions in which `nodes` have too little free for the instances that each is to get."""
    wanted: dict[NodeId, int] = {}
    for node in nodes:
        wanted[node] = wanted.get(node, 0) + 1
    found: dict[str, None] = {}
    for node, count in wanted.items():
        free = windows.free_now(state, state.cluster.nodes[node])
        for dimension, more in request.charge.times(count).dimensions():
            if more > free.amount(dimension):
                found[dimension] = None
    return tuple(found)


def _protected(detail: str) -> Refusal:
    return Refusal(code=RefusalCode.CLASS, detail=detail)
