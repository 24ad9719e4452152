"""Who must leave so that a request has its place: as few as will do, and those who matter least (R53–R63).

Its own namespace's less important work is preempted; what others of its cohort tree use above soft is taken
back (`reclaimed`). Evictions and placement are one transaction, so nothing can take the room in between; for
the same reason victims have no grace. In the end each victim is put back once more, and stays back only if the
law would then refuse the placement. Pure; the state is as before afterwards. Next in the walk: `evaluation`.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from berth.ids import NodeId
from berth.messages.commands import EvaluationItem
from berth.messages.events import Event, How
from berth.messages.reasons import ReasonCode
from berth.model.check import check
from berth.model.claims import Claim, claim_of
from berth.model.cluster import Allocation
from berth.model.entitlement import lending
from berth.model.ledger import State
from berth.model.lending import Member
from berth.model.victims import candidates, short_of, tier_of
from berth_scheduler.board import Board
from berth_scheduler.clearing import Clearing, with_siblings
from berth_scheduler.departure import Cause, departures
from berth_scheduler.placement import Placed, on_nodes, transaction_of
from berth_scheduler.search import search_for


def preempt(board: Board, item: EvaluationItem, *, missing: int, at: int, seed: str) -> Placed | None:
    """Places for `item` at `at` (milliseconds UTC) and who is evicted for them; None: no victims would do.

    As many of `missing` instances as have a place without victims, but nobody is evicted for more than the
    request needs to run.
    """
    state, request = board.state, item.request
    amount = request.charge.times(missing)
    claim = claim_of(state, request, amount) if item.grant.reclaim else None
    found = candidates(state, request, item.grant, at, claim)
    if not found:
        return None
    short = short_of(state, request, amount, at) if item.grant.quota_short else ()
    asking = _Asking(board=board, item=item, missing=missing, at=at, seed=seed, claim=claim, short=short)
    for attempt in _attempts(state, claim, found, short):
        placed = asking.tried(attempt)
        if placed is not None:
            return placed
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """One way to ask: of whom, and whether the namespace may borrow with what is placed."""

    candidates: list[Allocation]
    may_borrow: bool = True


def _attempts(state: State, claim: Claim | None, found: list[Allocation], short: Collection[str]) -> Iterator[_Attempt]:
    """Borrowing, but only from those over whom there is advantage; or from all, but within `soft`."""
    favoured = [one for one in found if not tier_of(state, claim, one).is_unfavoured]
    first = _Attempt(candidates=favoured)
    if claim is None or len(favoured) == len(found) or not _is_below_soft(state, claim, short or claim.wanted):
        yield first
        return
    second = _Attempt(candidates=found, may_borrow=False)
    has_advantage = any(one.namespace != claim.namespace for one in favoured)
    yield from (first, second) if has_advantage else (second, first)


def _is_below_soft(state: State, claim: Claim, dimensions: Collection[str]) -> bool:
    """In every dimension that is short."""
    member: Member = lending(state.quotas).namespaces[claim.namespace]
    return all(member.used.get(name, 0) < member.nominal[name] for name in dimensions if name in member.nominal)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """One request that looks for victims. `claim`, `short`: as they are while nobody has left."""

    board: Board
    item: EvaluationItem
    missing: int
    at: int
    seed: str
    claim: Claim | None
    short: tuple[str, ...]

    def tried(self, attempt: _Attempt) -> Placed | None:
        """The placement that this attempt finds and the law accepts."""
        item, state, at = self.item, self.board.state, self.at
        if not attempt.candidates:
            return None
        with state.journal.trial():
            self.board.renew()
            clearing = Clearing(
                item=item,
                missing=self.missing,
                search=search_for(self.board, item.request, at=at, attempt=item.attempt, seed=self.seed),
                candidates=attempt.candidates,
                claim=self.claim,
                short=self.short,
                may_borrow=attempt.may_borrow,
            )
            found = clearing.nodes_and_victims()
        if found is None:
            return None
        nodes, victims = found
        if clearing.may_be_too_many:
            victims = self._reprieved(nodes, victims)
        placed = self._placed(nodes, victims)
        within = len(placed.evicted) <= item.grant.max_evictions
        return placed if within and self._is_lawful(placed) else None

    def _reprieved(self, nodes: Collection[NodeId], victims: list[Allocation]) -> list[Allocation]:
        """Put back whoever is not needed for these nodes: own work first, then the most important (R54)."""
        kept, state = list(victims), self.board.state

        def importance(one: Allocation) -> tuple[int, int, int, str]:
            return (-tier_of(state, self.claim, one), -one.priority, one.placed_at, one.id)

        for one in sorted(victims, key=importance):
            without = [other for other in kept if other is not one]
            if self._is_lawful(self._placed(nodes, without)):
                kept = without
        return kept

    def _placed(self, nodes: Collection[NodeId], victims: list[Allocation]) -> Placed:
        state, request = self.board.state, self.item.request
        evicted = with_siblings(state, victims)
        events: list[Event] = []
        for reason in (ReasonCode.PREEMPTED, ReasonCode.RECLAIMED):
            is_own = reason is ReasonCode.PREEMPTED
            those = [one for one in evicted if (one.namespace == request.namespace) is is_own]
            cause = Cause(how=How.EVICTED, reason=reason, at=self.at, graceful=False)
            events += [event for group in departures(state, those, cause) for event in group]
        allocations = on_nodes(state, request, nodes)
        return Placed(allocations=allocations, evicted=tuple(evicted), events=tuple(events))

    def _is_lawful(self, placed: Placed) -> bool:
        state = self.board.state
        return check(state, transaction_of(state, self.item, placed), self.at) is None
