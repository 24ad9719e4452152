"""On which nodes the units of a reservation are held: those that it names, else as few suitable ones as will do.

Pure; times are milliseconds UTC.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from berth.ids import NodeId
from berth.messages.documents import UnitSpread
from berth.messages.requests import Mode
from berth.messages.reservation_events import HeldOnNode, ReservationBody
from berth.model.cluster import Node
from berth.model.feasibility import FILTERING, holds, takes_work
from berth.model.holding import Units, domains_of, least, missed_constraint, why_unfit
from berth.model.ledger import State
from berth.model.promises import units_to_book
from berth.model.reservation import unit_of


def candidates(state: State, body: ReservationBody) -> list[Node]:
    """The nodes that may hold it: the named ones, whatever state they are in, else all that take work."""
    if not body.nodes:
        return [node for node in state.cluster.nodes.values() if _is_suitable(node, body)]
    named = [state.cluster.nodes[name] for name in dict.fromkeys(body.nodes) if name in state.cluster.nodes]
    return [node for node in named if missed_constraint(node, body) is None]


def replacements(state: State, body: ReservationBody) -> list[Node]:
    """Those of them that will be there."""
    return [node for node in candidates(state, body) if why_unfit(state, node.id) is None]


def _is_suitable(node: Node, body: ReservationBody) -> bool:
    """It takes work, and whoever draws needs no toleration there; such nodes are booked by name."""
    if not takes_work(node) or any(taint.effect in FILTERING for taint in node.taints):
        return False
    return missed_constraint(node, body) is None


def room_on(state: State, body: ReservationBody, nodes: Iterable[Node], at: int) -> dict[NodeId, int]:
    """How many units each node has room for during the whole window, beside what is promised to requests."""
    unit, window = unit_of(body), {"start": body.start, "end": body.end}
    return {
        node.id: min(body.count, units_to_book(state, node, unit, **window, at=at, priority=body.priority))
        for node in nodes
    }


def fill(
    state: State, body: ReservationBody, nodes: Sequence[Node], room: Units, kept: Units | None = None
) -> tuple[HeldOnNode, ...]:
    """As many of its units as there is room for, all of them if possible; those in `kept` stay where they are.

    `room` is what the nodes have beside `kept`.
    """
    held = dict(kept or {})
    left = body.count - sum(held.values())
    if body.spread:
        _spread_evenly(state, body, nodes, room, held, left)
    elif body.nodes:
        _in_turns(nodes, room, held, left)
    else:
        for node in sorted(nodes, key=lambda node: (node.id not in held, *_liking(body, node, room))):
            units = min(left, room[node.id])
            held[node.id] = held.get(node.id, 0) + units
            left -= units
    return tuple(HeldOnNode(node=name, count=units) for name, units in held.items() if units)


def _liking(body: ReservationBody, node: Node, room: Units) -> tuple[int, int, NodeId]:
    """Preferred nodes first, then those with most room, so that few are touched; ties go to the smallest id."""
    preferred = sum(one.weight for one in body.constraints if one.mode is Mode.PREFERRED and holds(one, node))
    return -preferred, -room[node.id], node.id


def _in_turns(nodes: Sequence[Node], room: Units, held: dict[NodeId, int], left: int) -> None:
    """One unit to each node that still has room, in their order, round after round."""
    more = {node.id: room[node.id] for node in nodes}
    while left and any(more.values()):
        for name, units in more.items():
            if left and units:
                held[name] = held.get(name, 0) + 1
                more[name] -= 1
                left -= 1


# --- spread over domains -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Counted:
    """How many units the domains of one spread have so far."""

    spread: UnitSpread
    counts: dict[str, int]

    def of(self, node: Node) -> int:
        return self.counts.get(node.label(self.spread.topology_key) or "", 0)

    def most(self) -> int | None:
        """How many units the domain of the next one may have before it; None: any number."""
        if self.spread.mode is not Mode.REQUIRED:
            return None
        return least(self.counts, self.spread) + self.spread.max_skew - 1

    def admits(self, node: Node, most: int | None) -> bool:
        return most is None or (node.label(self.spread.topology_key) is not None and self.of(node) <= most)

    def add(self, node: Node, units: int) -> None:
        label = node.label(self.spread.topology_key)
        if label is not None:
            self.counts[label] = self.counts.get(label, 0) + units


def _spread_evenly(
    state: State, body: ReservationBody, nodes: Sequence[Node], room: Units, held: dict[NodeId, int], left: int
) -> None:
    """Unit after unit into the emptiest domain that has room; for one spread that finds what can be found."""
    counted = [_Counted(spread, domains_of(state, body, spread)) for spread in body.spread]
    for name, units in held.items():
        if name in state.cluster.nodes:
            for one in counted:
                one.add(state.cluster.nodes[name], units)
    more = {node.id: room[node.id] for node in nodes}
    liked = sorted(nodes, key=lambda node: (node.id not in held, *_liking(body, node, room)))
    while left:
        most = [one.most() for one in counted]
        open_nodes = [
            node
            for node in liked
            if more[node.id] and all(one.admits(node, limit) for one, limit in zip(counted, most, strict=True))
        ]
        if not open_nodes:
            return
        node = min(open_nodes, key=lambda node: [one.of(node) for one in counted])
        held[node.id] = held.get(node.id, 0) + 1
        more[node.id] -= 1
        left -= 1
        for one in counted:
            one.add(node, 1)
