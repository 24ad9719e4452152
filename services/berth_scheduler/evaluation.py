"""One evaluation after the other: judged on the own view, offered to the leader, answered to quota.

Items of a batch, and those of proposals in flight, see each other as placed (`assumed`). What fails only
because of something assumed, or of a node that is silent for the moment, is judged again when that is
settled: nothing is queued for losing a race. Next in the walk: `berth.v1.commit.scheduler`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from berth.effects import Effect, Reply
from berth.ids import Attempt, NodeId, RequestKey, Sequence
from berth.messages.commands import (
    Evaluation,
    EvaluationAnswer,
    EvaluationItem,
    EvaluationOutcome,
    Refusal,
    RefusalCode,
    Verdict,
)
from berth.messages.envelope import Record
from berth.messages.events import AllocationPlaced, RequestPlaced, Wake, WakeOn
from berth.model.claims import claim_of, has_debtors
from berth.model.cluster import AllocationState
from berth.model.entitlement import shortfall
from berth.model.ledger import State, requests_named
from berth.model.priorities import Priorities
from berth.model.queue import Promise
from berth_scheduler.assumed import Assumptions
from berth_scheduler.board import Board
from berth_scheduler.earliest import earliest_start, is_foreseeable, offered
from berth_scheduler.limits import Limits
from berth_scheduler.offers import Offered, Outcome
from berth_scheduler.placement import Placed, place, transaction_of
from berth_scheduler.preemption import preempt
from berth_scheduler.unplaceable import Unplaceable

LOST_RACES = frozenset({RefusalCode.CAPACITY, RefusalCode.RULE, RefusalCode.WINDOW, RefusalCode.STALE_VICTIM})
"""The ledger had moved on: judged again on the newer view."""

ON_QUOTA = (Wake(on=WakeOn.QUOTA), Wake(on=WakeOn.CAPACITY))
ON_RECLAIM = Wake(on=WakeOn.RECLAIM)

WorkKey = tuple[RequestKey, Attempt]


@dataclass(slots=True, kw_only=True, eq=False)
class Work:
    """One request at one attempt, from the evaluation that brought it to its outcome.

    `askers`: (evaluation, where its answer goes). `placed`: what is on offer since the view `judged_on`, or was
    accepted (`accepted`). `earliest`: when it could start, if somebody wants to know.
    `view`: judged again not before the view is there, or at `wait_until` (milliseconds UTC) at the latest.
    `blocked`: fails only because of what is assumed or silent; judged again when any of that is not so any more.
    """

    item: EvaluationItem
    askers: list[tuple[str, str]]
    give_up_at: int
    view: Sequence = Sequence(0)
    wait_until: int = 0
    blocked: bool = False
    conflicts: int = 0
    placed: tuple[AllocationPlaced, ...] = ()
    judged_on: Sequence = Sequence(0)
    accepted: Sequence | None = None
    settled: bool = False
    earliest: Promise | None = None

    @property
    def request_key(self) -> RequestKey:
        return self.item.request.key

    @property
    def key(self) -> WorkKey:
        return (self.item.request.key, self.item.attempt)


def _wakes_on(work: Work, found: Unplaceable) -> tuple[Wake, ...]:
    """Room may also come from what others begin to use above soft, for whom may take it back."""
    waits_for_room = any(wake.on is WakeOn.CAPACITY for wake in found.wake)
    return (*found.wake, ON_RECLAIM) if work.item.grant.reclaim and waits_for_room else found.wake


@dataclass(slots=True, kw_only=True)
class Evaluations:
    """Everything under evaluation. `pending`: to be judged, in the order in which it was admitted."""

    state: State
    board: Board
    assumptions: Assumptions
    limits: Limits
    seed: str
    pending: list[Work] = field(default_factory=list[Work])
    _obstacles: tuple[int, frozenset[NodeId]] = (0, frozenset())
    _priorities: Priorities = field(init=False)
    _works: dict[WorkKey, Work] = field(default_factory=dict[WorkKey, Work])
    _attempts: dict[RequestKey, list[Work]] = field(default_factory=dict[RequestKey, list[Work]])
    _answers: dict[tuple[str, str], list[EvaluationOutcome]] = field(
        default_factory=dict[tuple[str, str], list[EvaluationOutcome]]
    )

    def __post_init__(self) -> None:
        self._priorities = Priorities(self.state)

    # ------------------------------------------------------------------ in

    def receive(self, evaluation: Evaluation, reply_to: str, now_ms: int) -> None:
        """Take a batch in. What is under evaluation already only gets one more asker."""
        for item in evaluation.items:
            asker = (evaluation.id, reply_to)
            known = self._works.get((item.request.key, item.attempt))
            if known is not None:
                known.askers.append(asker)
                if known.accepted is not None:
                    self._say(asker, known, Verdict.ACCEPTED, sequence=known.accepted)
                continue
            work = Work(
                item=item,
                askers=[asker],
                give_up_at=now_ms + self.limits.give_up_ms,
                view=item.view,
                wait_until=now_ms + self.limits.behind_ms,
            )
            if len(self._works) >= self.limits.waiting_max:
                refusal = Refusal(code=RefusalCode.OVERLOADED, detail="too many evaluations wait; ask again later")
                self._say(asker, work, Verdict.UNAVAILABLE, refusal=refusal)
                continue
            self._works[work.key] = work
            self._attempts.setdefault(work.request_key, []).append(work)
            self.pending.append(work)

    # ------------------------------------------------------------------ judged

    def judge(self, now_ms: int) -> list[Offered[Work]]:
        """Place what can be judged now, each seeing the earlier ones; the transactions to offer."""
        self._tidy(now_ms)
        ready = [work for work in self.pending if self._is_ready(work)]
        if not ready:
            return []
        at = max(self.state.at, now_ms)
        offered: list[Offered[Work]] = []
        failed: list[tuple[Work, Unplaceable]] = []
        self.assumptions.lay()
        foreseen = False
        for work in ready:
            found = self._place(work, at)
            if not isinstance(found, Placed) and self._may_evict(work):
                found = self._evict(work, at) or found
            if not isinstance(found, Placed) and work.item.wants_promise:
                foreseen |= self._foresee(work, found, at)
            if isinstance(found, Placed):
                work.placed, work.judged_on = found.allocations, self.state.sequence
                request, attempt = work.item.request, work.item.attempt
                self.assumptions.add(request, attempt, found.allocations, at=at, evicted=found.evicted)
                transaction = transaction_of(self.state, work.item, found)
                offered.append(Offered(transaction=transaction, purpose=work, traceparent=work.item.traceparent))
            else:
                failed.append((work, found))
        if foreseen:
            self.assumptions.lift()
        self._judge_alone(failed, at)
        self.pending = [work for work in self.pending if not work.settled and not work.placed]
        return offered

    def _tidy(self, now_ms: int) -> None:
        """Settle what the view has decided already; let go what was waited for, and has come or come too late."""
        obstacles = (self.assumptions.released, self.board.silent)
        for work in self.pending:
            if not work.settled and self._attempt_of(work) > work.item.attempt:
                self._settle(work, Verdict.SUPERSEDED)
            if now_ms >= work.wait_until:
                work.view = Sequence(0)
            if obstacles != self._obstacles:
                work.blocked = False
        self._obstacles = obstacles
        self.pending = [work for work in self.pending if not work.settled]

    def _attempt_of(self, work: Work) -> int:
        """The attempt at which the view has the request; an unknown one is at 1."""
        known = self.state.queue.requests.get(work.request_key)
        return 1 if known is None else known.attempt

    def _is_ready(self, work: Work) -> bool:
        """Whether the view is new enough to judge it, and nothing else must be settled first."""
        is_behind = self._attempt_of(work) < work.item.attempt
        is_assumed = work.request_key in self.assumptions
        return not (is_behind or is_assumed or work.blocked or self._is_racing(work))

    def _is_racing(self, work: Work) -> bool:
        """It lost a race to a record that the view does not have yet, or is asked for because of one."""
        return self.state.sequence < work.view

    def _place(self, work: Work, at: int) -> Placed | Unplaceable:
        """Where it goes with nobody leaving for it."""
        request, missing = work.item.request, self._missing(work)
        short = (
            shortfall(self.state, request, request.charge.times(missing), at=at) if work.item.grant.quota_short else ()
        )
        if short:
            return Unplaceable(reasons=short, wake=ON_QUOTA)
        return place(
            self.state,
            request,
            missing=missing,
            at=at,
            attempt=work.item.attempt,
            seed=self.seed,
            board=self.board,
        )

    def _may_evict(self, work: Work) -> bool:
        """Whether its quota service lets it take what is less important (R53), or above soft, and any of that runs."""
        request, grant = work.item.request, work.item.grant
        if grant.preempt and self._priorities.is_anybody_below(
            request.namespace, request.priority, self.assumptions.released
        ):
            return True
        claim = claim_of(self.state, request, request.charge) if grant.reclaim else None
        return claim is not None and has_debtors(self.state, claim)

    def _evict(self, work: Work, at: int) -> Placed | None:
        """Where it goes when others leave. Nobody leaves if it only has to wait for what is assumed, or silent."""
        disturbed = len(self.assumptions) > 0 or bool(self.board.silent)
        if disturbed and isinstance(self._undisturbed(work, at), Placed):
            return None
        return self._preempt(work, at)

    def _preempt(self, work: Work, at: int) -> Placed | None:
        return preempt(self.board, work.item, missing=self._missing(work), at=at, seed=self.seed)

    def _undisturbed(self, work: Work, at: int) -> Placed | Unplaceable:
        """As if nothing were assumed and nobody silent."""
        silent, self.board.silent = self.board.silent, frozenset()
        self.assumptions.lift()
        found = self._place(work, at)
        self.assumptions.lay()
        self.board.silent = silent
        return found

    def _foresee(self, work: Work, unplaceable: Unplaceable, at: int) -> bool:
        """Work out when it could start; the rest of this round leaves that alone, as if it were promised already."""
        work.earliest, request = None, work.item.request
        if is_foreseeable(unplaceable.reasons):
            least = max(1, self._missing(work) - (request.count - request.needed))
            work.earliest = earliest_start(self.board, request, least=least, at=at, seed=self.seed)
        if work.earliest is None or request.key in self.state.queue.promised:
            return False
        self.assumptions.promise(request, work.item.digest, work.earliest)
        return True

    def _missing(self, work: Work) -> int:
        """What the view says is missing, and what quota asked for, whichever is less; at least one."""
        request = work.item.request
        known = self.state.queue.requests.get(request.key)
        allocations = self.state.cluster.allocations
        live = [allocations[request.namespace, name] for name in known.live] if known else []
        placed = sum(one.state is AllocationState.PLACED for one in live)
        return max(1, min(work.item.missing, request.count - placed))

    def _judge_alone(self, failed: list[tuple[Work, Unplaceable]], at: int) -> None:
        """Answer what has no place on the committed view either; the rest waits until it is settled."""
        disturbed = len(self.assumptions) > 0 or bool(self.board.silent)
        silent = self.board.silent
        if failed and disturbed:
            self.assumptions.lift()
            self.board.silent = frozenset()
        for work, unplaceable in failed:
            found = self._place(work, at) if disturbed else unplaceable
            if isinstance(found, Placed) or (disturbed and self._may_evict(work) and self._preempt(work, at)):
                work.blocked = True
            else:
                self._settle(
                    work,
                    Verdict.UNPLACEABLE,
                    reasons=found.reasons,
                    wake=_wakes_on(work, found),
                    evaluated_at=self.state.sequence,
                    earliest_start=offered(work.earliest),
                )
        self.board.silent = silent

    # ------------------------------------------------------------------ out

    def decided(self, outcome: Outcome[Work], now_ms: int) -> None:
        """The leader accepted or refused one transaction."""
        work, refusal = outcome.purpose, outcome.refusal
        if work.settled:
            return
        if refusal is None:
            work.accepted = outcome.sequence
            self._tell(work, Verdict.ACCEPTED, sequence=outcome.sequence)
            return  # assumed until the record is folded
        self._withdraw(work)
        if refusal.code in LOST_RACES:
            self._raced(work, outcome.sequence, now_ms)
        elif refusal.code is RefusalCode.SUPERSEDED:
            self._settle(work, Verdict.SUPERSEDED)
        else:
            self._settle(work, Verdict.REFUSED, refusal=refusal)

    def _raced(self, work: Work, sequence: Sequence, now_ms: int) -> None:
        work.conflicts += 1
        if work.conflicts >= self.limits.conflicts_max:
            self._settle(work, Verdict.CONTENDED)
            return
        # A view that was at the tip lost to another transaction of the same record; an older one to that tip.
        was_at_tip = work.judged_on >= sequence - 1
        work.view = sequence if was_at_tip else Sequence(sequence - 1)
        work.wait_until = now_ms + self.limits.retry_ms
        self.pending.append(work)

    def folded(self, record: Record) -> None:
        """The ledger decided: what was placed here is accepted, what was decided otherwise is superseded."""
        placed = {
            (event.key, event.attempt): event.data.allocations
            for transaction in record.transactions
            for event in transaction
            if isinstance(event.data, RequestPlaced)
        }
        named = dict.fromkeys(key for transaction in record.transactions for key in requests_named(transaction))
        for key in named:
            for work in list(self._attempts.get(key, ())):
                if self._attempt_of(work) > work.item.attempt:
                    self._decided_by(work, record.sequence, is_mine=placed.get(work.key) == work.placed)
        self.assumptions.folded(named)

    def _decided_by(self, work: Work, sequence: Sequence, *, is_mine: bool) -> None:
        if work.accepted is not None:
            self._forget(work)
        elif is_mine:
            self._settle(work, Verdict.ACCEPTED, sequence=sequence)
        else:
            self._settle(work, Verdict.SUPERSEDED)

    def given_up(self, works: Iterable[Work]) -> None:
        """The leader did not answer in time."""
        for work in works:
            if not work.settled:
                self._withdraw(work)
                self._settle(work, Verdict.UNAVAILABLE)

    def expire(self, now_ms: int) -> None:
        """What has waited too long to be judged goes back."""
        self.given_up([work for work in self.pending if now_ms >= work.give_up_at])
        self.pending = [work for work in self.pending if not work.settled]

    def answers(self) -> list[Effect]:
        """What there is to say by now, one message per evaluation."""
        effects: list[Effect] = [
            Reply(to=reply_to, body=EvaluationAnswer(id=name, outcomes=tuple(outcomes)))
            for (name, reply_to), outcomes in self._answers.items()
        ]
        self._answers.clear()
        return effects

    def deadline(self) -> int | None:
        """When a pending evaluation must be looked at next (milliseconds UTC)."""
        times = [work.give_up_at for work in self.pending]
        times += [work.wait_until for work in self.pending if self._is_racing(work)]
        return min(times, default=None)

    # ------------------------------------------------------------------ bookkeeping

    def _withdraw(self, work: Work) -> None:
        """What was assumed for it is free again."""
        work.placed = ()
        self.assumptions.drop(work.request_key, work.item.attempt)

    def _settle(self, work: Work, verdict: Verdict, **details: object) -> None:
        self._tell(work, verdict, **details)
        self._forget(work)

    def _forget(self, work: Work) -> None:
        work.settled = True
        del self._works[work.key]
        attempts = self._attempts[work.request_key]
        attempts.remove(work)
        if not attempts:
            del self._attempts[work.request_key]

    def _tell(self, work: Work, verdict: Verdict, **details: object) -> None:
        for asker in work.askers:
            self._say(asker, work, verdict, **details)

    def _say(self, asker: tuple[str, str], work: Work, verdict: Verdict, **details: object) -> None:
        request = work.item.request
        outcome = EvaluationOutcome.model_validate(
            {
                "namespace": request.namespace,
                "request": request.id,
                "attempt": work.item.attempt,
                "verdict": verdict,
                "traceparent": work.item.traceparent,
                **details,
            }
        )
        self._answers.setdefault(asker, []).append(outcome)
