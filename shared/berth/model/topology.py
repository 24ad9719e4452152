"""What runs around a node: affinity, anti-affinity and spread over topology domains (R29–R37).

A domain is all nodes with one value of a topology key; `node` as the key makes each node its own domain.
Allocations are those that consume: placed, releasing, and what a scheduler assumes. How many there are where
is read from the `census` once for a request (`surroundings`) and then asked node by node; a request that says
nothing of its neighbours, where nothing keeps others away, reads nothing at all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import AffinityTerm, Constraint, Mode, Request, SpreadTerm
from berth.model.census import Eligible, Selector, selector
from berth.model.cluster import Node
from berth.model.ledger import State


@dataclass(slots=True, kw_only=True)
class Neighbours:
    """The allocations that one selector finds, counted by domain of `key`. `own`: it finds the request itself."""

    key: str
    selector: Selector
    own: bool
    found: dict[str, int]

    def count(self, domain: str | None, by: int) -> None:
        if domain is not None:
            self.found[domain] = self.found.get(domain, 0) + by

    def on(self, node: Node) -> int:
        """How many there are in the node's domain; 0 where it has none (R30)."""
        domain = node.label(self.key)
        return 0 if domain is None else self.found.get(domain, 0)


@dataclass(slots=True, kw_only=True)
class Spread:
    """One required spread term: how many allocations each domain of an eligible node has (R34–R36)."""

    term: SpreadTerm
    neighbours: Neighbours
    lowest: int = 0

    def settle(self) -> None:
        """Work out the global minimum again: 0 where there are fewer domains than `min_domains` (R35)."""
        found = self.neighbours.found
        self.lowest = 0 if len(found) < self.term.min_domains else min(found.values(), default=0)

    def skew_on(self, node: Node) -> int:
        """The skew if one more instance came to `node`."""
        return self.neighbours.on(node) + (1 if self.neighbours.own else 0) - self.lowest


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """Everything about neighbours that a request asks for, and what keeps it away without its asking.

    `joint`: allocations that match every required affinity term (R32). `repelled`: by topology key, the
    domains from which the anti-affinity of what runs there keeps the request away (R31), with whose it is.
    `near`: preferred terms with their weights, negative for anti-affinity; `even`: preferred spread.
    `eligible`: whether a node's domain counts for spread: ready, and the required constraints and `any_of` hold (R36).
    """

    affinity: list[Neighbours]
    anti_affinity: list[Neighbours]
    spread: list[Spread]
    near: list[tuple[int, Neighbours]]
    even: list[tuple[int, Neighbours]]
    joint: int
    joins: bool
    repelled: dict[str, dict[str, str]]
    eligible: Eligible

    @property
    def says_nothing(self) -> bool:
        """No rule here refuses any node and no preference tells nodes apart."""
        return not (self.restricts or self.near or self.even)

    @property
    def restricts(self) -> bool:
        return bool(self.affinity or self.anti_affinity or self.spread or self.repelled)

    def allows(self, node: Node) -> bool:
        """Whether one more instance may come to `node`, as far as neighbours go; the keys are there."""
        return (
            (not self.affinity or self._is_near(node))
            and not any(neighbours.on(node) for neighbours in self.anti_affinity)
            and not (self.repelled and self._repelled_by(node))
            and all(one.skew_on(node) <= one.term.max_skew for one in self.spread)
        )

    def reasons(self, node: Node) -> list[Reason]:
        """Every neighbourly rule that keeps one more instance off `node`."""
        found: list[Reason] = []
        if self.affinity and not self._is_near(node):
            missing = [one for one in self.affinity if not one.on(node)]
            found += [_reason(ReasonCode.AFFINITY_NOT_MET, _spoken(one)) for one in missing if node.label(one.key)]
        found += [
            _reason(ReasonCode.ANTI_AFFINITY_CONFLICT, _spoken(one)) for one in self.anti_affinity if one.on(node)
        ]
        if owner := self._repelled_by(node):
            found.append(_reason(ReasonCode.ANTI_AFFINITY_CONFLICT, f"of {owner}"))
        found += [_skewed(one, node) for one in self.spread if one.skew_on(node) > one.term.max_skew]
        return found

    def count(self, node: Node, by: int) -> None:
        """An instance of the request comes to `node` (1) or is taken back (-1)."""
        for neighbours in self.everyone():
            if neighbours.own:
                neighbours.count(node.label(neighbours.key), by)
        if self.spread and self.eligible(node):
            for one in self.spread:
                if one.neighbours.own:
                    one.neighbours.count(node.label(one.neighbours.key), by)
                    one.settle()
        if self.joins:
            self.joint += by

    def preference(self, node: Node) -> int:
        """Sum over the preferred terms of weight × allocations in the node's domain; anti-affinity subtracts."""
        return sum(weight * neighbours.on(node) for weight, neighbours in self.near)

    def crowd(self, node: Node) -> int | None:
        """Sum over the preferred spread terms of weight × allocations in the domain; None: a key is missing."""
        if any(node.label(neighbours.key) is None for _, neighbours in self.even):
            return None
        return sum(weight * neighbours.on(node) for weight, neighbours in self.even)

    def _is_near(self, node: Node) -> bool:
        """R29, or R32: the first of those that want to be together may be anywhere."""
        if all(one.on(node) for one in self.affinity):
            return True
        return self.joins and not self.joint and all(node.label(one.key) is not None for one in self.affinity)

    def _repelled_by(self, node: Node) -> str | None:
        for key, domains in self.repelled.items():
            domain = node.label(key)
            if domain is not None and domain in domains:
                return domains[domain]
        return None

    def everyone(self) -> Iterable[Neighbours]:
        """Whom all terms but those of required spread ask about: these count on every node."""
        yield from self.affinity
        yield from self.anti_affinity
        for _, neighbours in self.near:
            yield neighbours
        for _, neighbours in self.even:
            yield neighbours


