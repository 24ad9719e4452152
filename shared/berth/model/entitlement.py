"""What a namespace may be charged: hard limits, and the ladder guaranteed, borrowed, burst (R66–R71, R83).

The same functions serve quota service, scheduler and leader. `hard` is never exceeded; above `soft` a
namespace borrows what its cohort tree lends, and above that it bursts without a lender:
ceiling = min(hard, soft + borrowable + soft × burst_percent // 100).
"""

from collections.abc import Mapping
from typing import Final

from berth.errors import Problem
from berth.ids import CohortName, Namespace
from berth.messages.commands import Refusal, RefusalCode
from berth.messages.decisions import QuotaClasses
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Borrow, Request
from berth.model.ledger import State
from berth.model.lending import Lending, Member, Share, ancestors, is_circular, nominal_of
from berth.model.quota import Amounts, Cohort, Quota, Quotas
from berth.resources import BUILT_IN, CPU, NOTHING, Resources

Assumption = Mapping[Namespace, Resources]
NOBODY: Final[Assumption] = {}
WRITTEN: Final = {CPU: "cpu_cores"}
"""Dimensions that documents call otherwise."""
NO_PATHS: Final[Mapping[str, str]] = {}


class Assumed(dict[Namespace, Resources]):
    """What is in flight, by namespace: it counts as used until the ledger says otherwise.

    It keeps cohort trees of its own, so that asking stays cheap however many namespaces are in flight.
    """

    def __init__(self) -> None:
        super().__init__()
        self._changed: dict[Namespace, None] = {}
        self._committed: dict[Namespace, None] | None = None
        self._version: tuple[int, int] | None = None
        self._lending: Lending | None = None

    def add(self, namespace: Namespace, amount: Resources) -> None:
        self[namespace] = self.get(namespace, NOTHING) + amount
        self._changed[namespace] = None

    def take(self, namespace: Namespace, amount: Resources) -> None:
        """It is settled; exactly what was added goes."""
        left = self[namespace] - amount
        if left == NOTHING:
            del self[namespace]
        else:
            self[namespace] = left
        self._changed[namespace] = None

    def lending(self, quotas: Quotas) -> Lending:
        """The trees as they would be if everything in flight were committed."""
        if self._committed is None:
            self._committed = quotas.used.changes()
        if self._lending is None or self._version != quotas.configuration:
            self._version = quotas.configuration
            self._lending = trees(quotas, self)
        else:
            self._lending.refresh([*self._changed, *self._committed])
        self._changed.clear()
        self._committed.clear()
        return self._lending


def trees(quotas: Quotas, assumed: Assumption) -> Lending:
    """Every cohort tree, built anew, with `assumed` counted as used."""

    def used(namespace: Namespace) -> Resources:
        more = assumed.get(namespace)
        return quotas.used_by(namespace) if more is None else quotas.used_by(namespace) + more

    return Lending(quotas.quotas, quotas.cohorts, used)


def lending(quotas: Quotas, assumed: Assumption = NOBODY) -> Lending:
    """The cohort trees as they are now; kept between calls and brought up to date."""
    if isinstance(assumed, Assumed):
        return assumed.lending(quotas)
    if assumed:
        return trees(quotas, assumed)
    page = quotas.page
    if page is None or page.version != quotas.configuration:
        page = quotas.keep_page(trees(quotas, NOBODY))
    else:
        page.lending.refresh(page.changed)
        page.changed.clear()
    return page.lending


def is_stopped(state: State, namespace: Namespace) -> bool:
    """Whether the namespace is held or drained: nothing new of it is placed (R75)."""
    quota = state.quotas.quotas.get(namespace)
    return quota is not None and quota.is_stopped


# --- may it be charged? ---------------------------------------------------------------------------------


def shortfall(
    state: State, request: Request, amount: Resources, assumed: Assumption = NOBODY, *, at: int | None = None
) -> tuple[Reason, ...]:
    """Why `amount` more may not be charged to the request's namespace at `at`; () when it may.

    `assumed` counts as used beside what is committed. One reason per dimension, in the dimension's unit.
    `at`: milliseconds UTC, the ledger's time where it is not said; with it grace above `soft` runs out (R85).
    """
    may_borrow = request.borrow is Borrow.ALLOWED
    return shortfall_of(state, request.namespace, amount, may_borrow=may_borrow, assumed=assumed, at=at)


