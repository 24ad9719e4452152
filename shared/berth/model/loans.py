"""Who has lent what to whom: what a cohort tree's members use above `soft`, and whose idle quota covers it.

The law needs sums only (`lending`); this says it for people. Nearest first: within the own cohort, then one level
up; there the cohort's own quota first, then members by name. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from berth.ids import CohortName, Namespace
from berth.model import entitlement
from berth.model.ledger import State
from berth.model.lending import Lending, Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan:
    """`lender`: a namespace, or a cohort where `is_cohort`. `amount` is in the dimension's unit."""

    borrower: Namespace
    lender: str
    is_cohort: bool
    dimension: str
    amount: int


def loans(state: State) -> list[Loan]:
    """Every loan, by dimension, borrower and lender. What is borrowed is covered as far as anybody left it idle."""
    trees = entitlement.lending(state.quotas)
    borrowed = {name: entitlement.classes(state, name).borrowed for name in sorted(trees.namespaces)}
    dimensions = sorted({dimension for amounts in borrowed.values() for dimension in amounts})
    found: list[Loan] = []
    for dimension in dimensions:
        wants = {name: amounts[dimension] for name, amounts in borrowed.items() if dimension in amounts}
        ledger = _Matching(state=state, trees=trees, dimension=dimension, wants=wants)
        for name, cohort in sorted(trees.cohorts.items()):
            if cohort.parent is None:
                ledger.settle(name)
        found += sorted(ledger.found, key=lambda loan: (loan.borrower, loan.lender))
    return found


Offer = tuple[str, bool, int]
"""Lender, whether that is a cohort, and how much of its quota lies idle."""


class _Matching:
    """One dimension: what each cohort's borrowers find below it, and what is passed up."""

    def __init__(self, *, state: State, trees: Lending, dimension: str, wants: dict[Namespace, int]) -> None:
        self._state = state
        self._trees = trees
        self._dimension = dimension
        self._wants = wants
        self.found: list[Loan] = []

    def settle(self, name: CohortName) -> tuple[dict[Namespace, int], list[Offer]]:
        """Match below `name`; answers who still wants how much, and what may be lent beyond it."""
        cohort = self._trees.cohorts[name]
        described = self._state.quotas.cohorts.get(name)
        own = 0 if described is None else described.soft.get(self._dimension, 0)
        offers: list[Offer] = [(name, True, own)]
        wants: dict[Namespace, int] = {}
        for namespace, member in sorted(self._trees.namespaces.items()):
            if member.parent is cohort:
                offers.append((namespace, False, self._idle(member)))
                wants[namespace] = self._wants.get(namespace, 0)
        for below, member in sorted(self._trees.cohorts.items()):
            if member.parent is cohort:
                unmet, left = self.settle(below)
                wants |= unmet
                offers += self._within(member, left)
        return self._matched(wants, offers)

    def _idle(self, member: Member) -> int:
        used, local = member.used.get(self._dimension, 0), member.local.get(self._dimension, 0)
        return max(0, member.nominal.get(self._dimension, 0) - max(used, local))

    def _within(self, cohort: Member, offers: list[Offer]) -> Iterator[Offer]:
        """No more than the cohort as a whole may lend."""
        rest = self._idle(cohort)
        for lender, is_cohort, amount in offers:
            yield lender, is_cohort, min(amount, rest)
            rest -= min(amount, rest)

    def _matched(self, wants: dict[Namespace, int], offers: list[Offer]) -> tuple[dict[Namespace, int], list[Offer]]:
        left: list[Offer] = []
        for lender, is_cohort, idle in offers:
            rest = idle
            for borrower, wanted in wants.items():
                amount = min(wanted, rest)
                if amount and borrower != lender:
                    rest -= amount
                    wants[borrower] = wanted - amount
                    self.found.append(
                        Loan(
                            borrower=borrower,
                            lender=lender,
                            is_cohort=is_cohort,
                            dimension=self._dimension,
                            amount=amount,
                        )
                    )
            left.append((lender, is_cohort, rest))
        return wants, left
