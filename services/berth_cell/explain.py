"""Why a request stands where it stands, on the state as it is: every node's reasons, and what would help.

Pure; the state is left as it was. The verdicts are the scheduler's own.
"""

from collections import Counter
from collections.abc import Collection
from typing import Any

from berth.errors import NotFound
from berth.ids import Namespace, RequestKey
from berth.messages.decisions import NodeVerdict
from berth.messages.documents import time_text
from berth.messages.events import RequestStatus
from berth.messages.reasons import PRECEDENCE
from berth.model.answers import decision_of
from berth.model.ledger import State
from berth.model.ordering import NOBODY_WAITS, Line
from berth.model.read_models import request_row
from berth_cell.proposals import smallest_change
from berth_scheduler.board import Board
from berth_scheduler.placement import node_verdicts, score_table

BEST_MAX = 5
"""Nodes in the table of scores."""

WAITING = (RequestStatus.QUEUED, RequestStatus.REJECTED)


def explain(
    state: State, key: RequestKey, *, at_ms: int, salt: str = "", owner: Namespace | None = None
) -> dict[str, Any]:
    """The decision that stands, `nodes` as if the request were to be placed now, and what would help.

    `examined`: how many nodes; `feasible` of them may take it, the rest stand in `counts` under the first of their
    reasons by precedence, so that both add up to `examined`. `best`: the scores of the best nodes, part by part.
    `queue_position`, `ahead`, `ahead_because`: where it stands while it waits, as in `berth requests`; an `owner` is
    not shown the requests of others. `promises`: every start that it was promised, oldest first, with the cause where
    one was moved later (R86).
    `change`: the smallest single one that would let a request without a place be placed, or None.

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
        board = Board(state)
        nodes = node_verdicts(state, known.request, at=at_ms, attempt=known.attempt, seed=salt, board=board)
        best = score_table(board, known.request, at=at_ms, attempt=known.attempt, seed=salt, most=BEST_MAX)
        waits = known.status in WAITING and not known.live
        change = smallest_change(state, known.request, nodes, at=at_ms, salt=salt) if waits else None
    return {
        **decision.model_copy(update={"nodes": nodes}).as_mapping(),
        **counted(nodes),
        **placed_in_line(state, key, owner),
        "best": best,
        "promises": [
            {
                "sequence": made.sequence,
                "at": time_text(made.at),
                "start": None if made.start is None else time_text(made.start),
                "cause": None if made.cause is None else made.cause.value,
            }
            for made in known.promised
        ],
        "change": None if change is None else change.as_mapping(),
    }


def placed_in_line(state: State, key: RequestKey, owner: Namespace | None) -> dict[str, Any]:
    """Where the request stands in the queue and who is ahead; nulls and nothing where it does not wait."""
    line = Line(state) if key in state.queue.waiting else NOBODY_WAITS
    row = request_row(state.queue.requests[key], line.place(key) if key in line else None, owner)
    return {name: row[name] for name in ("queue_position", "ahead", "ahead_because")}


def counted(nodes: Collection[NodeVerdict]) -> dict[str, Any]:
    """How many nodes were looked at, how many could take it, and why not the others, each under its first reason."""
    first = Counter(one.reasons[0].code for one in nodes if one.reasons)
    return {
        "examined": len(nodes),
        "feasible": sum(one.feasible for one in nodes),
        "counts": {code.value: first[code] for code in sorted(first, key=PRECEDENCE.__getitem__)},
    }
