"""Commands about nodes on their way through the ledger: each step is proposed until the view shows it done.

An errand is what an agent, an operator, silence or a drain wants; it knows its next transaction on any
view. One that somebody waits for is tried again after a refusal, until it is done or has taken too long;
one that nobody waits for is dropped, and the next sweep begins it again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from berth.effects import Effect, Reply
from berth.ids import Sequence
from berth.messages.commands import AdminAnswer, NodeAnswer, Refusal, RefusalCode
from berth.model.heartbeats import heartbeat_interval_ms
from berth.model.ledger import State
from berth_scheduler.assumed import Assumptions
from berth_scheduler.drain import Move
from berth_scheduler.limits import Limits
from berth_scheduler.node_events import Step
from berth_scheduler.offers import Offered, Outcome

FINAL = frozenset(
    {RefusalCode.INVALID, RefusalCode.TOO_LARGE, RefusalCode.NOT_FOUND, RefusalCode.INTERNAL, RefusalCode.CONFLICT}
)
"""Refusals that another try would meet again."""

ErrandName = tuple[object, ...]
"""What it is about: the same name is the same errand."""

NextStep = Callable[[State, int], Step | Move | Refusal | None]
"""What to propose next on a view at a time (milliseconds UTC); None: the view shows it done; or why it must not be."""


@dataclass(slots=True, kw_only=True, eq=False)
class Errand:
    """`name` says what it is about; `askers` wait for the answer, operators for one of their own kind.

    `move`, `last`: of the step on offer. `view`, `wait_until`: the next step waits for the view, so long at most.
    `committed`: where the last accepted step stands.
    """

    name: ErrandName
    next_step: NextStep
    give_up_at: int
    askers: list[str] = field(default_factory=list[str])
    is_admin: bool = False
    move: Move | None = None
    last: bool = True
    view: Sequence = Sequence(0)
    wait_until: int = 0
    committed: Sequence | None = None
    settled: bool = False


@dataclass(slots=True, kw_only=True)
class Errands:
    """Every errand of this process. `evict`: names of moves that no quota lets be doubled even for a moment."""

    state: State
    assumptions: Assumptions
    limits: Limits
    evict: set[ErrandName] = field(default_factory=set[ErrandName])
    _open: dict[ErrandName, Errand] = field(default_factory=dict[ErrandName, Errand])
    _pending: list[Errand] = field(default_factory=list[Errand])
    _answers: list[Effect] = field(default_factory=list[Effect])

    def __contains__(self, name: ErrandName) -> bool:
        return name in self._open

    def start(
        self,
        name: ErrandName,
        next_step: NextStep,
        now_ms: int,
        *,
        reply_to: str | None = None,
        is_admin: bool = False,
    ) -> None:
        """Begin; what is on its way already gets one more asker, and its newest wording."""
        errand = self._open.get(name)
        if errand is None:
            errand = Errand(
                name=name, next_step=next_step, give_up_at=now_ms + self.limits.give_up_ms, is_admin=is_admin
            )
            self._open[name] = errand
            self._pending.append(errand)
        errand.next_step = next_step
        if reply_to is not None:
            errand.askers.append(reply_to)

    def step(self, now_ms: int) -> list[Offered[Errand]]:
        """The transactions that are due; what the view shows done is answered."""
        ready = [one for one in self._pending if self._is_ready(one, now_ms)]
        if not ready:
            return []
        self._pending = [one for one in self._pending if not self._is_ready(one, now_ms)]
        offered: list[Offered[Errand]] = []
        self.assumptions.lay()
        for errand in ready:
            step = errand.next_step(self.state, now_ms)
            if step is None:
                self._done(errand, sequence=errand.committed)
                continue
            if isinstance(step, Refusal):
                self._done(errand, refusal=step)
                continue
            errand.move = step if isinstance(step, Move) else None
            errand.last = True if isinstance(step, Move) else step.last
            if isinstance(step, Move) and step.placed:
                self.assumptions.add(step.request, step.attempt, step.placed, at=max(self.state.at, now_ms))
            offered.append(Offered(transaction=step.transaction, purpose=errand))
        return offered

    def _is_ready(self, errand: Errand, now_ms: int) -> bool:
        return self.state.sequence >= errand.view or now_ms >= errand.wait_until

    def decided(self, outcome: Outcome[Errand], now_ms: int) -> None:
        """The leader accepted or refused one step."""
        errand, refusal = outcome.purpose, outcome.refusal
        if errand.settled:
            return
        if refusal is None:
            errand.committed = outcome.sequence
            if errand.last:
                self._done(errand, sequence=outcome.sequence)
            else:
                self._again(errand, outcome.sequence, now_ms + self.limits.answer_ms)
            return
        self._withdraw(errand, refusal)
        if not errand.askers or refusal.code in FINAL:
            self._done(errand, refusal=refusal)
        else:
            self._again(errand, outcome.sequence, now_ms + self.limits.retry_ms)

    def given_up(self, errands: list[Errand]) -> None:
        """The leader did not answer in time."""
        refusal = Refusal(code=RefusalCode.UNKNOWN, detail="no leader has answered yet; ask again")
        for errand in errands:
            if not errand.settled:
                self._withdraw(errand, refusal)
                self._done(errand, refusal=refusal)

    def expire(self, now_ms: int) -> None:
        """What has been tried for too long is answered."""
        self.given_up([one for one in self._pending if now_ms >= one.give_up_at])
        self._pending = [one for one in self._pending if not one.settled]

    def answers(self) -> list[Effect]:
        """What there is to say by now."""
        effects, self._answers = self._answers, []
        return effects

    def deadline(self) -> int | None:
        """When a pending errand must be looked at next (milliseconds UTC)."""
        return min((min(one.give_up_at, one.wait_until) for one in self._pending), default=None)

    def answer(self, reply_to: str, *, refusal: Refusal | None = None, sequence: Sequence | None = None) -> None:
        """An agent's answer; every one of them says how often to beat now."""
        interval = heartbeat_interval_ms(len(self.state.cluster.nodes))
        body = NodeAnswer(refusal=refusal, sequence=sequence or self.state.sequence, heartbeat_ms=interval)
        self._answers.append(Reply(to=reply_to, body=body))

    def _again(self, errand: Errand, view: Sequence, wait_until: int) -> None:
        errand.view = view
        errand.wait_until = wait_until
        self._pending.append(errand)

    def _withdraw(self, errand: Errand, refusal: Refusal) -> None:
        """A refused move is assumed no longer; where only quota forbids it, the next one evicts first."""
        move = errand.move
        if move is None:
            return
        self.assumptions.drop(move.request.key, move.attempt)
        if refusal.code in (RefusalCode.QUOTA, RefusalCode.CLASS):
            self.evict.add(errand.name)

    def _done(self, errand: Errand, *, refusal: Refusal | None = None, sequence: Sequence | None = None) -> None:
        errand.settled = True
        self._open.pop(errand.name, None)
        for reply_to in errand.askers:
            if errand.is_admin:
                self._answers.append(Reply(to=reply_to, body=AdminAnswer(refusal=refusal, sequence=sequence)))
            else:
                self.answer(reply_to, refusal=refusal, sequence=sequence)
