"""Cohorts as trees: what every member may use of what the others leave idle (R66–R71).

Derived from the quotas and what is used, never stored; `entitlement` keeps it as long as the configuration
stays. What must live here: the arithmetic of the trees. What must not: limits that are a namespace's own.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from berth.ids import CohortName, Namespace
from berth.model.quota import Amounts, Cohort, Quota
from berth.resources import Resources

Usage = Callable[[Namespace], Resources]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The dominant share of a member (R71). `permille` is rounded up; None is infinite; 0 comes without dimension.

    `rank` compares shares: whether it is infinite, then the share in parts of a thousand million.
    """

    permille: int | None = 0
    dimension: str | None = None
    rank: tuple[int, int] = (0, 0)


NO_SHARE = Share()


class Member:
    """A namespace or a cohort in a tree; all amounts are by dimension.

    `nominal`: its quota with that of everything below it; `local`: the part that is never lent (R66).
    `used`: what is charged to it (R67); `lent`: the same without what bursts cover, which nobody lent.
    `allowance`: how far a namespace may burst; empty for a cohort.
    """

    __slots__ = ("allowance", "borrowing", "lent", "local", "name", "nominal", "parent", "used", "weight_permille")

    def __init__(self, name: str, *, nominal: Amounts, borrowing: Amounts | None, weight_permille: int) -> None:
        self.name = name
        self.parent: Member | None = None
        self.nominal = dict(nominal)
        self.local: dict[str, int] = {}
        self.borrowing = borrowing
        self.weight_permille = weight_permille
        self.allowance: dict[str, int] = {}
        self.used: dict[str, int] = {}
        self.lent: dict[str, int] = {}

    def keep(self, lending: Amounts | None) -> None:
        """Fix what is never lent: quota beyond the lending limit; no limit lends all (R66, R70)."""
        for dimension, limit in (lending or {}).items():
            self.local[dimension] = max(0, self.nominal.get(dimension, 0) - limit)

    def set_used(self, dimension: str, amount: int) -> None:
        """This namespace uses `amount`; what goes beyond its local quota is charged upwards, exactly (R67)."""
        beyond = max(0, amount - self.nominal[dimension])
        covered = min(beyond, self.allowance.get(dimension, 0))
        change, lent = amount - self.used.get(dimension, 0), amount - covered - self.lent.get(dimension, 0)
        member: Member | None = self
        while member is not None and (change or lent):
            change = member.charge(member.used, dimension, change)
            lent = member.charge(member.lent, dimension, lent)
            member = member.parent

    def charge(self, usage: dict[str, int], dimension: str, change: int) -> int:
        """Add `change` to one of the two usages; answers what of it the parent is charged."""
        before = usage.get(dimension, 0)
        usage[dimension] = after = before + change
        local = self.local.get(dimension, 0)
        return max(0, after - local) - max(0, before - local)

    def available(self, dimension: str) -> int:
        """R68: how much more could be charged here, borrowing included and burst not; negative in debt."""
        return _room(self, self.used.get(dimension, 0), dimension, _used)

    def room(self, dimension: str) -> int:
        """R68 where what the others burst is no debt of this member: nobody lent it, so nobody lacks it."""
        return _room(self, self.used.get(dimension, 0), dimension, _lent)

    def potential(self, dimension: str) -> int:
        """What could be charged here if nothing were used anywhere (the denominator of R71)."""
        nominal = self.nominal.get(dimension, 0)
        if self.parent is None:
            return nominal
        potential = self.local.get(dimension, 0) + self.parent.potential(dimension)
        if self.borrowing is not None and dimension in self.borrowing:
            return min(potential, nominal + self.borrowing[dimension])
        return potential

    def share(self, more: Mapping[str, int] | None = None) -> Share:
        """R71, as it would be with `more` used: 0 for a root and for who does not borrow."""
        parent = self.parent
        if parent is None:
            return NO_SHARE
        best, best_of, dominant = 0, 1, None
        for dimension in sorted(self.nominal):  # equal ratios: the alphabetically first dimension
            wanted = more.get(dimension, 0) if more else 0
            borrowed = self.used.get(dimension, 0) + wanted - self.nominal[dimension]
            if borrowed <= 0:
                continue
            lendable = parent.potential(dimension)
            if lendable > 0 and borrowed * best_of > best * lendable:
                best, best_of, dominant = borrowed, lendable, dimension
        if dominant is None:
            return NO_SHARE
        if self.weight_permille == 0:
            return Share(permille=None, dimension=dominant, rank=(1, best * 10**9 // best_of))
        weighted, of = best * 1000, best_of * self.weight_permille
        return Share(permille=-(-weighted * 1000 // of), dimension=dominant, rank=(0, weighted * 10**9 // of))


def _used(member: Member, dimension: str) -> int:
    return member.used.get(dimension, 0)


def _lent(member: Member, dimension: str) -> int:
    return member.lent.get(dimension, 0)


def _room(member: Member, used: int, dimension: str, usage: Callable[[Member, str], int]) -> int:
    """R68, where `used` stands for the member's own `usage`, and so for what of it is charged upwards."""
    nominal = member.nominal.get(dimension, 0)
    parent = member.parent
    if parent is None:
        return nominal - used
    local = member.local.get(dimension, 0)
    beyond = max(0, used - local)
    above = usage(parent, dimension) - max(0, usage(member, dimension) - local) + beyond
    from_others = _room(parent, above, dimension, usage)
    if member.borrowing is not None and dimension in member.borrowing:
        from_others = min(from_others, nominal - local - beyond + member.borrowing[dimension])
    return max(0, local - used) + from_others


class Lending:
    """All trees of one configuration. A namespace without a cohort is in none of them (R70).

    A cohort that is named but has no document lends and limits nothing by itself.
    """

    def __init__(self, quotas: Mapping[Namespace, Quota], cohorts: Mapping[CohortName, Cohort], used: Usage) -> None:
        self._used = used
        self.cohorts: dict[CohortName, Member] = {}
        self.namespaces: dict[Namespace, Member] = {}
        for name in _cohort_names(quotas.values(), cohorts):
            self.cohorts[name] = _cohort_member(name, cohorts.get(name))
        for quota in quotas.values():
            if quota.cohort is not None:
                self.namespaces[quota.namespace] = _namespace_member(quota, self.cohorts[quota.cohort])
        for name in _deepest_first(cohorts, self.cohorts):
            cohort = cohorts.get(name)
            if cohort is not None and cohort.parent is not None and not is_circular(name, cohorts):
                _join(self.cohorts[name], self.cohorts[cohort.parent], cohort.lending_limit)
        self.refresh(list(self.namespaces))

    def refresh(self, changed: Iterable[Namespace]) -> None:
        """What these namespaces use may be different now."""
        for namespace in changed:
            member = self.namespaces.get(namespace)
            if member is not None:
                used = self._used(namespace)
                for dimension in member.nominal:
                    amount = used.amount(dimension)
                    if amount != member.used.get(dimension, 0):
                        member.set_used(dimension, amount)


def _cohort_names(quotas: Iterable[Quota], cohorts: Mapping[CohortName, Cohort]) -> list[CohortName]:
    """Every cohort that is described or only named, in a fixed order."""
    named = [quota.cohort for quota in quotas if quota.cohort is not None]
    named += [cohort.parent for cohort in cohorts.values() if cohort.parent is not None]
    return sorted({*cohorts, *named})


def _cohort_member(name: CohortName, cohort: Cohort | None) -> Member:
    if cohort is None:
        return Member(name, nominal={}, borrowing=None, weight_permille=1000)
    return Member(name, nominal=cohort.soft, borrowing=cohort.borrowing_limit, weight_permille=cohort.weight_permille)


def _namespace_member(quota: Quota, cohort: Member) -> Member:
    member = Member(
        quota.namespace,
        nominal=nominal_of(quota),
        borrowing=quota.borrowing_limit,
        weight_permille=quota.weight_permille,
    )
    if quota.burst_percent:
        member.allowance = {
            dimension: amount * quota.burst_percent // 100 for dimension, amount in member.nominal.items()
        }
    _join(member, cohort, quota.lending_limit)
    return member


def nominal_of(quota: Quota) -> dict[str, int]:
    """`soft`, and `hard` where `soft` says nothing; a dimension in neither is not governed at all."""
    return {**quota.hard, **quota.soft}


def _join(member: Member, parent: Member, lending: Amounts | None) -> None:
    """R66: the parent's quota grows by what the member lends."""
    member.keep(lending)
    member.parent = parent
    for dimension, amount in member.nominal.items():
        lent = amount - member.local.get(dimension, 0)
        parent.nominal[dimension] = parent.nominal.get(dimension, 0) + lent


def _deepest_first(cohorts: Mapping[CohortName, Cohort], names: Iterable[CohortName]) -> list[CohortName]:
    """Children before parents, so that a cohort joins its parent when it is complete."""
    return sorted(names, key=lambda name: (-len(ancestors(name, cohorts)), name))


def is_circular(name: CohortName, cohorts: Mapping[CohortName, Cohort]) -> bool:
    """Whether the way up from `name` leads into a circle; such a cohort is treated as a root."""
    above = ancestors(name, cohorts)
    last = cohorts.get(above[-1] if above else name)
    return last is not None and last.parent is not None


def ancestors(name: CohortName, cohorts: Mapping[CohortName, Cohort]) -> list[CohortName]:
    """Parent, grandparent … up to the root; in a circle, up to where it closes."""
    found: list[CohortName] = []
    seen = {name}
    cohort = cohorts.get(name)
    while cohort is not None and cohort.parent is not None and cohort.parent not in seen:
        seen.add(cohort.parent)
        found.append(cohort.parent)
        cohort = cohorts.get(cohort.parent)
    return found
