"""Why a request stands where it stands, on the state as it is: every node's reasons, and what would help.

Pure; the state is left as it was. The verdicts are the scheduler's own.
"""

from collections.abc import Iterable
from typing import Any

from berth.errors import NotFound
from berth.ids import NodeId, RequestKey
from berth.messages.decisions import NodeVerdict
from berth.messages.events import RequestStatus
from berth.messages.reasons import INSUFFICIENT, ReasonCode
from berth.messages.requests import Request
from berth.model.answers import decision_of
from berth.model.ledger import State
from berth.model.windows import free_now
from berth_scheduler.placement import node_verdicts

QUOTA_REASONS = frozenset({ReasonCode.QUOTA_HARD, ReasonCode.QUOTA_CEILING})
CAPACITY_REASONS = frozenset({*INSUFFICIENT.values(), ReasonCode.INSUFFICIENT_EXTENDED})

Change = dict[str, Any]


def explain(state: State, key: RequestKey, *, at_ms: int, salt: str = "") -> dict[str, Any]:
    """The decision that stands, `nodes` as if the request were to be placed now, and `change`: the smallest one
    that would let a queued request be placed, or None.

    Raises:
        NotFound: no such request.
    """
    decision = decision_of(state, key)
    if decision is None:
        raise NotFound(f"no request {key[0]}/{key[1]}", hint="`berth requests` lists them")
    known = state.queue.requests[key]
    with state.journal.trial():
        for name in known.live:
            state.cluster.vacate(state.cluster.allocations[key[0], name])
        nodes = node_verdicts(state, known.request, at=at_ms, attempt=known.attempt, seed=salt)
        change = _change(state, known.request, nodes) if known.status is RequestStatus.QUEUED else None
    return {**decision.model_copy(update={"nodes": nodes}).as_mapping(), "change": change}


def _change(state: State, request: Request, nodes: Iterable[NodeVerdict]) -> Change | None:
    """Of the quota if that is what blocks, else of what the request asks for."""
    reasons = state.queue.requests[request.key].reasons
    for reason in reasons:
        if reason.code in QUOTA_REASONS and reason.needed is not None:
            short = reason.needed - max(0, reason.best_available or 0)
            return {
                "kind": "quota",
                "namespace": request.namespace,
                "dimension": reason.dimension,
                "raise_by": short,
                "sentence": f"give {request.namespace} {short} more of {reason.dimension}, or release as much",
            }
    return _smaller_request(state, request, nodes) if request.count == 1 else None


def _smaller_request(state: State, request: Request, nodes: Iterable[NodeVerdict]) -> Change | None:
    """What it may ask for at most on the node where the least is missing, in proportion to what it asks."""
    best: tuple[int, str, dict[str, int]] | None = None
    for verdict in nodes:
        if verdict.feasible or not all(reason.code in CAPACITY_REASONS for reason in verdict.reasons):
            continue
        fits, missing = _fitting(state, request, verdict.node)
        if best is None or (missing, verdict.node) < best[:2]:
            best = (missing, verdict.node, fits)
    if best is None:
        return None
    _, node, fits = best
    spoken = ", ".join(f"{amount} {dimension}" for dimension, amount in fits.items())
    return {"kind": "request", "node": node, "at_most": fits, "sentence": f"ask for at most {spoken}: {node} has that"}


def _fitting(state: State, request: Request, node: NodeId) -> tuple[dict[str, int], int]:
    """The dimensions in which the node is short with what it has, and how much is missing in thousandths."""
    free = free_now(state, state.cluster.nodes[node], request.reservation)
    fits: dict[str, int] = {}
    missing = 0
    for dimension, asked in request.charge.dimensions():
        there = max(0, free.amount(dimension))
        if asked > there:
            fits[dimension] = there
            missing += 1000 * (asked - there) // asked
    return fits, missing
