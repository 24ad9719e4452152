"""Gauges of who waits and who uses what of the quotas, computed from the folded state. Pure.

Time in the queue is counted in the ledger's time: it stands still while nothing is recorded.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from berth.ids import Namespace
from berth.model import entitlement
from berth.model.ledger import State
from berth.model.loans import loans
from berth_console.web.read_models import Gauge

INFINITE = float("inf")


def queue_gauges(state: State) -> Iterator[Gauge]:
    """How many wait for which reason, and how long, by namespace; a request counts once, under its first reason."""
    lengths: Counter[tuple[Namespace, str]] = Counter()
    waited: dict[Namespace, list[int]] = {}
    for key in state.queue.waiting:
        known = state.queue.requests[key]
        lengths[key[0], known.reasons[0].code.value if known.reasons else "none"] += 1
        waited.setdefault(key[0], []).append(state.at - known.waiting_since)
    for (namespace, reason), count in sorted(lengths.items()):
        yield Gauge("berth.queue.length", (("namespace", namespace), ("reason", reason)), count)
    for namespace, times in sorted(waited.items()):
        yield Gauge("berth.queue.time", (("namespace", namespace), ("statistic", "max")), max(times) / 1000)
        mean = sum(times) / len(times) / 1000
        yield Gauge("berth.queue.time", (("namespace", namespace), ("statistic", "mean")), mean)


def quota_gauges(state: State) -> Iterator[Gauge]:
    """Usage of each namespace that has a quota by class, and its dominant share (R71)."""
    classed = {namespace: entitlement.classes(state, namespace) for namespace in sorted(state.quotas.quotas)}
    for namespace, found in classed.items():
        yield from _amounts("berth.quota.guaranteed", namespace, found.guaranteed)
    for namespace, found in classed.items():
        yield from _amounts("berth.quota.borrowed", namespace, found.borrowed)
    for namespace, found in classed.items():
        yield from _amounts("berth.quota.burst", namespace, found.burst)
    lent: Counter[tuple[str, str]] = Counter()
    for loan in loans(state):
        if not loan.is_cohort:
            lent[loan.lender, loan.dimension] += loan.amount
    for (namespace, dimension), amount in sorted(lent.items()):
        yield Gauge("berth.quota.lent", (("dimension", dimension), ("namespace", namespace)), amount)
    for namespace in classed:
        permille = entitlement.share(state, namespace).permille
        share = INFINITE if permille is None else permille / 1000
        yield Gauge("berth.quota.share", (("namespace", namespace),), share)


def _amounts(name: str, namespace: Namespace, amounts: Mapping[str, int]) -> Iterator[Gauge]:
    for dimension, amount in sorted(amounts.items()):
        yield Gauge(name, (("dimension", dimension), ("namespace", namespace)), amount)