def has_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether all of `wanted` is there; nothing wanted is always there (R6)."""
    return all(labels.get(key) == value for key, value in wanted.items())


def needs_surroundings(state: State, request: Request) -> bool:
    """Whether neighbours matter at all: without this, nobody counts allocations."""
    return bool(request.affinity or request.anti_affinity or request.spread or state.cluster.repelling)


def surroundings(state: State, request: Request, eligible: Eligible) -> Surroundings:
    """What the terms of `request` ask about, as the census of `state` has it counted."""
    found = Surroundings(
        affinity=[_neighbours(state, term, request) for term in request.affinity if term.mode is Mode.REQUIRED],
        anti_affinity=[
            _neighbours(state, term, request) for term in request.anti_affinity if term.mode is Mode.REQUIRED
        ],
        spread=[
            Spread(term=term, neighbours=_evenly(state, term, request, eligible))
            for term in request.spread
            if term.mode is Mode.REQUIRED
        ],
        near=[
            (sign * term.weight, _neighbours(state, term, request))
            for sign, terms in ((1, request.affinity), (-1, request.anti_affinity))
            for term in terms
            if term.mode is Mode.PREFERRED and term.weight
        ],
        even=[
            (term.weight, _evenly(state, term, request, None))
            for term in request.spread
            if term.mode is Mode.PREFERRED and term.weight
        ],
        joint=0,
        joins=False,
        repelled=_repelled(state, request),
        eligible=eligible,
    )
    if found.affinity:
        found.joins = all(one.own for one in found.affinity)
        together = reduce(Selector.both, (one.selector for one in found.affinity))
        found.joint = state.census.count(None, together).total
    for one in found.spread:
        one.settle()
    return found


def _neighbours(state: State, term: AffinityTerm, request: Request) -> Neighbours:
    whom = selector(term.namespaces or (request.namespace,), term.match_labels)
    counted = state.census.count(term.topology_key, whom).by_domain
    return Neighbours(key=term.topology_key, selector=whom, own=_is_own(whom, request), found=dict(counted))


def _evenly(state: State, term: SpreadTerm, request: Request, eligible: Eligible | None) -> Neighbours:
    """R37: only the request's namespace counts, and an empty selector counts nothing."""
    whom = selector((request.namespace,) if term.match_labels else (), term.match_labels)
    alike = None if eligible is None else (_required(request.constraints), request.any_of)
    counted = state.census.count(term.topology_key, whom, eligible=eligible, alike=alike).by_domain
    return Neighbours(key=term.topology_key, selector=whom, own=_is_own(whom, request), found=dict(counted))


def _is_own(whom: Selector, request: Request) -> bool:
    return whom.selects(request.namespace, request.labels)


def _required(constraints: Iterable[Constraint]) -> tuple[Constraint, ...]:
    return tuple(one for one in constraints if one.mode is Mode.REQUIRED)


def _repelled(state: State, request: Request) -> dict[str, dict[str, str]]:
    """R31: the required anti-affinity of what runs holds against whoever comes."""
    if not state.cluster.repelling:
        return {}
    return state.census.repulsion().of(request.namespace, request.labels)


def _reason(code: ReasonCode, detail: str) -> Reason:
    return Reason(code=code, nodes=1, detail=detail)


def _skewed(one: Spread, node: Node) -> Reason:
    return Reason(
        code=ReasonCode.SPREAD_SKEW,
        nodes=1,
        needed=one.skew_on(node),
        best_available=one.term.max_skew,
        detail=f"{one.term.topology_key}={node.label(one.term.topology_key)}",
    )


def _spoken(neighbours: Neighbours) -> str:
    labels = ",".join(f"{key}={value}" for key, value in neighbours.selector.labels) or "anything"
    return f"{labels} in {neighbours.key}"
