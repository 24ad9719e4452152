"""May it? What becomes of one request now, on the newest state and what is in flight. Pure."""

from dataclasses import dataclass

from berth.ids import Namespace
from berth.messages.events import Wake, WakeOn
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.model.charging import quota_scope
from berth.model.entitlement import Assumption, never, shortfall
from berth.model.feasibility import reservation_reason
from berth.model.ledger import State
from berth.resources import NOTHING, Resources


@dataclass(frozen=True, slots=True)
class Admit:
    """It may be evaluated; `amount` is assumed to be used by its namespace meanwhile."""

    amount: Resources


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


def judge(state: State, request: Request, missing: int, assumed: Assumption) -> Ruling:
    """Whether `missing` instances of `request` may be placed now, as far as quota and reservation go."""
    if request.reservation is not None:
        reason = reservation_reason(state, request)
        if reason is None:
            return Admit(NOTHING)  # the reservation has paid already; drawing moves, never charges twice
        if reason.code is not ReasonCode.RESERVATION_NOT_ACTIVE:
            return Reject((reason,))
        return Queue((reason,), (Wake(on=WakeOn.RESERVATION, name=request.reservation),))
    if request.namespace not in state.quotas.quotas:
        return Admit(_amount(request, missing))
    too_much = never(state, request)
    if too_much:
        return Reject(too_much)
    amount = _amount(request, missing)
    reasons = shortfall(state, request, amount)
    if reasons:
        return Queue(reasons, ON_QUOTA)
    if assumed and shortfall(state, request, amount, assumed):
        return Wait()
    return Admit(amount)


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
