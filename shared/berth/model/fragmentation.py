"""Which free capacity the recent shapes can use, and how much of it a placement would strand.

The idea is FGD's ("Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient
Descent", Weng et al., USENIX ATC 2023): free capacity is worth what typical work can do with it. What
differs here: every dimension counts, not the GPU alone, and an extended resource is one number a node, not
a device each.

Whole numbers only. An amount is looked up, not compared with every shape: for each dimension the distinct
demands are sorted, with the set of shapes (a bit each) that ask for no more.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from berth.ids import NodeId
from berth.messages.documents import NodeState
from berth.messages.requests import Request
from berth.model.cluster import Node
from berth.model.demand import Typical
from berth.model.feasibility import suits, takes_work
from berth.model.ledger import State
from berth.model.windows import free_now
from berth.resources import CPU, DISK, INSTANCES, NOTHING, RAM, Resources, resources

FULL = 1_000
"""The best score."""

FINE = 1_000_000
"""The value of free capacity is counted in millionths of a mean request."""

EACH_NODE = "node"
"""What nodes are grouped by when it is no label: each is a group."""

UNVALUED = (DISK, INSTANCES)
"""No part of a value, as disk is no part of bin-pack (R45); whether a shape fits, they do decide."""


Amounts = tuple[int, ...]
"""One for each dimension that a typical shape asks for, in the profile's order."""


class _Ladder(NamedTuple):
    """Of one dimension: the distinct demands, rising; `fitting[k]` are the shapes that ask for one of the first k."""

    steps: Amounts
    fitting: Amounts


class _Room(NamedTuple):
    """What is known of a node with `free`: its value, and how many recent submissions it has no room for."""

    node: Node
    free: Resources
    amounts: Amounts
    value: int
    suited: int
    unfitting: int


