"""Which nodes the instances of one request take, one after the other, each seeing its earlier siblings.

Greedy first: the best node for each instance. Where instances get into each other's way (their own
affinity, anti-affinity or spread), that may fail although an assignment exists; then every domain is
tried as the beginning, and after that all orders, as far as the budget goes. Everything happens inside a
trial of the caller.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from berth.ids import Attempt, allocation_id
from berth.messages.requests import Request, Strategy
from berth.model.cluster import Allocation
from berth.model.feasibility import surroundings_of
from berth.model.topology import Surroundings
from berth_scheduler.assumed import assume, provisional
from berth_scheduler.board import Board, Shape
from berth_scheduler.scores import blended, by_fewest, by_largest, chance, tie, weights_of

CHECKS_MAX = 50_000
"""Nodes looked at by one search beyond the first greedy pass; more than 6 nodes x 4 instances ever need."""


@dataclass(slots=True, kw_only=True)
class Search:
    """One request's search. `picks`: positions taken so far; each is taken back in reverse order.

    `minds`: neighbours, those of `around`, refuse nodes or tell them apart.
    """

    board: Board
    request: Request
    at: int
    attempt: Attempt
    seed: str
    shape: Shape
    around: Surroundings | None
    minds: bool
    picks: list[int] = field(default_factory=list[int])
    _marks: list[int] = field(default_factory=list[int])
    _checks: int = CHECKS_MAX

    # ------------------------------------------------------------------ one instance

    def best(self) -> int | None:
        """The position of the best node for one more instance, or None."""
        if not self._is_plain():
            ranked = self._scored()
            return None if not ranked else self._first(ranked)
        leaders = self.shape.plain.leaders()
        return self._least_tie(leaders) if leaders else None

    def ranked(self) -> list[int]:
        """Every position that can take one more instance, best first."""
        scored = self._scored()
        return [position for position, _ in sorted(scored, key=lambda one: (-one[1], self._tie(one[0])))]

    def feasible(self) -> list[int]:
        """Every position that can take one more instance, by node id."""
        around, nodes = self.around, self.board.nodes
        rooms = enumerate(self.shape.rooms)
        if around is None or not self.minds:
            return [position for position, room in rooms if room is not None]
        return [position for position, room in rooms if room is not None and around.allows(nodes[position])]

    def scores(self, positions: list[int]) -> list[int]:
        """The final score of each, compared with the others (R12, R24, R48)."""
        spoken = [(weight, scores) for _, weight, scores in self.spoken(positions)]
        return blended(spoken) if spoken else [0] * len(positions)

    def spoken(self, positions: list[int]) -> list[tuple[str, int, list[int]]]:
        """Who has something to say about these positions: name, weight, and a score for each."""
        rooms = [room for position in positions if (room := self.shape.rooms[position]) is not None]
        nodes = [self.board.nodes[position] for position in positions]
        weights = weights_of(self.request.strategy)
        spoken: list[tuple[str, int, list[int]]] = []
        if self.request.strategy is Strategy.RANDOM:
            drawn = [chance(self.request, self.attempt, node.id, self.seed) for node in nodes]
            spoken.append(("strategy", weights.strategy, drawn))
        elif rooms and rooms[0].strategy is not None:
            spoken.append(("strategy", weights.strategy, [room.strategy or 0 for room in rooms]))
        if self.shape.prefers:
            spoken.append(("preferred", weights.preferred, by_largest([room.preferred for room in rooms])))
        if self.around is not None and self.around.near:
            spoken.append(("affinity", weights.affinity, by_largest([self.around.preference(node) for node in nodes])))
        if self.around is not None and self.around.even:
            spoken.append(("spread", weights.spread, by_fewest([self.around.crowd(node) for node in nodes])))
        if any(room.intolerable for room in rooms):
            spoken.append(("taints", weights.taints, by_fewest([room.intolerable for room in rooms])))
        return spoken

    def _is_plain(self) -> bool:
        """Whether the strategy alone speaks, so that its score is the final one."""
        return (
            not self.minds
            and not self.shape.prefers
            and not self.shape.tainted
            and self.request.strategy is not Strategy.RANDOM
        )

    def _scored(self) -> list[tuple[int, int]]:
        positions = self.feasible()
        return list(zip(positions, self.scores(positions), strict=True))

    def _first(self, scored: list[tuple[int, int]]) -> int:
        best = max(score for _, score in scored)
        return self._least_tie([position for position, score in scored if score == best])

    def _least_tie(self, positions: list[int]) -> int:
        return positions[0] if len(positions) == 1 else min(positions, key=self._tie)

    def _tie(self, position: int) -> int:
        return tie(self.request, self.board.ids[position])

    # ------------------------------------------------------------------ several instances

    def take(self, position: int) -> None:
        """The next instance goes to `position`; those after it see it there."""
        state = self.board.state
        self._marks.append(state.journal.begin())
        self.picks.append(position)
        assume(state, self._stand_in(position))
        self._changed(position, 1)

    def give_back(self) -> None:
        """The last instance taken is nowhere again."""
        self.board.state.journal.undo(self._marks.pop())
        self._changed(self.picks.pop(), -1)

    def clear(self) -> None:
        while self.picks:
            self.give_back()

    def fill(self, count: int) -> None:
        """Take the best node for each instance until there are `count`, or none fits any more."""
        while len(self.picks) < count and (position := self.best()) is not None:
            self.take(position)

    def exactly(self, count: int) -> bool:
        """Take nodes for `count` instances, if there is a way that the budget finds; else take none."""
        self.fill(count)
        if len(self.picks) == count:
            return True
        self.clear()
        if not self._siblings_interact() or count < 2:
            return False  # alike and independent: whatever order fills the nodes fills as many
        return self._from_each_domain(count) or self._all_ways(count)

    def at_least(self, least: int, most: int) -> bool:
        """Take nodes for as many instances as possible, not fewer than `least`; else take none."""
        if self.exactly(most):
            return True
        if least == most:
            return False
        self.fill(most)
        if len(self.picks) >= least:
            return True
        self.clear()
        if not self.exactly(least):
            return False
        self.fill(most)
        return True

    def _siblings_interact(self) -> bool:
        around = self.around
        if around is None:
            return False
        required = [*around.affinity, *around.anti_affinity, *(one.neighbours for one in around.spread)]
        return any(neighbours.own for neighbours in required)

    def _from_each_domain(self, count: int) -> bool:
        """Greedy again, beginning in each combination of domains, the best first."""
        tried: set[tuple[str | None, ...]] = set()
        for position in self.ranked():
            domains = self._domains(position)
            if domains in tried or self._checks <= 0:
                continue
            tried.add(domains)
            self.take(position)
            self.fill(count)
            self._checks -= len(self.board.ids) * len(self.picks)
            if len(self.picks) == count:
                return True
            self.clear()
        return False

    def _domains(self, position: int) -> tuple[str | None, ...]:
        around, node = self.around, self.board.nodes[position]
        assert around is not None
        required = [*around.affinity, *around.anti_affinity, *(one.neighbours for one in around.spread)]
        return tuple(node.label(one.key) for one in required if one.own and one.key != "node")

    def _all_ways(self, count: int) -> bool:
        """Depth first over all ways; what the same nodes, in whatever order, led to is not tried again."""
        dead_ends: set[tuple[int, ...]] = set()
        ways: list[Iterator[int]] = [self._ways()]
        while ways:
            position = next(ways[-1], None)
            if position is None or self._checks <= 0:
                dead_ends.add(tuple(sorted(self.picks)))
                ways.pop()
                if self.picks:
                    self.give_back()
                continue
            if tuple(sorted((*self.picks, position))) in dead_ends:
                continue
            self.take(position)
            if len(self.picks) == count:
                return True
            ways.append(self._ways())
        return False

    def _ways(self) -> Iterator[int]:
        self._checks -= len(self.board.ids)
        return iter(self.ranked())

    # ------------------------------------------------------------------ the trial

    def _stand_in(self, position: int) -> Allocation:
        """An allocation that consumes what the instance will, under a name of its own."""
        name = allocation_id(self.request.id, self.request.count + len(self.picks))
        return provisional(self.request, name, self.board.nodes[position].id, at=self.at)

    def _changed(self, position: int, by: int) -> None:
        if self.around is not None:
            self.around.count(self.board.nodes[position], by)
        self.board.renew_at(position)
        self.board.refresh(self.shape, self.request, self.at)


def search_for(board: Board, request: Request, *, at: int, attempt: Attempt, seed: str) -> Search:
    """A search on the board as it is; `renew` it first."""
    around = surroundings_of(board.state, request)
    return Search(
        board=board,
        request=request,
        at=at,
        attempt=attempt,
        seed=seed,
        shape=board.shape(request, at),
        around=around,
        minds=around is not None and not around.says_nothing,
    )
