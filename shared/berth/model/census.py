"""How many allocations a selector finds in each domain of a topology key: counted once, then kept.

What is asked is remembered by (topology key, selector), for required spread also by which nodes count. Asked
again, only those nodes are looked at on which something began, ended or changed since: the answer costs the
same however much runs elsewhere. Changes that were tried and taken back are heard of too, so nothing is stale.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from berth.ids import AllocationKey, Namespace, NodeId
from berth.messages.requests import AffinityTerm, Mode
from berth.model.cluster import Allocation, Cluster, Node

COUNTS_MAX = 512
"""Counts remembered at once; beyond that all are forgotten, and those still asked for are made again."""

Eligible = Callable[[Node], bool]
Pair = tuple[str, str]


class Selector(NamedTuple):
    """Allocations of these namespaces that have all of these labels. No namespace: nobody."""

    namespaces: frozenset[Namespace]
    labels: tuple[Pair, ...]

    def selects(self, namespace: Namespace, labels: Mapping[str, str]) -> bool:
        return namespace in self.namespaces and all(labels.get(key) == value for key, value in self.labels)

    def both(self, other: "Selector") -> "Selector":
        """Whom both select."""
        labels = dict(self.labels)
        contradicts = any(labels.setdefault(key, value) != value for key, value in other.labels)
        namespaces = frozenset[Namespace]() if contradicts else self.namespaces & other.namespaces
        return Selector(namespaces, tuple(sorted(labels.items())))


def selector(namespaces: Iterable[Namespace], labels: Mapping[str, str]) -> Selector:
    return Selector(frozenset(namespaces), tuple(sorted(labels.items())))


class Count:
    """What one selector finds. `by_domain` names the domains of the nodes that count; `total`: on all of these.

    Without a `key` there are no domains. `eligible` None: every node counts; domains without a find are left out.
    """

    def __init__(self, key: str | None, selector: Selector, eligible: Eligible | None) -> None:
        self.by_domain: dict[str, int] = {}
        self.total = 0
        self.heard = 0
        self._key = key
        self._selector = selector
        self._eligible = eligible
        self._nodes: dict[str, int] = {}
        self._parts: dict[NodeId, tuple[str | None, int]] = {}

    def look_at(self, cluster: Cluster, names: Iterable[NodeId]) -> None:
        """Count these nodes anew."""
        for name in names:
            part = self._parts.pop(name, None)
            if part is not None:
                self._add(*part, nodes=-1)
            node = cluster.nodes.get(name)
            if node is not None and (self._eligible is None or self._eligible(node)):
                found = self._on(cluster.on_node(name).values())
                part = self._parts[name] = (node.label(self._key) if self._key else None, found)
                self._add(*part, nodes=1)

    def _on(self, present: Iterable[Allocation]) -> int:
        if not self._selector.namespaces:
            return 0
        return sum(self._selector.selects(one.namespace, one.labels) for one in present)

    def _add(self, domain: str | None, found: int, *, nodes: int) -> None:
        self.total += nodes * found
        if domain is None or (self._eligible is None and not found):
            return
        there = self._nodes[domain] = self._nodes.get(domain, 0) + nodes
        self.by_domain[domain] = self.by_domain.get(domain, 0) + nodes * found
        if not there:
            del self._nodes[domain], self.by_domain[domain]


class Term(NamedTuple):
    """A required anti-affinity term of something that runs: whom it keeps away, within which domains (R31)."""

    selector: Selector
    key: str


class Repulsion:
    """Who keeps whom away from which domain: by term, where it runs.

    Terms are found by one of the labels that they match, so that a request looks only at those about its own.
    """

    def __init__(self) -> None:
        self.heard = 0
        self._terms: dict[Pair | None, dict[Term, dict[str, dict[AllocationKey, None]]]] = {}
        self._parts: dict[NodeId, list[tuple[Term, str, AllocationKey]]] = {}

    def of(self, namespace: Namespace, labels: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """By topology key the domains from which such a request is kept away, with the name of who does it."""
        found: dict[str, dict[str, str]] = {}
        for pair in (None, *labels.items()):
            for term, domains in self._terms.get(pair, {}).items():
                if term.selector.selects(namespace, labels):
                    owners = {domain: "/".join(next(iter(those))) for domain, those in domains.items()}
                    found.setdefault(term.key, {}).update(owners)
        return found

    def look_at(self, cluster: Cluster, names: Iterable[NodeId]) -> None:
        """Take in anew what runs on these nodes."""
        for name in names:
            for term, domain, owner in self._parts.pop(name, ()):
                self._drop(term, domain, owner)
            node = cluster.nodes.get(name)
            part = [] if node is None else list(_repelling(node, cluster.on_node(name).values()))
            for term, domain, owner in part:
                domains = self._terms.setdefault(_bucket(term), {}).setdefault(term, {})
                domains.setdefault(domain, {})[owner] = None
            if part:
                self._parts[name] = part

    def _drop(self, term: Term, domain: str, owner: AllocationKey) -> None:
        terms = self._terms[_bucket(term)]
        owners = terms[term][domain]
        owners.pop(owner, None)
        if not owners:
            del terms[term][domain]
        if not terms[term]:
            del terms[term]


def _bucket(term: Term) -> Pair | None:
    return term.selector.labels[0] if term.selector.labels else None


def _repelling(node: Node, present: Iterable[Allocation]) -> Iterator[tuple[Term, str, AllocationKey]]:
    for one in present:
        for term in one.anti_affinity:
            domain = node.label(term.topology_key)
            if term.mode is Mode.REQUIRED and domain is not None:
                yield Term(_selector_of(term, one.namespace), term.topology_key), domain, one.key


def _selector_of(term: AffinityTerm, namespace: Namespace) -> Selector:
    return selector(term.namespaces or (namespace,), term.match_labels)


CountKey = tuple[str | None, Selector, object]


class Census:
    """The counts of one cluster; it is told what changes there from the moment it is made."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._news = (cluster.nodes.changes(), cluster.used.changes())
        self._log: list[NodeId] = []
        self._counts: dict[CountKey, Count] = {}
        self._repulsion: Repulsion | None = None

    def count(
        self, key: str | None, selector: Selector, *, eligible: Eligible | None = None, alike: object = None
    ) -> Count:
        """As of now; to be read before anything changes. `alike`: equal for those whose `eligible` says the same."""
        self._hear()
        count = self._counts.get((key, selector, alike))
        if count is None:
            if len(self._counts) >= COUNTS_MAX:
                self._counts.clear()
            count = self._counts[key, selector, alike] = Count(key, selector, eligible)
            self._begin(count)
        else:
            self._catch_up(count)
        return count

    def repulsion(self) -> Repulsion:
        """As of now, as `count`."""
        self._hear()
        if self._repulsion is None:
            self._repulsion = Repulsion()
            self._begin(self._repulsion)
        else:
            self._catch_up(self._repulsion)
        return self._repulsion

    def _begin(self, index: Count | Repulsion) -> None:
        index.look_at(self._cluster, self._cluster.nodes)
        index.heard = len(self._log)

    def _catch_up(self, index: Count | Repulsion) -> None:
        if index.heard < len(self._log):
            index.look_at(self._cluster, dict.fromkeys(islice(self._log, index.heard, None)))
            index.heard = len(self._log)

    def _hear(self) -> None:
        """Note on which nodes something was put since the last time."""
        for news in self._news:
            self._log += news
            news.clear()
        if len(self._log) > 4 * len(self._cluster.nodes) + 64:
            self._forget()

    def _forget(self) -> None:
        """Who would have to look at most of the nodes anyway begins anew when it is asked again."""
        self._counts = {key: count for key, count in self._counts.items() if count.heard == len(self._log)}
        if self._repulsion is not None and self._repulsion.heard < len(self._log):
            self._repulsion = None
        self._log.clear()
        for count in self._counts.values():
            count.heard = 0
        if self._repulsion is not None:
            self._repulsion.heard = 0
