"""May it? What becomes of one request now, on the newest state and what is in flight. Pure."""

from dataclasses import dataclass

from berth.ids import Namespace
from berth.messages.commands import Grant
from berth.messages.documents import EVICTIONS_MAX, Use
from berth.messages.events import Wake, WakeOn
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Borrow, Request, RequestPreemption
from berth.model.charging import quota_scope
from berth.model.claims import claim_of, has_debtors, may_reclaim
from berth.model.entitlement import Assumption, is_stopped, never, shortfall, shortfall_of
from berth.model.feasibility import reservation_reason
from berth.model.ledger import State
from berth.model.priorities import Priorities
from berth.model.victims import candidates, may_preempt, tier_of
from berth.resources import NOTHING, Resources, resources

NO_GRANT = Grant()


@dataclass(frozen=True, slots=True)
class Admit:
    """It may be evaluated; `amount` is assumed to be used by its namespace meanwhile.

    `grant`: what a scheduler may take from others for it.
    """

    amount: Resources
    grant: Grant = NO_GRANT


@dataclass(frozen=True, slots=True)
class Wait:
    """Only what is in flight stands in its way: it waits in memory, in order."""


@dataclass(frozen=True, slots=True)
class Queue:
    """What is committed stands in its way: it is queued in the ledger and wakes on any one of `wake`."""

    reasons: tuple[Reason, ...]
    wake: tuple[Wake, ...]


@dataclass(frozen=True, slots=True)
class Reject:
    """It can never be placed as it is."""

    reasons: tuple[Reason, ...]


Ruling = Admit | Wait | Queue | Reject

ON_QUOTA = (Wake(on=WakeOn.QUOTA),)
ON_QUEUE = (Wake(on=WakeOn.QUEUE),)


def judge(
    state: State,
    request: Request,
    missing: int,
    assumed: Assumption,
    priorities: Priorities | None = None,
    *,
    at: int | None = None,
) -> Ruling:
    """Whether `missing` instances of `request` may be placed at `at`, as far as quota and reservation go.

    `at`: milliseconds UTC, the ledger's time where it is not said.

    `priorities`: kept by who judges often, so that nobody looks for victims where there are none.
    """
    if is_stopped(state, request.namespace):
        return Queue((Reason(code=ReasonCode.NAMESPACE_STOPPED),), ON_QUEUE)
    if request.reservation is not None:
        reason = reservation_reason(state, request)
        if reason is None:
            return _drawing(state, request, _amount(request, missing))
        reason = reason.model_copy(update={"nodes": len(state.cluster.nodes)})  # it is so on every node
        if reason.code is not ReasonCode.RESERVATION_NOT_ACTIVE:
            return Reject((reason,))
        return Queue((reason,), (Wake(on=WakeOn.RESERVATION, name=request.reservation),))
    amount = _amount(request, missing)
    if request.namespace not in state.quotas.quotas:
        return Admit(amount, _grant(state, request, missing))
    too_much = never(state, request)
    if too_much:
        return Reject(too_much)
    at = state.at if at is None else max(at, state.at)
    reasons = shortfall(state, request, amount, at=at)
    if reasons:
        ruling = _at_others_cost(state, request, missing, assumed, priorities or Priorities(state), at)
        return ruling or Queue(reasons, wakes_on(state, request, ON_QUOTA))
    if assumed and shortfall(state, request, amount, assumed, at=at):
        return Wait()
    return Admit(amount, _grant(state, request, missing))


def behind(head: Request) -> Queue:
    """It waits until whoever is before it in its namespace has left the queue (R73)."""
    reason = Reason(code=ReasonCode.BEHIND_ANOTHER, detail=head.id)
    return Queue((reason,), ON_QUEUE)


def wakes_on(state: State, request: Request, wake: tuple[Wake, ...]) -> tuple[Wake, ...]:
    """`wake`, and what makes it worth while to look for work above soft again, where it may take that back."""
    return (*wake, Wake(on=WakeOn.RECLAIM)) if may_reclaim(state, request) else wake


