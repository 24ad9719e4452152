"""`berth defrag --plan`: which moves would let more of the recent request shapes fit. Nothing is moved.

Node by node: work is taken off, a little at a time, to where the strategy `fragmentation` would have it,
until more fits than before. The node that gains the most per move is chosen, and so on from there.
Greedy, so there may be a better set; bounded, so a proposal is made while somebody waits. The rules of a
move are those of a placement: a node that may not take the work is no target.
"""

from dataclasses import dataclass, replace
from typing import Any

from berth.ids import AllocationId, Attempt, Namespace, NodeId, RequestId
from berth.messages.requests import Strategy
from berth.model.cluster import Allocation, AllocationState
from berth.model.fragmentation import Profile, spoken, total, usage_by_node
from berth.model.ledger import State
from berth.model.windows import free_now
from berth.resources import Resources
from berth_scheduler.board import Board
from berth_scheduler.search import search_for

NODES_TRIED = 16
"""Nodes that one step tries to make room on: those on which the fewest recent requests would fit."""


@dataclass(frozen=True, slots=True)
class Move:
    """One instance would run elsewhere."""

    namespace: Namespace
    allocation: AllocationId
    request: RequestId
    source: NodeId
    target: NodeId
    charge: Resources

    def as_mapping(self) -> dict[str, Any]:
        return {
            "namespace": self.namespace,
            "allocation": self.allocation,
            "request": self.request,
            "from": self.source,
            "to": self.target,
            "resources": self.charge.as_mapping(),
        }


def propose(state: State, *, at_ms: int, moves: int) -> dict[str, Any]:
    """At most `moves` moves, in the order in which they can be made, and what would fit before and after them.

    `places` counts, over nodes, the recent submissions that have room there. The state is left as it was.
    """
    with state.journal.trial():
        workshop = _Workshop(state, at_ms)
        before = workshop.told()
        found = workshop.improve(moves)
        after = workshop.told()
    return {
        "version": 1,
        "sequence": state.sequence,
        "moves": [move.as_mapping() for move in found],
        "before": before,
        "after": after,
    }


class _Workshop:
    """A state in which moves are tried; whoever made it undoes them."""

    def __init__(self, state: State, at_ms: int) -> None:
        self._state = state
        self._at = max(state.at, at_ms)
        self._profile = Profile(state.demand.typical)
        self._board = Board(state)

    def told(self) -> dict[str, Any]:
        usages = usage_by_node(self._state, self._profile)
        return {
            "places": sum(self._places(node) for node in usages),
            "fragmentation": spoken(total(usages.values()).fragmentation()),
        }

    def improve(self, moves: int) -> list[Move]:
        found: list[Move] = []
        while len(found) < moves and (best := self._best(moves - len(found))):
            for move in best:
                self._make(move)
            found += best
        return found

    def _best(self, moves: int) -> list[Move]:
        """The moves off one node that gain the most per move; none where nothing gains."""
        best: list[Move] = []
        gained = 0
        for node in self._candidates():
            mark = self._state.journal.begin()
            tried, gain = self._clear(node, moves)
            self._state.journal.undo(mark)
            if tried and gain * max(1, len(best)) > gained * len(tried):
                best, gained = tried, gain
        return best

    def _candidates(self) -> list[NodeId]:
        """Nodes with work, those first on which the fewest recent requests would fit."""
        usages = usage_by_node(self._state, self._profile)
        busy = [name for name in usages if self._state.cluster.on_node(name)]
        return sorted(busy, key=lambda name: (self._places(name), name))[:NODES_TRIED]

    def _clear(self, node: NodeId, moves: int) -> tuple[list[Move], int]:
        """Take the smallest off first, until more fits; the moves made, and how many places are gained."""
        made: list[Move] = []
        for allocation in self._movable(node)[:moves]:
            move = self._away(allocation)
            if move is None:
                continue
            concerned = {node, *(one.target for one in made), move.target}
            made.append(move)
            gain = self._gain(made, concerned)
            if gain > 0:
                return made, gain
        return [], 0

    def _gain(self, made: list[Move], concerned: set[NodeId]) -> int:
        after = sum(self._places(node) for node in concerned)
        for move in reversed(made):
            self._make(replace(move, source=move.target, target=move.source))
        before = sum(self._places(node) for node in concerned)
        for move in made:
            self._make(move)
        return after - before

    def _movable(self, node: NodeId) -> list[Allocation]:
        live = self._state.cluster.on_node(node).values()
        placed = [one for one in live if one.state is AllocationState.PLACED and one.reservation is None]
        return sorted(placed, key=lambda one: (self._profile.value(one.charge), one.key))

    def _away(self, allocation: Allocation) -> Move | None:
        """Move it to the best other node, if it may go anywhere else."""
        state = self._state
        request = state.queue.requests[allocation.request_key].request
        wanted = request.model_copy(update={"strategy": Strategy.FRAGMENTATION})
        self._board.silent = frozenset({allocation.node})
        mark = state.journal.begin()
        state.cluster.vacate(allocation)
        self._board.renew()
        position = search_for(self._board, wanted, at=self._at, attempt=Attempt(1), seed="").best()
        if position is None:
            state.journal.undo(mark)
            return None
        target = self._board.ids[position]
        state.cluster.occupy(allocation._replace(node=target))
        state.journal.keep()
        return Move(allocation.namespace, allocation.id, allocation.request, allocation.node, target, allocation.charge)

    def _make(self, move: Move) -> None:
        cluster = self._state.cluster
        allocation = cluster.on_node(move.source)[move.namespace, move.allocation]
        cluster.vacate(allocation)
        cluster.occupy(allocation._replace(node=move.target))

    def _places(self, name: NodeId) -> int:
        node = self._state.cluster.nodes[name]
        free = free_now(self._state, node)
        return self._profile.count(self._profile.fitting(free, self._profile.suited(node)))