def shortfall_of(
    state: State,
    namespace: Namespace,
    amount: Resources,
    *,
    may_borrow: bool,
    assumed: Assumption = NOBODY,
    at: int | None = None,
) -> tuple[Reason, ...]:
    """As `shortfall`, for whoever pays; an owner that must not borrow stays within `soft`."""
    quota = state.quotas.quotas.get(namespace)
    if quota is None or amount == NOTHING:
        return ()
    used = state.quotas.used_by(namespace) + assumed.get(namespace, NOTHING)
    member = None if quota.cohort is None else lending(state.quotas, assumed).namespaces[namespace]
    reasons: list[Reason] = []
    for dimension, wanted in amount.dimensions():
        taken = used.amount(dimension)
        free = quota.hard[dimension] - taken if dimension in quota.hard else None
        if free is not None and wanted > free:
            reasons.append(_short(ReasonCode.QUOTA_HARD, dimension, wanted, free))
            continue
        within_grace = not grace_is_over(state, quota, dimension, at)
        room = _room(quota, member, dimension, taken, may_borrow=may_borrow and within_grace)
        if room is not None and wanted > room:
            code = ReasonCode.QUOTA_CEILING if within_grace else ReasonCode.QUOTA_GRACE_OVER
            reasons.append(_short(code, dimension, wanted, room))
    return tuple(reasons)


def grace_is_over(state: State, quota: Quota, dimension: str, at: int | None = None) -> bool:
    """Whether `soft` is as hard as `hard` by now: used for longer than its grace, or it grants none at all (R85)."""
    if quota.grace_seconds is None or dimension not in quota.soft:
        return False
    ends = state.quotas.grace_ends(quota.namespace, dimension)
    return quota.grace_seconds == 0 or (ends is not None and (state.at if at is None else at) >= ends)


def _short(code: ReasonCode, dimension: str, wanted: int, free: int) -> Reason:
    return Reason(code=code, dimension=dimension, needed=wanted, best_available=max(0, free))


def _room(quota: Quota, member: Member | None, dimension: str, used: int, *, may_borrow: bool) -> int | None:
    """How much fits under the ceiling without `hard`, negative above it; None where nothing is governed."""
    soft = quota.soft.get(dimension, quota.hard.get(dimension))
    if soft is None:
        return None
    below_soft = soft - used
    lent = below_soft if member is None else member.room(dimension)
    return lent + soft * quota.burst_percent // 100 if may_borrow else min(below_soft, lent)


def never(state: State, request: Request) -> tuple[Reason, ...]:
    """Where the request as a whole asks for more than `hard` could ever allow; () when it may fit one day.

    What draws on a reservation is paid for by that.
    """
    quota = state.quotas.quotas.get(request.namespace)
    if quota is None or request.reservation is not None:
        return ()
    return tuple(
        Reason(code=ReasonCode.EXCEEDS_HARD, dimension=dimension, needed=wanted, best_available=quota.hard[dimension])
        for dimension, wanted in request.total.dimensions()
        if dimension in quota.hard and wanted > quota.hard[dimension]
    )


def over_limit(
    state: State, namespace: Namespace, raised: Resources, *, may_borrow: bool, at: int | None = None
) -> Refusal | None:
    """Judged after a whole transaction, in the dimensions it raised: is the namespace above what it may use at `at`?"""
    quota = state.quotas.quotas.get(namespace)
    if quota is None:
        return None
    used = state.quotas.used_by(namespace)
    member = None if quota.cohort is None else lending(state.quotas).namespaces[namespace]
    for dimension, _ in raised.dimensions():
        taken = used.amount(dimension)
        if dimension in quota.hard and taken > quota.hard[dimension]:
            detail = f"{namespace} would use {taken} of {dimension}, its hard quota is {quota.hard[dimension]}"
            return Refusal(code=RefusalCode.QUOTA, detail=detail)
        within_grace = not grace_is_over(state, quota, dimension, at)
        room = _room(quota, member, dimension, taken, may_borrow=may_borrow and within_grace)
        if room is not None and room < 0:
            detail = f"{namespace} would use {taken} of {dimension}, {-room} more than it may"
            return Refusal(code=RefusalCode.QUOTA, detail=detail)
    return None


def borrows(state: State, request: Request, amount: Resources, assumed: Assumption = NOBODY) -> bool:
    """Whether charging `amount` would take the namespace above `soft` (what R72 orders last).

    Where `hard` is no higher than `soft` nothing can be borrowed: there it is short, it does not borrow.
    """
    quota = state.quotas.quotas.get(request.namespace)
    if quota is None:
        return False
    used = state.quotas.used_by(request.namespace) + assumed.get(request.namespace, NOTHING)
    for dimension, wanted in amount.dimensions():
        soft, hard = quota.soft.get(dimension), quota.hard.get(dimension)
        if soft is not None and (hard is None or soft < hard) and used.amount(dimension) + wanted > soft:
            return True
    return False


# --- how usage is classed --------------------------------------------------------------------------------


