"""Emptying a node that is being drained: each request's instances move to other nodes in one transaction.

Nothing is evicted before there is another place for it; what has none stays and is tried again, until the
drain's deadline, if it has one: then it is evicted all the same. Only live, placed work is touched. A request
that must not be rescheduled ends: at the deadline, or without one at once.
"""

from dataclasses import dataclass

from berth.ids import Attempt, NodeId, RequestKey
from berth.messages.events import (
    AllocationPlaced,
    AllocationsEnded,
    AllocationsReleasing,
    EventData,
    How,
    RequestPlaced,
    Transaction,
    about,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request, Reschedule
from berth.model.charging import draws_on
from berth.model.cluster import Allocation, AllocationState, Drain
from berth.model.ledger import State
from berth.model.queue import RequestState
from berth_scheduler.board import Board
from berth_scheduler.departure import Cause, departures
from berth_scheduler.placement import instance_names
from berth_scheduler.search import Search, search_for
from berth_scheduler.unplaceable import explained


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One transaction of a drain. `placed`: where the instances go; empty when they only leave."""

    request: Request
    attempt: Attempt
    transaction: Transaction
    placed: tuple[AllocationPlaced, ...] = ()


def to_be_moved(state: State, at: int) -> dict[RequestKey, bool]:
    """The requests with placed instances on draining nodes, by node and allocation; true where a deadline has passed
    at `at` (milliseconds UTC).
    """
    found: dict[RequestKey, bool] = {}
    draining = {node.id: node.drain for node in state.cluster.nodes.values() if node.drain is not None}
    for name in sorted(draining):
        is_due = draining[name].is_overdue_at(at)
        for _, allocation in sorted(state.cluster.on_node(name).items()):
            if allocation.state is AllocationState.PLACED:
                found[allocation.request_key] = is_due or found.get(allocation.request_key, False)
    return found


def move(board: Board, key: RequestKey, *, at: int, seed: str, evict: bool = False) -> Move | None:
    """Move what can be moved of the request away from draining nodes at `at` (milliseconds UTC).

    What has no other place is evicted once the deadline of its node's drain has passed. `evict`: do not look for
    a place; without a deadline, do not wait for one either. None: nothing is left to move, or it has to wait.
    """
    state = board.state
    known = state.queue.requests.get(key)
    leaving = _leaving(state, key) if known is not None else []
    if known is None or not leaving:
        return None
    request = known.request
    if evict or request.reschedule is Reschedule.NEVER:
        return _evicted(state, known, [one for one in leaving if not _drain(state, one).waits_at(at)], at)
    nodes = _other_nodes(board, request, leaving, at=at, attempt=known.attempt, seed=seed)
    if not nodes:
        return _evicted(state, known, [one for one in leaving if _drain(state, one).is_overdue_at(at)], at)
    leaving = leaving[: len(nodes)]
    names = instance_names(state, request, len(nodes), leaving={one.id for one in leaving})
    placed = tuple(
        AllocationPlaced(id=name, node=node, charge=request.charge) for name, node in zip(names, nodes, strict=True)
    )
    events = (_leave(request, leaving, at), RequestPlaced(allocations=placed))
    transaction = tuple(about(key, data, attempt=known.attempt, traceparent=known.traceparent) for data in events)
    return Move(request=request, attempt=known.attempt, transaction=transaction, placed=placed)


def _drain(state: State, allocation: Allocation) -> Drain:
    drain = state.cluster.nodes[allocation.node].drain
    assert drain is not None, "it stands on a node that is being drained"
    return drain


def _evicted(state: State, known: RequestState, leaving: list[Allocation], at: int) -> Move | None:
    """They leave for no other place; their request waits again, if it says so, or has ended."""
    if not leaving:
        return None
    (group,) = departures(state, leaving, Cause(how=How.EVICTED, reason=ReasonCode.DRAINED, at=at))
    return Move(request=known.request, attempt=known.attempt, transaction=group)


def _leaving(state: State, key: RequestKey) -> list[Allocation]:
    """The request's placed instances on draining nodes, by index; none that a proposal in flight would evict."""
    known = state.queue.requests[key]
    live = [state.cluster.allocations[key[0], name] for name in known.live]
    return sorted((one for one in live if _is_to_move(state, one)), key=lambda one: (one.index, one.id))


def _is_to_move(state: State, allocation: Allocation) -> bool:
    return (
        allocation.state is AllocationState.PLACED
        and state.cluster.nodes[allocation.node].draining
        and allocation.key in state.cluster.on_node(allocation.node)
    )


def _other_nodes(
    board: Board, request: Request, leaving: list[Allocation], *, at: int, attempt: Attempt, seed: str
) -> list[NodeId]:
    """Nodes for as many of `leaving` as have another place, at best all."""
    with board.state.journal.trial():
        search = _search(board, request, leaving, at=at, attempt=attempt, seed=seed)
        search.at_least(1, len(leaving))
        nodes = [board.ids[position] for position in search.picks]
        search.clear()
    return nodes


def why_it_stays(board: Board, key: RequestKey, *, at: int) -> tuple[Reason, ...]:
    """Why none of the request's instances on draining nodes has another place at `at` (milliseconds UTC); () if one
    has. Their `nodes` sum to the nodes of the cluster.
    """
    state = board.state
    known, leaving = state.queue.requests[key], _leaving(state, key)
    with state.journal.trial():
        search = _search(board, known.request, leaving, at=at, attempt=known.attempt, seed="")
        if search.at_least(1, 1):
            search.clear()
            return ()
        return explained(search, least=1).reasons


def _search(
    board: Board, request: Request, leaving: list[Allocation], *, at: int, attempt: Attempt, seed: str
) -> Search:
    """A search as if they had left; in a trial. With grace they leave only after the others have come."""
    if not request.grace_seconds:
        for allocation in leaving:
            _vacate(board.state, allocation, at)
    board.renew()
    return search_for(board, request, at=at, attempt=attempt, seed=seed)


def _vacate(state: State, allocation: Allocation, at: int) -> None:
    state.cluster.vacate(allocation)
    if draws_on(state, allocation) is not None and allocation.reservation is not None:
        state.reservations.give_back(allocation.reservation, allocation.node, allocation.charge, at=at)


def _leave(request: Request, leaving: list[Allocation], at: int) -> EventData:
    ids = tuple(one.id for one in leaving)
    if not request.grace_seconds:
        return AllocationsEnded(ids=ids, how=How.EVICTED, reason=ReasonCode.DRAINED)
    until = at + request.grace_seconds * 1000
    return AllocationsReleasing(ids=ids, how=How.EVICTED, reason=ReasonCode.DRAINED, until=until)
