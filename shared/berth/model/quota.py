"""Quotas, cohorts, and what each namespace uses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from berth.ids import CohortName, Namespace, Sequence
from berth.messages.documents import Preemption, Queueing, Reclaim, StopPolicy
from berth.model.decay import Decayed, decayed
from berth.model.tables import DigestedTable, Journal
from berth.resources import NOTHING, Resources

if TYPE_CHECKING:
    from berth.model.lending import Lending

Amounts = Mapping[str, int]
"""By dimension; absent and 0 differ."""
NEVER: Amounts = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """DESIGN section 4, "Quota". A dimension absent from `hard` is unlimited, absent from `soft` it is `hard`.

    A limit of None is no limit at all (R70). `weight_permille`: 1000 is a weight of 1.
    `min_run_seconds`: others take back nothing that has run for less (R65); `max_evictions`: how many
    allocations may leave for one request of the namespace, siblings that must leave with them included.
    """

    namespace: Namespace
    hard: Amounts
    soft: Amounts
    burst_percent: int = 0
    grace_seconds: int | None = None
    cohort: CohortName | None = None
    borrowing_limit: Amounts | None = None
    lending_limit: Amounts | None = None
    weight_permille: int = 1000
    reclaim: Reclaim = Reclaim.ANY
    preemption: Preemption = Preemption.LOWER_PRIORITY
    queueing: Queueing = Queueing.BEST_EFFORT_FIFO
    usage_half_life_seconds: int | None = None
    stop_policy: StopPolicy = StopPolicy.NONE
    min_run_seconds: int | None = None
    max_evictions: int | None = None
    sequence: Sequence

    @property
    def is_stopped(self) -> bool:
        """Whether nothing new is placed (R75)."""
        return self.stop_policy is not StopPolicy.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    name: CohortName
    parent: CohortName | None = None
    soft: Amounts
    borrowing_limit: Amounts | None = None
    lending_limit: Amounts | None = None
    weight_permille: int = 1000
    sequence: Sequence


def _describe_quota(quota: Quota) -> Any:
    return (
        quota.hard,
        quota.soft,
        quota.burst_percent,
        quota.grace_seconds,
        quota.cohort,
        quota.borrowing_limit,
        quota.lending_limit,
        quota.weight_permille,
        quota.reclaim.value,
        quota.preemption.value,
        *_describe_queueing(quota),
        *_describe_eviction(quota),
    )


def _describe_queueing(quota: Quota) -> tuple[Any, ...]:
    """Nothing where nothing is said, so that digests of ledgers from before these fields stay what they were."""
    said = (quota.queueing.value, quota.usage_half_life_seconds, quota.stop_policy.value)
    return () if said == (Queueing.BEST_EFFORT_FIFO.value, None, StopPolicy.NONE.value) else said


def _describe_eviction(quota: Quota) -> tuple[Any, ...]:
    said = (quota.min_run_seconds, quota.max_evictions)
    return () if said == (None, None) else said


def _describe_cohort(cohort: Cohort) -> Any:
    return (cohort.parent, cohort.soft, cohort.borrowing_limit, cohort.lending_limit, cohort.weight_permille)


def _describe_usage(used: Resources) -> Any:
    return used.as_mapping()


def _describe_decayed(past: Decayed) -> Any:
    return (past.amounts, past.at, past.half_life_ms)


@dataclass(frozen=True, slots=True)
class LendingPage:
    """The cohort trees of one configuration. `changed`: namespaces whose usage may have changed since."""

    version: tuple[int, int]
    lending: "Lending"
    changed: dict[Namespace, None]


class Quotas:
    """`used` of a namespace: charges of its live allocations that draw on nothing, and its active reservations
    (or what is drawn of them, where that is more).

    `decayed`: usage over time, of those namespaces whose quota has a half-life. `at`: domain time of the transaction
    that is being folded, milliseconds UTC.
    `above`: since when (milliseconds UTC) a namespace whose quota has a grace period uses more than its `soft`,
    by dimension (R85).
    `page`: derived, not state; `berth.model.entitlement` keeps it and trusts it only while the version agrees.
    """

    def __init__(self, journal: Journal) -> None:
        self.quotas: DigestedTable[Namespace, Quota] = DigestedTable(journal, _describe_quota)
        self.cohorts: DigestedTable[CohortName, Cohort] = DigestedTable(journal, _describe_cohort)
        self.used: DigestedTable[Namespace, Resources] = DigestedTable(journal, _describe_usage)
        self.decayed: DigestedTable[Namespace, Decayed] = DigestedTable(journal, _describe_decayed)
        self.above: DigestedTable[tuple[Namespace, str], int] = DigestedTable(journal, int)
        self.at = 0
        self.page: LendingPage | None = None

    @property
    def configuration(self) -> tuple[int, int]:
        """The same for the same quotas and cohorts."""
        return (self.quotas.digest, self.cohorts.digest)

    def keep_page(self, lending: "Lending") -> LendingPage:
        """Remember `lending`, built from what is there right now."""
        changed = self.page.changed if self.page else self.used.changes()
        changed.clear()
        self.page = LendingPage(self.configuration, lending, changed)
        return self.page

    @property
    def digest(self) -> int:
        tables = (self.quotas, self.cohorts, self.used, self.decayed, self.above)
        return sum(table.digest for table in tables) % 2**64

    def set_quota(self, quota: Quota) -> None:
        before = self.quotas.get(quota.namespace)
        self.quotas.put(quota.namespace, quota)
        if quota.grace_seconds is not None:
            self._note_crossings(quota, self.used_by(quota.namespace), said_before=before)
        elif before is not None:
            self._forget_crossings(before)
        half_life = quota.usage_half_life_seconds
        if half_life is None:
            self._forget_past(quota.namespace)
            return
        past = self.decayed.get(quota.namespace)
        if past is None or past.half_life_ms != half_life * 1000:
            amounts = self.used_over_time(quota.namespace, self.at)
            self.decayed.put(quota.namespace, Decayed(amounts=amounts, at=self.at, half_life_ms=half_life * 1000))

    def remove_quota(self, namespace: Namespace) -> None:
        self._forget_crossings(self.quotas[namespace])
        self.quotas.drop(namespace)
        self._forget_past(namespace)

    def _forget_past(self, namespace: Namespace) -> None:
        if namespace in self.decayed:
            self.decayed.drop(namespace)

    def _note_usage(self, namespace: Namespace, total: Resources) -> None:
        """It is about to use `total`."""
        quota = self.quotas.get(namespace)
        if quota is not None and quota.grace_seconds is not None:
            self._note_crossings(quota, total)

    def _note_crossings(self, quota: Quota, used: Resources, *, said_before: Quota | None = None) -> None:
        """Grace begins where usage first crosses `soft`, and is clear again on return (R85)."""
        if said_before is not None:
            for dimension in said_before.soft:
                if dimension not in quota.soft:
                    self._is_above(quota.namespace, dimension, now=False)
        for dimension, soft in quota.soft.items():
            self._is_above(quota.namespace, dimension, now=used.amount(dimension) > soft)

    def _forget_crossings(self, quota: Quota) -> None:
        for dimension in quota.soft:
            self._is_above(quota.namespace, dimension, now=False)

    def _is_above(self, namespace: Namespace, dimension: str, *, now: bool) -> None:
        before = (namespace, dimension) in self.above
        if now and not before:
            self.above.put((namespace, dimension), self.at)
        elif before and not now:
            self.above.drop((namespace, dimension))

    def grace_ends(self, namespace: Namespace, dimension: str) -> int | None:
        """When its grace above `soft` ends or ended (milliseconds UTC); None: no grace runs."""
        quota = self.quotas.get(namespace)
        since = self.above.get((namespace, dimension)) if self.above else None
        if quota is None or quota.grace_seconds is None or since is None:
            return None
        return since + quota.grace_seconds * 1000

    def used_over_time(self, namespace: Namespace, at: int) -> Mapping[str, int]:
        """Decayed usage at `at` by dimension, in thousandths; empty where the quota has no half-life."""
        past = self.decayed.get(namespace)
        return NEVER if past is None else decayed(past, self.used_by(namespace), at).amounts

    def used_by(self, namespace: Namespace) -> Resources:
        return self.used.get(namespace, NOTHING)

    def charge(self, namespace: Namespace, amount: Resources) -> None:
        if self.decayed:
            self._remember(namespace)
        if amount != NOTHING:
            total = self.used.get(namespace, NOTHING) + amount
            self._note_usage(namespace, total)
            self.used.put(namespace, total)

    def release(self, namespace: Namespace, amount: Resources) -> None:
        if self.decayed:
            self._remember(namespace)
        left = self.used_by(namespace) - amount
        self._note_usage(namespace, left)
        if left != NOTHING:
            self.used.put(namespace, left)
        elif namespace in self.used:
            self.used.drop(namespace)

    def _remember(self, namespace: Namespace) -> None:
        """What the namespace used until now belongs to its past."""
        past = self.decayed.get(namespace)
        if past is not None:
            self.decayed.put(namespace, decayed(past, self.used_by(namespace), self.at))
