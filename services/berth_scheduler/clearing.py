"""One search for room at the cost of others: which nodes, and who leaves for them (R54, R55, R60, R61).

Headroom is sought over the whole namespace in the order of R60, capacity node by node in that of R55. What is
chosen is taken off the state, usage included, inside a trial of the caller: so each further victim is judged
on what is left. Pure. Next: `preemption`, which asks the law and makes the events.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from berth.ids import AllocationKey, NodeId, RequestKey
from berth.messages.commands import EvaluationItem
from berth.messages.requests import Borrow, Request
from berth.model.claims import Claim
from berth.model.cluster import Allocation, AllocationState
from berth.model.entitlement import shortfall_of
from berth.model.feasibility import surroundings_of, why_not
from berth.model.ledger import State
from berth.model.victims import in_order, tier_of, why_not_taken
from berth.resources import NOTHING, Resources
from berth_scheduler.search import Search

Rank = tuple[int, int, int, int, int, NodeId]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clearable:
    """A node, by position, that one more instance could have, and at whose cost. `leaving`: how many in all."""

    position: int
    victims: list[Allocation]
    leaving: int
    rank: Rank


@dataclass(slots=True, kw_only=True)
class Clearing:
    """`candidates`: who may be taken, in order; `claim`: on what ground from others; `short`: where the quota
    alone is short. Not `may_borrow`: what is placed must leave its namespace within `soft`.

    `taken`: victims chosen so far; `gone`: they and their siblings, off the state already.
    `_clearable`: what clearing each node would cost, until something changes there.
    `may_be_too_many`: chosen step by step, so that a later step may have made an earlier one needless.
    """

    item: EvaluationItem
    missing: int
    search: Search
    candidates: list[Allocation]
    claim: Claim | None
    short: tuple[str, ...]
    may_borrow: bool
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
        left = [one for one in self.candidates if one.key not in self.gone]
        allowed, _ = self._allowed(left, self.short or (self.claim.wanted if self.claim else ()))
        self._take(allowed)
        return self.search.exactly(least)

    def _take(self, victims: Iterable[Allocation]) -> None:
        self.taken += victims
        for one in with_siblings(self.state, self.taken):
            if one.key not in self.gone:
                self.gone[one.key] = one
                self.state.cluster.vacate(one)
                self.state.quotas.release(one.namespace, one.charge)
                for sibling in _placed_of(self.state, one.request_key):  # how many of them may leave has changed
                    self._clearable.pop(sibling.node, None)
        if self.claim is not None:
            self._clearable.clear()  # who is above soft may have changed everywhere
        self._look_again()

    def _look_again(self) -> None:
        """Count free room and neighbours anew after somebody left or came back."""
        search = self.search
        search.board.renew()
        search.board.refresh(search.shape, search.request, search.at)
        search.around = surroundings_of(self.state, search.request)
        search.minds = search.around is not None and not search.around.says_nothing

    # ------------------------------------------------------------------ others

    def _allowed(
        self, those: list[Allocation], dimensions: Collection[str], *, first: Allocation | None = None
    ) -> tuple[list[Allocation], list[Allocation]]:
        """Who of those may be taken one after the other for what is short in `dimensions`, and who may not.

        `first`: begin with this one. Own candidates always may.
        """
        claim = self.claim
        if claim is None or all(one.namespace == claim.namespace for one in those):
            return those, []
        allowed: list[Allocation] = []
        refused: list[Allocation] = []
        with self.state.journal.trial():
            for one in self._ordered(those, first):
                group = self._more_leaving(allowed, one)
                if one.namespace != claim.namespace and not self._may_go(group, dimensions):
                    refused.append(one)
                    continue
                allowed.append(one)
                for leaving in group:
                    self.state.quotas.release(leaving.namespace, leaving.charge)
        return allowed, refused

    def _ordered(self, those: list[Allocation], first: Allocation | None) -> Iterable[Allocation]:
        if first is not None:
            yield first
        yield from in_order(self.state, self.claim, [one for one in those if one is not first])

    def _may_go(self, group: list[Allocation], dimensions: Collection[str]) -> bool:
        """Whether a victim and who must leave with it may be taken next."""
        if self.claim is None:
            return False
        with self.state.journal.trial():
            for one in group:
                if why_not_taken(self.state, self.claim, one, dimensions) is not None:
                    return False
                self.state.quotas.release(one.namespace, one.charge)
        return True

    def _lacking(self, position: int) -> list[str]:
        """What one more instance lacks there, of what a claim can be made for."""
        free = self.search.board.free[position]
        wanted = self.claim.wanted if self.claim is not None else ()
        return [name for name, more in self.request.charge.dimensions() if more > free.amount(name) and name in wanted]

    # ------------------------------------------------------------------ quota

    def _make_headroom(self) -> bool:
        """Victims until the namespace may be charged, in the order of R60; who is not needed is given back."""
        short = self._shortfall()
        if not short:
            return True
        victims = self._enough(short)
        if victims is None:
            return False
        for one in reversed(victims.copy()):
            without = [other for other in victims if other is not one]
            if not self._shortfall_without(without):
                victims = without
        self.may_be_too_many = True
        self._take(victims)
        return True

    def _enough(self, short: list[str]) -> list[Allocation] | None:
        """As many as it takes, from the first; None: all together are not enough."""
        victims: list[Allocation] = []
        useful = [one for one in self.candidates if any(one.charge.amount(name) for name in short)]
        with self.state.journal.trial():
            for one in in_order(self.state, self.claim, useful):
                group = self._more_leaving(victims, one)
                if one.namespace != self.request.namespace and not self._may_go(group, self.short):
                    continue
                victims.append(one)
                for leaving in group:
                    self.state.quotas.release(leaving.namespace, leaving.charge)
                if not self._shortfall():
                    return victims
        return None

    def _shortfall_without(self, victims: Collection[Allocation]) -> list[str]:
        with self.state.journal.trial():
            for one in with_siblings(self.state, victims):
                self.state.quotas.release(one.namespace, one.charge)
            return self._shortfall()

    def _shortfall(self) -> list[str]:
        """The dimensions in which the quota would be exceeded on what is left."""
        request = self.request
        may_borrow = self.may_borrow and request.borrow is Borrow.ALLOWED
        amount = request.charge.times(self.missing)
        if request.reservation is not None or not (self.item.grant.quota_short or not self.may_borrow):
            return []
        reasons = shortfall_of(self.state, request.namespace, amount, may_borrow=may_borrow, at=self.search.at)
        return [reason.dimension for reason in reasons if reason.dimension is not None]

    def _more_leaving(self, before: list[Allocation], one: Allocation) -> list[Allocation]:
        """Who leaves with `one` beside those who leave with the ones `before` it, or are gone already."""
        if _is_single(self.state, one.request_key):
            return [] if one.key in self.gone else [one]
        earlier = {sibling.key for sibling in self._leaving(before)} if before else set[AllocationKey]()
        return [sibling for sibling in self._leaving([*before, one]) if sibling.key not in earlier]

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
        tier = max(tier_of(self.state, self.claim, one) for one in leaving)
        rank = (tier, *_weight(leaving), node)
        return _Clearable(position=position, victims=victims, leaving=len(leaving), rank=rank)

    def _victims_on(self, position: int, there: list[Allocation]) -> list[Allocation] | None:
        """Who leaves so that one more instance fits. Who may not be taken after the others may be in their stead."""
        dimensions = self.short or self._lacking(position)
        allowed, refused = self._allowed(there, dimensions)
        found = self._needed(position, allowed)
        for one in refused if found is None else ():
            allowed, _ = self._allowed(there, dimensions, first=one)
            found = self._needed(position, allowed) if one in allowed else None
            if found is not None:
                break
        return found

    def _needed(self, position: int, there: list[Allocation]) -> list[Allocation] | None:
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