def classes(state: State, namespace: Namespace) -> QuotaClasses:
    """Usage bottom up: guaranteed up to `soft`, borrowed what the tree lends, burst the rest. Zeros are left out.

    Without a quota document nothing is guaranteed and nothing is classed.
    """
    quota = state.quotas.quotas.get(namespace)
    used = state.quotas.used_by(namespace)
    if quota is None or used == NOTHING:
        return QuotaClasses()
    member = None if quota.cohort is None else lending(state.quotas).namespaces[namespace]
    guaranteed: dict[str, int] = {}
    borrowed: dict[str, int] = {}
    burst: dict[str, int] = {}
    for dimension, amount in used.dimensions():
        soft = quota.soft.get(dimension, quota.hard.get(dimension))
        own = amount if soft is None else min(amount, soft)
        rest = amount - own
        lent = 0 if member is None or soft is None else min(rest, max(0, amount + member.available(dimension) - soft))
        for found, part in ((guaranteed, own), (borrowed, lent), (burst, rest - lent)):
            if part:
                found[dimension] = part
    return QuotaClasses(guaranteed=guaranteed, borrowed=borrowed, burst=burst)


def available(state: State, namespace: Namespace, at: int | None = None) -> dict[str, int | None]:
    """How much more could be charged at `at`, by dimension; negative in debt, None without limit.

    The built-in dimensions always, extended ones where a quota names them.
    """
    quota = state.quotas.quotas.get(namespace)
    if quota is None:
        return dict.fromkeys(BUILT_IN)
    used = state.quotas.used_by(namespace)
    member = None if quota.cohort is None else lending(state.quotas).namespaces[namespace]
    found: dict[str, int | None] = dict.fromkeys(BUILT_IN)
    for dimension in governed(quota):
        taken = used.amount(dimension)
        rooms = [_room(quota, member, dimension, taken, may_borrow=not grace_is_over(state, quota, dimension, at))]
        if dimension in quota.hard:
            rooms.append(quota.hard[dimension] - taken)
        found[dimension] = min(room for room in rooms if room is not None)
    return found


def governed(quota: Quota) -> list[str]:
    """The dimensions that a quota says anything about: built-in ones first, then extended ones by name."""
    said = nominal_of(quota)
    return [name for name in BUILT_IN if name in said] + sorted(name for name in said if name not in BUILT_IN)


def share(state: State, namespace: Namespace, more: Resources = NOTHING, assumed: Assumption = NOBODY) -> Share:
    """The namespace's dominant share (R71) as it would be with `more` charged."""
    quota = state.quotas.quotas.get(namespace)
    if quota is None or quota.cohort is None:
        return Share()
    return lending(state.quotas, assumed).namespaces[namespace].share(dict(more.dimensions()))


# --- numbers that make no sense ---------------------------------------------------------------------------


def configuration_problems(
    quotas: Mapping[Namespace, Quota],
    cohorts: Mapping[CohortName, Cohort],
    *,
    quota_paths: Mapping[str, str] = NO_PATHS,
    cohort_paths: Mapping[str, str] = NO_PATHS,
) -> list[Problem]:
    """What contradicts itself in a whole configuration: soft above hard, lending above soft, circles (R70).

    The paths say where a document names them, and come first; where it does not, the name itself stands.
    """
    problems: list[Problem] = []
    for namespace in sorted(quotas, key=lambda name: (name not in quota_paths, name)):
        quota = quotas[namespace]
        path, nominal = quota_paths.get(namespace, f"quotas.{namespace}"), nominal_of(quota)
        problems += _beyond(f"{path}.soft", quota.soft, quota.hard, "the hard limit")
        problems += _beyond(f"{path}.lending_limit", quota.lending_limit or {}, nominal, "soft (R70)")
    for name in sorted(cohorts, key=lambda name: (name not in cohort_paths, name)):
        if is_circular(name, cohorts):
            above = ancestors(name, cohorts)
            last = cohorts[above[-1] if above else name]
            way = " → ".join([name, *above, last.parent or ""])
            path = cohort_paths.get(name, f"cohorts.{name}")
            problems.append(Problem(path=f"{path}.parent", expected=f"expected a tree, found a circle: {way}"))
    return problems


def _beyond(path: str, amounts: Amounts, limits: Amounts, what: str) -> list[Problem]:
    """Where an amount is above its limit; a dimension without limit is never."""
    return [
        Problem(
            path=f"{path}.{WRITTEN.get(dimension, dimension)}",
            expected=f"expected at most {what}, {limits[dimension]} {dimension}, found {amount}",
        )
        for dimension, amount in sorted(amounts.items())
        if dimension in limits and amount > limits[dimension]
    ]


def configuration_refusal(state: State) -> Refusal | None:
    """Why the quotas and cohorts of `state` must not stand together, or None."""
    problems = configuration_problems(state.quotas.quotas, state.quotas.cohorts)
    return Refusal(code=RefusalCode.INVALID, detail=str(problems[0])) if problems else None