def _drawing(state: State, request: Request, amount: Resources) -> Admit | Queue:
    """The reservation has paid already; drawing moves, never charges twice. What it takes beyond that (R95) is charged
    to the reservation's namespace: what it does not reserve, and with aligned use more than it has left.
    """
    assert request.reservation is not None
    reservation = state.reservations.reservations[request.reservation]
    beyond = amount.beyond(state.reservations.undrawn(reservation))
    if reservation.body.use is Use.RESTRICTED:
        reserved = dict(reservation.body.resources.dimensions())
        beyond = resources({name: more for name, more in beyond.dimensions() if name not in reserved})
    may_borrow = request.borrow is Borrow.ALLOWED
    reasons = shortfall_of(state, reservation.namespace, beyond, may_borrow=may_borrow)
    wake = (Wake(on=WakeOn.RESERVATION, name=reservation.id), Wake(on=WakeOn.CAPACITY), Wake(on=WakeOn.QUOTA))
    return Queue(reasons, wake) if reasons else Admit(NOTHING)


def evicting_wakes_on(state: State, request: Request, wake: tuple[Wake, ...]) -> tuple[Wake, ...]:
    """`wake` of one that has no room, and what may let it evict whom it may not evict now: other limits of its
    namespace; where it may take back, other limits of anybody, or somebody who begins to use more than its soft quota.
    """
    if request.preemption is RequestPreemption.NEVER or request.reservation is not None:
        return wake
    again = Wake(on=WakeOn.RECLAIM) if may_reclaim(state, request) else ON_QUEUE[0]
    return wake if again in wake else (*wake, again)


def _grant(state: State, request: Request, missing: int, *, quota_short: bool = False) -> Grant:
    """What may be evicted for it, but not for more than it needs: less important work of its own namespace (R53),
    and what others of its cohort tree use above soft (R62).
    """
    if missing <= request.count - request.needed:
        return NO_GRANT
    preempt = request.priority > 0 and may_preempt(state, request)
    reclaim = may_reclaim(state, request)
    if not preempt and not reclaim:
        return NO_GRANT
    quota = state.quotas.quotas.get(request.namespace)
    budget = None if quota is None else quota.max_evictions
    return Grant(
        preempt=preempt,
        reclaim=reclaim,
        max_evictions=EVICTIONS_MAX if budget is None else budget,
        quota_short=quota_short,
    )


def _at_others_cost(
    state: State, request: Request, missing: int, assumed: Assumption, priorities: Priorities, at: int
) -> Admit | Wait | None:
    """Where the quota would do without less important work of the namespace, or without what others use above
    soft: a scheduler says whose (R60).

    One after the other: what is in flight for the same namespace may be after the same victims. None: it
    would not do.
    """
    grant, amount = _grant(state, request, missing, quota_short=True), _amount(request, missing)
    claim = claim_of(state, request, amount) if grant.reclaim else None
    is_own = grant.preempt and priorities.is_anybody_below(request.namespace, request.priority)
    if not is_own and (claim is None or not has_debtors(state, claim)):
        return None
    freed: dict[Namespace, Resources] = {}
    for one in candidates(state, request, grant, at, claim):
        if is_own or not tier_of(state, claim, one).is_unfavoured:  # alone, they would leave it borrowing
            freed[one.namespace] = freed.get(one.namespace, NOTHING) + one.charge
    without = {name: NOTHING.minus(gone) for name, gone in freed.items()}
    if not without or shortfall(state, request, amount, without, at=at):
        return None
    return Wait() if request.namespace in assumed else Admit(amount, grant)


def _amount(request: Request, missing: int) -> Resources:
    return request.total if missing == request.count else request.charge.times(missing)


def same_reasons(one: tuple[Reason, ...], other: tuple[Reason, ...]) -> bool:
    """Whether they say the same thing; how many nodes and how much is free changes all the time and is not news."""
    return _substance(one) == _substance(other)


def _substance(reasons: tuple[Reason, ...]) -> list[tuple[ReasonCode, str, str]]:
    return sorted((reason.code, reason.dimension or "", reason.detail or "") for reason in reasons)


def scope_of(state: State, namespace: Namespace) -> str | None:
    """Who shares a limit with `namespace`; None when nothing limits it."""
    return quota_scope(state, namespace) if namespace in state.quotas.quotas else None
