"""Which node each missing instance of a request gets, or why it gets none: filter, score, choose.

Pure in (state, request, what is missing, time, attempt, seed): the same question on the same view has the
same answer in every process. Next in the walk: `evaluation`, which makes a proposal of it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from berth.ids import AllocationId, Attempt, NodeId, allocation_id
from berth.messages.commands import EvaluationItem
from berth.messages.decisions import NodeVerdict
from berth.messages.events import AllocationPlaced, Event, RequestPlaced, RequestSubmitted, Transaction, about
from berth.messages.requests import Request
from berth.model.cluster import Allocation, AllocationState
from berth.model.feasibility import preferred_weight, reservation_reason, why_not
from berth.model.ledger import State
from berth_scheduler.board import Board
from berth_scheduler.search import Search, search_for
from berth_scheduler.unplaceable import Unplaceable, explained


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """At least as many instances as the request needs to run, each with its node and its charge.

    `evicted`: who leaves for them (`preemption`), `events` what that means for their requests.
    """

    allocations: tuple[AllocationPlaced, ...]
    evicted: tuple[Allocation, ...] = ()
    events: tuple[Event, ...] = ()


def transaction_of(state: State, item: EvaluationItem, placed: Placed) -> Transaction:
    """Who leaves, the request itself if the ledger does not know it yet, and where it goes."""
    key, events = item.request.key, list(placed.events)
    if key not in state.queue.requests:
        submitted = RequestSubmitted(request=item.request, digest=item.digest)
        events.append(about(key, submitted, attempt=item.attempt, traceparent=item.traceparent))
    data = RequestPlaced(allocations=placed.allocations)
    events.append(about(key, data, attempt=item.attempt, traceparent=item.traceparent))
    return tuple(events)


def place(
    state: State,
    request: Request,
    *,
    missing: int,
    at: int,
    attempt: Attempt = Attempt(1),
    seed: str = "",
    board: Board | None = None,
) -> Placed | Unplaceable:
    """Choose nodes for `missing` instances at `at` (milliseconds UTC): all, or what `min_count` still needs.

    `board`: kept by who places often on one state. The state is as before afterwards.
    """
    assert 0 < missing <= request.count
    board = board or Board(state)
    assert board.state is state
    board.renew()
    search = search_for(board, request, at=at, attempt=attempt, seed=seed)
    least = max(1, missing - (request.count - request.needed))
    if reservation_reason(state, request) is not None:
        return explained(search, least=least)
    if missing == 1:  # nobody needs to see it taken
        position = search.best()
        return explained(search, least=1) if position is None else _placed(state, search, [position])
    try:
        found = search.at_least(least, missing)
        return _placed(state, search, list(search.picks)) if found else explained(search, least=least)
    finally:
        search.clear()


def _placed(state: State, search: Search, picks: list[int]) -> Placed:
    return Placed(allocations=on_nodes(state, search.request, [search.board.ids[position] for position in picks]))


def on_nodes(state: State, request: Request, nodes: Collection[NodeId]) -> tuple[AllocationPlaced, ...]:
    """One more instance of the request on each of `nodes`, under the names that are free."""
    names = instance_names(state, request, len(nodes))
    return tuple(
        AllocationPlaced(id=name, node=node, charge=request.charge) for name, node in zip(names, nodes, strict=True)
    )


def instance_names(
    state: State, request: Request, count: int, *, leaving: Collection[AllocationId] = ()
) -> list[AllocationId]:
    """Names for `count` more instances: the lowest indexes that nobody placed has, each as a new replacement.

    `leaving`: allocations that go in the same transaction, whose indexes are free again.
    """
    known = state.queue.requests.get(request.key)
    if known is None:
        return [allocation_id(request.id, index) for index in range(count)]
    ever = [state.cluster.allocations[request.namespace, name] for name in known.allocations]
    taken = {one.index for one in ever if one.state is AllocationState.PLACED and one.id not in leaving}
    used = {one.id for one in ever}
    free = [index for index in range(request.count) if index not in taken][:count]
    assert len(free) == count, f"{request.id} has {len(free)} instances to place, not {count}"
    return [_unused_name(request, index, used) for index in free]


def _unused_name(request: Request, index: int, used: Collection[AllocationId]) -> AllocationId:
    replacement = 0
    while (name := allocation_id(request.id, index, replacement)) in used:
        replacement += 1
    return name


def node_verdicts(
    state: State,
    request: Request,
    *,
    at: int,
    attempt: Attempt = Attempt(1),
    seed: str = "",
    board: Board | None = None,
) -> tuple[NodeVerdict, ...]:
    """Every node as it is before the first instance: all its reasons, or its score; by node id. Ignores quotas."""
    board = board or Board(state)
    board.renew()
    search = search_for(board, request, at=at, attempt=attempt, seed=seed)
    feasible = [] if reservation_reason(state, request) is not None else search.feasible()
    scores = dict(zip(feasible, search.scores(feasible), strict=True))
    return tuple(
        NodeVerdict(
            node=NodeId(node.id),
            feasible=position in scores,
            reasons=() if position in scores else tuple(why_not(state, node, request, at, search.around)),
            score=scores.get(position),
            preferred=preferred_weight(node, request),
        )
        for position, node in enumerate(board.nodes)
    )


def score_table(
    board: Board, request: Request, *, at: int, attempt: Attempt, seed: str, most: int
) -> list[dict[str, Any]]:
    """The `most` best nodes for the first instance, best first: the final score, who said what, with which weight."""
    board.renew()
    search = search_for(board, request, at=at, attempt=attempt, seed=seed)
    if reservation_reason(board.state, request) is not None:
        return []
    feasible = search.feasible()
    spoken, final = search.spoken(feasible), dict(zip(feasible, search.scores(feasible), strict=True))
    place_of = {position: place for place, position in enumerate(feasible)}
    return [
        {
            "node": board.ids[position],
            "score": final[position],
            "parts": {name: {"score": scores[place_of[position]], "weight": weight} for name, weight, scores in spoken},
        }
        for position in search.ranked()[:most]
    ]
