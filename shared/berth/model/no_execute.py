"""How long an allocation may stay on a node that has got a `no_execute` taint (R26, R27).

The same function serves the scheduler, which evicts, and the leader, which checks that it is time.
"""

from berth.messages.requests import Effect, Request, Taint
from berth.model.cluster import Allocation, Node
from berth.model.feasibility import shortest_toleration, tolerates


def leaves_at(node: Node, request: Request, allocation: Allocation) -> int | None:
    """When `allocation` must leave (milliseconds UTC), because of the taint that it outlives first; None: it stays.

    Untolerated: at once. Tolerated for N seconds: so long after the taint came, or after the allocation came
    to a node that had it already; of several N the smallest, and tolerations without N are ignored beside it.
    """
    times: list[int] = []
    for taint, since in zip(node.taints, node.tainted_at, strict=True):
        if taint.effect is not Effect.NO_EXECUTE:
            continue
        if not _is_tolerated(taint, request):
            times.append(since)
        elif (patience := shortest_toleration(taint, request)) is not None:
            times.append(max(since, allocation.placed_at) + patience * 1000)
    return min(times, default=None)


def _is_tolerated(taint: Taint, request: Request) -> bool:
    return any(tolerates(one, taint) for one in request.tolerations)


def has_no_execute(node: Node) -> bool:
    """Whether somebody may have to leave the node."""
    return any(taint.effect is Effect.NO_EXECUTE for taint in node.taints)
