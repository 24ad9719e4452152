"""Whether a request could never be placed on these nodes, even if nothing else ran: `infeasible`, and why.

Only a change of nodes helps then. What is said here holds whatever others do: where somebody else's coming or
going might mend it, the request waits instead. A node that is cordoned, drained or lost is expected to come back.
"""

from collections.abc import Iterable, Sequence

from berth.messages.reasons import Reason, ReasonCode
from berth.model.cluster import Node
from berth.model.contradictions import contradiction
from berth.model.feasibility import MENDED_BY_NODES_ALONE, meets_constraints, node_reasons
from berth.model.topology import Neighbours, Spread, Surroundings
from berth.resources import Resources
from berth_scheduler.search import Search

Bound = tuple[int, str]
"""More instances than this have no place, and why."""


def why_never(search: Search, least: int) -> Reason | None:
    """Why not even `least` instances could have a place; None: they might."""
    board, request = search.board, search.request
    clash = contradiction(request)
    if clash is not None:
        return _never(clash)
    if request.node is not None and request.node not in board.position:
        return _never(f"there is no node {request.node}")
    suited = [position for position in range(len(board.ids)) if _suits(search, position)]
    if not suited:
        return _never(None)
    large = [position for position in suited if request.charge.fits_in(board.allocatable[position])]
    if not large:
        return _never(_too_large(request.charge, [board.allocatable[position] for position in suited]))
    found = min(_bounds(search, large)) if least > 1 else None
    return None if found is None or found[0] >= least else _never(f"{found[1]}, {least} must run")


def _never(detail: str | None) -> Reason:
    return Reason(code=ReasonCode.INFEASIBLE, detail=detail)


def _suits(search: Search, position: int) -> bool:
    """Whether the node, as it is labelled and tainted, could take it."""
    if search.shape.admitted[position]:
        return True
    reasons = node_reasons(search.board.nodes[position], search.request)
    return not any(reason.code in MENDED_BY_NODES_ALONE for reason in reasons)


def _too_large(charge: Resources, there: Sequence[Resources]) -> str | None:
    """The first dimension that is too large for every node; None: none is by itself."""
    for dimension, needed in charge.dimensions():
        most = max(one.amount(dimension) for one in there)
        if most < needed:
            return f"the largest of the nodes that suit has {most} {dimension}, {needed} are asked for"
    return None


# --- several instances ----------------------------------------------------------------------------------------


def _bounds(search: Search, possible: list[int]) -> list[Bound]:
    board, around = search.board, search.around
    nodes = [board.nodes[position] for position in possible]
    room = [_times(board.allocatable[position], search.request.charge) for position in possible]
    found: list[Bound] = [(sum(room), f"the empty cluster has room for {sum(room)}")]
    if around is not None:
        found += [_alone(neighbours, nodes, room) for neighbours in around.anti_affinity if neighbours.own]
        found += _near_and_far(around)
        everywhere = [node for node in board.nodes if meets_constraints(node, search.request)]
        found += [_spread_out(one, nodes, room, everywhere) for one in around.spread if one.neighbours.own]
    return found


def _times(allocatable: Resources, charge: Resources) -> int:
    return min(allocatable.amount(dimension) // amount for dimension, amount in charge.dimensions())


def _alone(neighbours: Neighbours, nodes: Sequence[Node], room: Sequence[int]) -> Bound:
    """At most one in each domain; where the key is missing it does not bind (R30)."""
    by_domain, unbound = _by_domain(neighbours.key, nodes, room)
    most = sum(min(1, times) for times in by_domain.values()) + unbound
    return most, f"anti-affinity to itself in {neighbours.key} leaves room for {most}"


def _near_and_far(around: Surroundings) -> Iterable[Bound]:
    """The first of its kind may be anywhere, and nobody may join it (R32)."""
    for far in around.anti_affinity:
        if any(far.key == near.key and far.selector == near.selector for near in around.affinity):
            yield 1, f"affinity and anti-affinity to itself in {far.key} leave room for 1"


def _spread_out(one: Spread, nodes: Sequence[Node], room: Sequence[int], everywhere: Iterable[Node]) -> Bound:
    """R35: too few domains make the minimum zero, so each takes `max_skew` at most.

    Where there are enough, the allocations of others may raise the minimum: then nothing is certain.
    """
    key, skew = one.term.topology_key, one.term.max_skew
    domains = {node.label(key) for node in everywhere} - {None}
    if len(domains) >= one.term.min_domains:
        return sum(room), f"the empty cluster has room for {sum(room)}"
    by_domain, _ = _by_domain(key, nodes, room)
    most = sum(min(skew, times) for times in by_domain.values())
    wanted = f"{one.term.min_domains} domains of {key} are wanted and there are {len(domains)}"
    return most, f"{wanted}, which leaves room for {most}"


def _by_domain(key: str, nodes: Sequence[Node], room: Sequence[int]) -> tuple[dict[str, int], int]:
    """How many instances each domain has room for, and how many nodes without the key have."""
    found: dict[str, int] = {}
    unbound = 0
    for node, times in zip(nodes, room, strict=True):
        domain = node.label(key)
        if domain is None:
            unbound += times
        else:
            found[domain] = found.get(domain, 0) + times
    return found, unbound
