"""Who must leave so that a request of higher priority has its place: as few as will do, the least important (R53–R57).

Capacity is sought node by node (R54, R55), headroom over the whole namespace (R60). Evictions and placement are
one transaction, so nothing can take the room in between; for the same reason victims have no grace. In the end
each victim is put back once more, and stays back only if the law would then refuse the placement.
Pure; the state is as before afterwards. Next in the walk: `evaluation`, which proposes it.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from berth.ids import AllocationKey, NodeId, RequestKey
from berth.messages.commands import EvaluationItem
from berth.messages.events import Event, How
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Request
from berth.model import entitlement
from berth.model.check import check
from berth.model.cluster import Allocation, AllocationState
from berth.model.feasibility import surroundings_of, why_not
from berth.model.ledger import State
from berth.resources import NOTHING, Resources
from berth_scheduler.board import Board
from berth_scheduler.departure import Cause, departures
from berth_scheduler.placement import Placed, on_nodes, transaction_of
from berth_scheduler.search import Search, search_for

Rank = tuple[int, int, int, int, NodeId]


def preempt(board: Board, item: EvaluationItem, *, missing: int, at: int, seed: str) -> Placed | None:
    """Places for `item` at `at` (milliseconds UTC) and who is evicted for them; None: no victims would do.

    As many of `missing` instances as have a place without victims, but nobody is evicted for more than the
    request needs to run.
    """
    state, request = board.state, item.request
    candidates = entitlement.candidates(state, request, item.grant, at)
    if not candidates:
        return None
    with state.journal.trial():
        board.renew()
        search = search_for(board, request, at=at, attempt=item.attempt, seed=seed)
        clearing = _Clearing(item=item, missing=missing, search=search, candidates=candidates)
        found = clearing.nodes_and_victims()
    if found is None:
        return None
    nodes, victims = found
    if clearing.may_be_too_many:
        victims = _reprieved(state, item, nodes, victims, at)
    placed = _placed(state, item, nodes, victims, at)
    within = len(placed.evicted) <= item.grant.max_evictions
    return placed if within and _is_lawful(state, item, placed, at) else None


def with_siblings(state: State, victims: Iterable[Allocation]) -> list[Allocation]:
    """The victims, and all of a request that would keep fewer than it needs; by key."""
    by_request: dict[RequestKey, list[Allocation]] = {}
    for one in victims:
        by_request.setdefault(one.request_key, []).append(one)
    leaving: list[Allocation] = []
    for key, those in by_request.items():
        leaving += those if _is_single(state, key) else _broken(state, key, those)
    return sorted(leaving, key=lambda one: one.key)


def _is_single(state: State, key: RequestKey) -> bool:
    return state.queue.requests[key].request.count == 1


def _broken(state: State, key: RequestKey, those: list[Allocation]) -> list[Allocation]:
    placed = _placed_of(state, key)
    breaks = len(placed) - len(those) < state.queue.requests[key].request.needed
    return placed if breaks else those


def _placed_of(state: State, key: RequestKey) -> list[Allocation]:
    live = (state.cluster.allocations[key[0], name] for name in state.queue.requests[key].live)
    return [one for one in live if one.state is AllocationState.PLACED]


# --- the law has the last word ------------------------------------------------------------------------------


def _reprieved(
    state: State, item: EvaluationItem, nodes: Collection[NodeId], victims: list[Allocation], at: int
) -> list[Allocation]:
    """Put back, most important first, whoever is not needed for these nodes (R54)."""
    kept = list(victims)
    for one in sorted(victims, key=lambda one: (-one.priority, one.placed_at, one.id)):
        without = [other for other in kept if other is not one]
        if _is_lawful(state, item, _placed(state, item, nodes, without, at), at):
            kept = without
    return kept


def _placed(
    state: State, item: EvaluationItem, nodes: Collection[NodeId], victims: list[Allocation], at: int
) -> Placed:
    evicted = with_siblings(state, victims)
    cause = Cause(how=How.EVICTED, reason=ReasonCode.PREEMPTED, at=at, graceful=False)
    events: list[Event] = [event for group in departures(state, evicted, cause) for event in group]
    allocations = on_nodes(state, item.request, nodes)
    return Placed(allocations=allocations, evicted=tuple(evicted), events=tuple(events))


def _is_lawful(state: State, item: EvaluationItem, placed: Placed, at: int) -> bool:
    return check(state, transaction_of(state, item, placed), at) is None


# --- who, and for which nodes ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clearable:
    """A node, by position, that one more instance could have, and at whose cost. `leaving`: how many in all."""

    position: int
    victims: list[Allocation]
    leaving: int
    rank: Rank


@dataclass(slots=True, kw_only=True)
class _Clearing:
    """One search for room, inside a trial of the caller.

    `taken`: victims chosen so far; `gone`: they and their siblings, off the state already.
    `_clearable`: what clearing each node would cost, until something changes there.
    `may_be_too_many`: chosen step by step, so that a later step may have made an earlier one needless.
    """

    item: EvaluationItem
    missing: int
    search: Search
    candidates: list[Allocation]
    may_be_too_many: bool = False
    taken: list[Allocation] = field(default_factory=list[Allocation])
    gone: dict[AllocationKey, Allocation] = field(default_factory=dict[AllocationKey, Allocation])
    _clearable: dict[NodeId, "_Clearable | None"] = field(default_factory=dict[NodeId, "_Clearable | None"])

    @property
    def request(self) -> Request:
        return self.item.request

    @property
    def state(self) -> State:
        return self.search.board.state

    def nodes_and_victims(self) -> tuple[list[NodeId], list[Allocation]] | None:
        """Nodes for the instances and who leaves for them; None where nothing helps."""
        request, search = self.request, self.search
        least = max(1, self.missing - (request.count - request.needed))
        if not self._make_headroom():
            return None
        found = search.at_least(least, self.missing) or self._one_by_one(least) or self._all_at_once(least)
        nodes = [search.board.ids[position] for position in search.picks]
        search.clear()
        return (nodes, self.taken) if found else None

    def _one_by_one(self, least: int) -> bool:
        """Each instance on the best node that is free, else on the one whose victims matter least."""
        search = self.search
        while len(search.picks) < least:
            position = search.best()
            if position is None:
                found = self._cheapest()
                if found is None:
                    search.clear()
                    return False
                position = found.position
                self._take(found.victims)
            search.take(position)
            self._clearable.pop(search.board.ids[position], None)
        self.may_be_too_many |= least > 1
        return True

    def _all_at_once(self, least: int) -> bool:
        """Where instances get into each other's way: room everywhere first, and then who may come back."""
        around = self.search.around
        if least == 1 or around is None or not around.restricts:
            return False
        self.may_be_too_many = True
        self._take([one for one in self.candidates if one.key not in self.gone])
        return self.search.exactly(least)

    def _take(self, victims: Iterable[Allocation]) -> None:
        self.taken += victims
        for one in with_siblings(self.state, self.taken):
            if one.key not in self.gone:
                self.gone[one.key] = one
                self.state.cluster.vacate(one)
                for sibling in _placed_of(self.state, one.request_key):  # how many of them may leave has changed
                    self._clearable.pop(sibling.node, None)
        self._look_again()

    def _look_again(self) -> None:
        """Count free room and neighbours anew after somebody left or came back."""
        search = self.search
        search.board.renew()
        search.board.refresh(search.shape, search.request, search.at)
        search.around = surroundings_of(self.state, search.request)
        search.minds = search.around is not None and not search.around.says_nothing

    # ------------------------------------------------------------------ quota

    def _make_headroom(self) -> bool:
        """Victims until the namespace may be charged, in the order of R60; who is not needed is given back."""
        short = self._shortfall(())
        if not short:
            return True
        victims: list[Allocation] = []
        for one in self.candidates:
            if any(one.charge.amount(dimension) for dimension in short):
                victims.append(one)
                if not self._shortfall(victims):
                    break
        else:
            return False
        for one in reversed(victims.copy()):
            without = [other for other in victims if other is not one]
            if not self._shortfall(without):
                victims = without
        self.may_be_too_many = True
        self._take(victims)
        return True

    def _shortfall(self, victims: Collection[Allocation]) -> list[str]:
        """The dimensions in which the quota would be exceeded if these victims and their siblings were gone."""
        freed = _sum(with_siblings(self.state, victims))
        amount = self.request.charge.times(self.missing)
        assumed = {self.request.namespace: NOTHING.minus(freed)} if victims else entitlement.NOBODY
        reasons = entitlement.shortfall(self.state, self.request, amount, assumed)
        return [reason.dimension for reason in reasons if reason.dimension is not None]

    # ------------------------------------------------------------------ one node

    def _cheapest(self) -> "_Clearable | None":
        """The node that R55 prefers, with its victims (R54)."""
        around = self.search.around
        if around is not None and around.restricts:
            self._clearable.clear()  # who is where matters everywhere
        on_node: dict[NodeId, list[Allocation]] = {}
        for one in self.candidates:
            if one.key not in self.gone:
                on_node.setdefault(one.node, []).append(one)
        best: _Clearable | None = None
        for node, there in on_node.items():
            if node not in self._clearable:
                self._clearable[node] = self._cleared(node, there)
            found = self._clearable[node]
            within = found is not None and len(self.gone) + found.leaving <= self.item.grant.max_evictions
            if found is not None and within and (best is None or found.rank < best.rank):
                best = found
        return best

    def _cleared(self, node: NodeId, there: list[Allocation]) -> "_Clearable | None":
        board = self.search.board
        position = board.position[node]
        if not self.search.shape.admitted[position] or node in board.silent:
            return None  # its own row keeps the request away: nobody's leaving would help (R57)
        victims = self._victims_on(position, there)
        if not victims:
            return None
        leaving = self._leaving(victims)
        rank = (*_weight(leaving), node)
        return _Clearable(position=position, victims=victims, leaving=len(leaving), rank=rank)

    def _victims_on(self, position: int, there: list[Allocation]) -> list[Allocation] | None:
        """All of `there` leave; then each comes back, most important first, if the instance still fits (R54)."""
        is_ruled = self._is_ruled(position)
        if not is_ruled and all(_is_single(self.state, one.request_key) for one in there):
            return self._singles_on(position, there)
        fits = self._fits_by_rules if is_ruled else self._fits_by_room
        victims = list(there)
        if not fits(position, victims):
            return None
        for one in reversed(there):
            without = [other for other in victims if other is not one]
            if fits(position, without):
                victims = without
        return victims

    def _singles_on(self, position: int, there: list[Allocation]) -> list[Allocation] | None:
        """The same where everybody leaves alone and only room decides."""
        charge = self.request.charge
        free = self.search.board.free[position] + _sum(there)
        if not charge.fits_in(free):
            return None
        victims: list[Allocation] = []
        for one in reversed(there):
            without = free.minus(one.charge)
            if charge.fits_in(without):
                free = without
            else:
                victims.append(one)
        return victims

    def _is_ruled(self, position: int) -> bool:
        """Whether more than free room decides there: neighbours, or windows."""
        around = self.search.around
        return self.search.board.is_held(position) or (around is not None and around.restricts)

    def _fits_by_room(self, position: int, victims: list[Allocation]) -> bool:
        board = self.search.board
        freed = _sum(one for one in self._leaving(victims) if one.node == board.ids[position])
        return self.request.charge.fits_in(board.free[position] + freed)

    def _fits_by_rules(self, position: int, victims: list[Allocation]) -> bool:
        state = self.state
        with state.journal.trial():
            for one in self._leaving(victims):
                state.cluster.vacate(one)
            return not why_not(state, self.search.board.nodes[position], self.request, self.search.at)

    def _leaving(self, victims: list[Allocation]) -> list[Allocation]:
        """Who leaves with these, beside those who are gone already."""
        if not victims:
            return []
        keys = {one.request_key for one in victims}
        earlier = [one for one in self.taken if one.request_key in keys]
        return [one for one in with_siblings(self.state, (*earlier, *victims)) if one.key not in self.gone]


def _sum(allocations: Iterable[Allocation]) -> Resources:
    total = NOTHING
    for one in allocations:
        total += one.charge
    return total


def _weight(leaving: list[Allocation]) -> tuple[int, int, int, int]:
    """R55: highest priority, sum of priorities, how many, and the latest start of the most important wins."""
    highest = max(one.priority for one in leaving)
    began = min(one.placed_at for one in leaving if one.priority == highest)
    return highest, sum(one.priority for one in leaving), len(leaving), -began
