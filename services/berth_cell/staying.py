"""What a drain has still to take from a node, and what each of it waits for: judged as the scheduler judges it.

Pure; the state is left as it was.
"""

from typing import Any

from berth.errors import NotFound
from berth.ids import NodeId, RequestKey
from berth.messages.documents import time_text
from berth.messages.reasons import Reason
from berth.messages.requests import Reschedule
from berth.model.cluster import Allocation, AllocationState, Drain
from berth.model.ledger import State
from berth_scheduler.board import Board
from berth_scheduler.drain import why_it_stays

SHOWN_MAX = 100
"""Allocations that are told one by one; how many there are in all stands in the node's row."""


def staying(state: State, node: NodeId, *, at_ms: int) -> list[dict[str, Any]]:
    """What still runs on a node that is being drained, by allocation, at most 100; nothing of one that is not.

    `waits_for`: `place` (`reasons` say why there is none; without reasons it is about to move), `deadline` (it
    must not run elsewhere) or `grace` (it has been told to stop). `until`: when it leaves at the latest, or None.

    Raises:
        NotFound: no such node.
    """
    known = state.cluster.nodes.get(node)
    if known is None:
        raise NotFound(f"no node {node}", hint="`berth nodes list` lists them")
    if known.drain is None:
        return []
    board = Board(state)
    reasons: dict[RequestKey, tuple[Reason, ...]] = {}
    rows: list[dict[str, Any]] = []
    for _, allocation in sorted(state.cluster.on_node(node).items())[:SHOWN_MAX]:
        row = _row(state, allocation, known.drain)
        if row["waits_for"] == "place":
            key = allocation.request_key
            if key not in reasons:
                reasons[key] = why_it_stays(board, key, at=max(state.at, at_ms))
            row["reasons"] = [reason.as_mapping() for reason in reasons[key]]
        rows.append(row)
    return rows


def _row(state: State, allocation: Allocation, drain: Drain) -> dict[str, Any]:
    waits_for, until = "place", drain.until
    if allocation.state is AllocationState.RELEASING:
        waits_for, until = "grace", allocation.until
    elif state.queue.requests[allocation.request_key].request.reschedule is Reschedule.NEVER:
        waits_for = "deadline"
    return {
        "id": allocation.id,
        "namespace": allocation.namespace,
        "request": allocation.request,
        "state": allocation.state.value,
        "waits_for": waits_for,
        "until": None if until is None else time_text(until),
        "reasons": [],
    }
