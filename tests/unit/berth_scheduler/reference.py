"""A slow, obviously correct reference of filter and fit: every order of every node, every rule by its text.

It shares no code with the model: plain dictionaries, no index, nothing kept.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from berth.messages.requests import AffinityTerm, Constraint, Mode, Request


@dataclass(frozen=True)
class Running:
    node: str
    namespace: str
    labels: dict[str, str]
    cpu: int
    anti_affinity: tuple[AffinityTerm, ...] = ()
    gpu: int = 0
    priority: int = 50


@dataclass(frozen=True)
class Picture:
    """Nodes by name: {"cpu": …, "gpu": …, "labels": …, "schedulable": …, "taints": [(key, effect)]}; what runs."""

    nodes: dict[str, dict[str, Any]]
    running: tuple[Running, ...] = field(default=())

    def with_one(self, request: Request, node: str) -> "Picture":
        asked = request.vector
        one = Running(
            node, request.namespace, request.labels, asked.cpu_millicores, request.anti_affinity, asked.amount("gpu")
        )
        return Picture(self.nodes, (*self.running, one))

    def without(self, those: Iterable[Running]) -> "Picture":
        gone = list(map(id, those))
        return Picture(self.nodes, tuple(one for one in self.running if id(one) not in gone))


def assignments(picture: Picture, request: Request, count: int) -> Iterator[tuple[str, ...]]:
    """Every order of nodes that `count` instances may take one after the other."""
    if count == 0:
        yield ()
        return
    for node in sorted(picture.nodes):
        if allowed(picture, request, node):
            for rest in assignments(picture.with_one(request, node), request, count - 1):
                yield (node, *rest)


def allowed(picture: Picture, request: Request, node: str) -> bool:
    row = picture.nodes[node]
    if not row["schedulable"] or not all(tolerated(taint, request) for taint in row["taints"]):
        return False
    if request.node not in (None, node) or not constraints_hold(row, request):
        return False
    for name in ("cpu", "gpu"):
        used = sum(getattr(one, name) for one in picture.running if one.node == node)
        asked = request.vector.cpu_millicores if name == "cpu" else request.vector.amount(name)
        if asked and used + asked > row[name]:
            return False
    return (
        affinity_holds(picture, request, node)
        and anti_affinity_holds(picture, request, node)
        and spread_holds(picture, request, node)
    )


def tolerated(taint: tuple[str, str], request: Request) -> bool:
    """R19–R23."""
    key, effect = taint
    return effect == "prefer_no_schedule" or any(
        one.key in (None, key) and one.effect in (None, effect) for one in request.tolerations
    )


def constraints_hold(row: dict[str, Any], request: Request) -> bool:
    """R1–R3, R7–R9."""
    required = [one for one in request.constraints if one.mode is Mode.REQUIRED]
    alternatives = request.any_of or ((),)
    return any(
        (bool(terms) or not request.any_of) and all(met(row["labels"], one) for one in (*required, *terms))
        for terms in alternatives
    )


def met(labels: dict[str, str], one: Constraint) -> bool:
    value = labels.get(one.key)
    match one.operator.value:
        case "in" | "equals":
            return value in one.values
        case "not_in" | "not_equals":
            return value not in one.values
        case "exists":
            return value is not None
        case _:
            return value is None


def domain(picture: Picture, node: str, key: str) -> str | None:
    return node if key == "node" else picture.nodes[node]["labels"].get(key)


def selected(labels: dict[str, str], wanted: dict[str, str]) -> bool:
    return wanted.items() <= labels.items()


def affinity_holds(picture: Picture, request: Request, node: str) -> bool:
    """R29, R30, R32."""
    terms = [term for term in request.affinity if term.mode is Mode.REQUIRED]
    if any(domain(picture, node, term.topology_key) is None for term in terms):
        return False
    mine = [one for one in picture.running if one.namespace == request.namespace]
    near = all(
        any(
            selected(one.labels, term.match_labels)
            and domain(picture, one.node, term.topology_key) == domain(picture, node, term.topology_key)
            for one in mine
        )
        for term in terms
    )
    nobody = not any(all(selected(one.labels, term.match_labels) for term in terms) for one in mine)
    first = nobody and all(selected(request.labels, term.match_labels) for term in terms)
    return near or first


def anti_affinity_holds(picture: Picture, request: Request, node: str) -> bool:
    """R29–R31."""

    def same(one: Running, key: str) -> bool:
        here = domain(picture, node, key)
        return here is not None and here == domain(picture, one.node, key)

    for one in picture.running:
        if one.namespace != request.namespace:
            continue
        for term in request.anti_affinity:
            if term.mode is Mode.REQUIRED and selected(one.labels, term.match_labels) and same(one, term.topology_key):
                return False
        for term in one.anti_affinity:
            required = term.mode is Mode.REQUIRED
            if required and selected(request.labels, term.match_labels) and same(one, term.topology_key):
                return False
    return True


def spread_holds(picture: Picture, request: Request, node: str) -> bool:
    """R34–R37."""
    for term in request.spread:
        if term.mode is not Mode.REQUIRED:
            continue
        here = domain(picture, node, term.topology_key)
        if here is None:
            return False
        eligible = [name for name in picture.nodes if constraints_hold(picture.nodes[name], request)]
        counts: dict[str, int] = {}
        for name in eligible:
            its = domain(picture, name, term.topology_key)
            if its is not None:
                counts[its] = counts.get(its, 0) + sum(
                    1
                    for one in picture.running
                    if one.node == name
                    and one.namespace == request.namespace
                    and term.match_labels
                    and selected(one.labels, term.match_labels)
                )
        lowest = min(counts.values(), default=0) if len(counts) >= term.min_domains else 0
        own = 1 if term.match_labels and selected(request.labels, term.match_labels) else 0
        if counts.get(here, 0) + own - lowest > term.max_skew:
            return False
    return True