class Profile:
    """The typical shapes, laid out for look-ups. Sets of shapes are numbers, the most frequent shape is bit 0."""

    def __init__(self, typical: tuple[Typical, ...]) -> None:
        self.typical = typical
        self.total = sum(one.times for one in typical)
        charges = [one.sample.charge for one in typical]
        self._dimensions = list(dict.fromkeys(name for charge in charges for name, _ in charge.dimensions()))
        self._ladders = [_ladder([charge.amount(name) for charge in charges]) for name in self._dimensions]
        self._asking = {name: _bits(charge.amount(name) > 0 for charge in charges) for name in self._dimensions}
        self._wanted = [
            0 if name in UNVALUED else sum(one.sample.charge.amount(name) * one.times for one in typical)
            for name in self._dimensions
        ]
        self._groups = _alike(typical)
        self._counts: dict[int, int] = {}
        self._charges: dict[Resources, tuple[Amounts, int]] = {}
        self._rooms: dict[NodeId, _Room] = {}

    def suited(self, node: Node) -> int:
        """The shapes that the node's row admits; none where it takes no work."""
        if not takes_work(node):
            return 0
        return sum(shapes for sample, shapes in self._groups if suits(node, sample))

    def fitting(self, free: Resources, among: int) -> int:
        """Those of `among` that have room for one instance in `free` (R39)."""
        return self._fitting(self._amounts(free), among)

    def _fitting(self, amounts: Iterable[int], among: int) -> int:
        for (steps, fitting), amount in zip(self._ladders, amounts, strict=True):
            among &= fitting[bisect_right(steps, amount)]
        return among

    def _amounts(self, free: Resources) -> Amounts:
        return tuple(max(0, free.amount(name)) for name in self._dimensions)

    def count(self, shapes: int) -> int:
        """How many recent submissions had one of `shapes`."""
        known = self._counts.get(shapes)
        if known is None:
            times = (one.times for place, one in enumerate(self.typical) if shapes >> place & 1)
            known = self._counts[shapes] = sum(times)
        return known

    def _value(self, amounts: Amounts) -> int:
        """In millionths of a mean request: Σ over the dimensions of the amount / what the mean request asks for."""
        scale = FINE * self.total
        return sum(amount * scale // all for amount, all in zip(amounts, self._wanted, strict=True) if all)

    def value(self, amount: Resources) -> int:
        """What `amount` is worth, in millionths of a mean request."""
        return self._value(self._amounts(amount))

    def _room(self, node: Node, free: Resources) -> _Room:
        known = self._rooms.get(node.id)
        if known is None or known.free is not free or known.node is not node:
            amounts = self._amounts(free)
            suited = self.suited(node) if known is None or known.node is not node else known.suited
            unfitting = self.total - self.count(self._fitting(amounts, suited))
            known = self._rooms[node.id] = _Room(node, free, amounts, self._value(amounts), suited, unfitting)
        return known

    def keeping(self, node: Node, free: Resources, charge: Resources) -> int | None:
        """Strategy `fragmentation`: 0–1000, the more the less of the node's `free` is stranded by `charge`, which fits.

        Stranded is, as in FGD, Σ over the recent submissions of the value of what is free where their shape does
        not fit. With v the value of what is taken and Δ the growth of what is stranded, both per submission, the
        score is 1000 · v // (Δ + 2v). Δ is -v where only capacity is taken that nobody else could use: 1000;
        0 where every shape fits before and after: 500; ever less, the more work the rest is lost for.
        None: the recent shapes do not tell anything about what is asked for, whatever the node.
        """
        asked = self._charges.get(charge)
        if asked is None:
            amounts = self._amounts(charge)
            asked = self._charges[charge] = (amounts, self._value(amounts))
        taken, value = asked
        if value == 0:
            return None
        room = self._room(node, free)
        left = [max(0, amount - gone) for amount, gone in zip(room.amounts, taken, strict=True)]
        unfitting = self.total - self.count(self._fitting(left, room.suited))
        growth = (room.value - value) * unfitting - room.value * room.unfitting
        value *= self.total
        return FULL * value // (growth + 2 * value)

    def is_useful(self, dimension: str, shapes: int) -> bool:
        """Whether one of `shapes` asks for `dimension`."""
        return bool(self._asking.get(dimension, 0) & shapes)


def _ladder(demands: list[int]) -> _Ladder:
    steps = sorted(set(demands))
    at_step = [_bits(demand == step for demand in demands) for step in steps]
    return _Ladder(tuple(steps), (0, *accumulate(at_step)))  # disjoint sets of bits: a sum is a union


def _bits(flags: Iterable[bool]) -> int:
    return sum(1 << place for place, flag in enumerate(flags) if flag)


def _alike(typical: tuple[Typical, ...]) -> list[tuple[Request, int]]:
    """A sample of each set of shapes that differ in their room alone."""
    groups: dict[tuple[object, ...], tuple[Request, int]] = {}
    for place, (sample, _) in enumerate(typical):
        key = (sample.constraints, sample.any_of, sample.tolerations)
        first, shapes = groups.get(key, (sample, 0))
        groups[key] = (first, shapes | 1 << place)
    return list(groups.values())


# --- how full, and how fragmented -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one node, or of several together. `free`: of nodes that take work, beside what reservations hold.

    `stranded`: the part of `free` that none of the recent shapes can use, since each of them that asks for the
    dimension lacks another one there, or is not admitted.
    """

    nodes: int = 0
    capacity: Resources = NOTHING
    used: Resources = NOTHING
    free: Resources = NOTHING
    stranded: Resources = NOTHING

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.nodes + other.nodes,
            self.capacity + other.capacity,
            self.used + other.used,
            self.free + other.free,
            self.stranded + other.stranded,
        )

    def utilization(self) -> dict[str, float]:
        """Used / capacity by dimension, rounded to six places. For people and reports: nothing decides on it."""
        return {name: round(self.used.amount(name) / amount, 6) for name, amount in self.capacity.dimensions()}

    def fragmentation(self) -> dict[str, float]:
        """Stranded / free by dimension that there is, rounded to six places; 0 where nothing is free."""
        return {
            name: round(self.stranded.amount(name) / free, 6) if (free := self.free.amount(name)) else 0.0
            for name, _ in self.capacity.dimensions()
        }


def usage(state: State, node: Node, profile: Profile) -> Usage:
    """Of one node. Without any recent shape nothing is called stranded."""
    used = state.cluster.used_on(node.id)
    if not takes_work(node):
        return Usage(1, node.capacity, used)
    free = free_now(state, node).beyond(NOTHING)
    if not profile.typical:
        return Usage(1, node.capacity, used, free)
    fitting = profile.fitting(free, profile.suited(node))
    useful = {name: amount for name, amount in free.dimensions() if profile.is_useful(name, fitting)}
    return Usage(1, node.capacity, used, free, free.minus(resources(useful)))


def spoken(parts: Mapping[str, float]) -> dict[str, float]:
    """The parts by the names that a plan result uses: cpu, ram, disk and instances always, then extended ones."""
    short = {CPU: "cpu", RAM: "ram", DISK: "disk", INSTANCES: "instances"}
    built_in = {name: parts.get(dimension, 0.0) for dimension, name in short.items()}
    return built_in | {name: part for name, part in parts.items() if name not in short}


def total(usages: Iterable[Usage]) -> Usage:
    return sum(usages, Usage())


def grouped(usages: Iterable[tuple[str, Usage]]) -> dict[str, Usage]:
    """The usages of each group together, by the group's name."""
    found: dict[str, Usage] = {}
    for name, one in usages:
        found[name] = found.get(name, Usage()) + one
    return dict(sorted(found.items()))


def group_of(node: Mapping[str, str], name: str, by: str) -> str:
    """The group of the node `name` with these labels: itself where `by` is EACH_NODE, else its value of that label; ""
    without it.
    """
    return name if by == EACH_NODE else node.get(by, "")


def usage_row(group: str, usage: Usage) -> dict[str, Any]:
    """What `berth top` and plan results say of a group: amounts by dimension, and the two parts of them."""
    return {
        "group": group,
        "nodes": usage.nodes,
        "capacity": usage.capacity.as_mapping(),
        "used": usage.used.as_mapping(),
        "free": usage.free.as_mapping(),
        "stranded": usage.stranded.as_mapping(),
        "utilization": spoken(usage.utilization()),
        "fragmentation": spoken(usage.fragmentation()),
    }


def usage_by(state: State, by: str) -> dict[str, Usage]:
    """Of the nodes that are not lost, by their value of the label `by`, or each by itself."""
    nodes = state.cluster.nodes
    return grouped((group_of(nodes[name].labels, name, by), one) for name, one in usage_by_node(state).items())


def usage_by_node(state: State, profile: Profile | None = None) -> dict[NodeId, Usage]:
    """Of every node that is not lost, by node id."""
    profile = profile or Profile(state.demand.typical)
    nodes = sorted(state.cluster.nodes.items())
    return {name: usage(state, node, profile) for name, node in nodes if node.state is NodeState.READY}
