"""What is to be proposed until the ledger shows it done, and what is on its way to the leader.

A task makes its transaction on the newest state each time it is proposed, so proposing again is harmless.
Times are milliseconds UTC.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from berth.effects import Propose
from berth.ids import Sequence
from berth.messages.commands import Proposal, ProposalAnswer, Refusal, RefusalCode
from berth.messages.events import Transaction
from berth.model.ledger import State
from berth_quota.bounds import Bounds

EVENT_BYTES = 600
"""What an event takes beside a request's body, generously; each id of an allocation is counted besides."""


PASSING = frozenset({RefusalCode.NOT_LEADER, RefusalCode.OVERLOADED, RefusalCode.UNKNOWN})
"""Refusals that say nothing about what was proposed."""
NOBODY = Refusal(code=RefusalCode.NOT_LEADER, detail="nobody leads")
UNMOVED_BY_NEWS = frozenset({RefusalCode.TOO_EARLY, RefusalCode.TOO_LARGE, RefusalCode.INVALID, RefusalCode.INTERNAL})
PATIENCE = 10
"""So many times longer they wait."""


class Task(Protocol):
    """Something to bring about. Two tasks with the same `id` are the same."""

    @property
    def id(self) -> Hashable: ...

    @property
    def size(self) -> int:
        """Bytes that its transaction takes, roughly."""
        ...

    def transaction(self, state: State, now_ms: int) -> Transaction | None:
        """What to propose on this state; None when there is nothing to propose now."""
        ...


@dataclass(frozen=True, slots=True)
class Answered:
    """What the leader said to one task: None and a sequence is accepted; None and no sequence: no answer came.

    `view`: the sequence of the state that it was proposed on.
    """

    task: Task
    view: Sequence
    refusal: Refusal | None
    sequence: Sequence | None


@dataclass(slots=True)
class _Wanted:
    """`seen`: the state on which it was refused; it waits for a newer one, or until `not_before`."""

    task: Task
    seen: Sequence | None = None
    not_before: int = 0


@dataclass(slots=True)
class _Flying:
    tasks: list[Task]
    view: Sequence
    again_at: int


class Proposals:
    """Tasks by id: wanted, or flying in a proposal."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._wanted: dict[Hashable, _Wanted] = {}
        self._flying: dict[str, _Flying] = {}
        self._busy: dict[Hashable, None] = {}

    def __len__(self) -> int:
        return len(self._wanted) + len(self._busy)

    def want(self, task: Task, *, not_before: int = 0) -> None:
        """Propose it as soon as possible, unless it is on its way already."""
        if task.id not in self._busy:
            self._wanted[task.id] = _Wanted(task, not_before=not_before)

    def want_again(self, answered: Answered, now_ms: int) -> None:
        """It was not accepted: again on a newer state than it was proposed on, at the latest after a while.

        Without an answer at once; where news cannot help (too early, or a bug) after a while only.
        """
        wanted = _Wanted(answered.task)
        if answered.refusal is not None:
            on_news = answered.refusal.code not in UNMOVED_BY_NEWS
            wanted.seen = answered.view if on_news else None
            wanted.not_before = now_ms + self._bounds.backoff_ms * (1 if on_news else PATIENCE)
        self._wanted[answered.task.id] = wanted

    def collect(self, state: State, now_ms: int, next_id: "NextId") -> list[Propose]:
        """Everything that may be proposed now, in as few messages as it fits."""
        proposals: list[Propose] = []
        tasks: list[Task] = []
        transactions: list[Transaction] = []
        size = 0
        for wanted in self._ready(state, now_ms):
            transaction = wanted.task.transaction(state, now_ms)
            if transaction is None:
                continue
            more = wanted.task.size + EVENT_BYTES * len(transaction)
            full = len(tasks) == self._bounds.proposal_transactions_max
            if tasks and (full or size + more > self._bounds.message_bytes_max):
                proposals.append(self._fly(tasks, transactions, state.sequence, now_ms, next_id))
                tasks, transactions, size = [], [], 0
            tasks.append(wanted.task)
            transactions.append(transaction)
            size += more
        if tasks:
            proposals.append(self._fly(tasks, transactions, state.sequence, now_ms, next_id))
        return proposals

    def _ready(self, state: State, now_ms: int) -> list[_Wanted]:
        ready = [
            wanted
            for wanted in self._wanted.values()
            if wanted.not_before <= now_ms or (wanted.seen is not None and wanted.seen < state.sequence)
        ]
        for wanted in ready:
            del self._wanted[wanted.task.id]
        return ready

    def _fly(
        self, tasks: list[Task], transactions: list[Transaction], view: Sequence, now_ms: int, next_id: "NextId"
    ) -> Propose:
        name = next_id()
        self._flying[name] = _Flying(tasks, view, now_ms + self._bounds.proposal_ms)
        for task in tasks:
            self._busy[task.id] = None
        return Propose(proposal=Proposal(id=name, transactions=tuple(transactions), view_sequence=view))

    def answered(self, answer: ProposalAnswer) -> list[Answered]:
        """What the leader said to each task; a second answer to the same proposal says nothing."""
        flying = self._land(answer.id)
        if flying is None:
            return []
        if len(flying.tasks) != len(answer.outcomes):
            return _all(flying, None)
        return [
            Answered(task, flying.view, refusal, answer.sequence if refusal is None else None)
            for task, refusal in zip(flying.tasks, answer.outcomes, strict=True)
        ]

    def nobody(self, name: str) -> list[Answered]:
        """There was no leader to take the proposal."""
        flying = self._land(name)
        return [] if flying is None else _all(flying, NOBODY)

    def leader_elected(self, now_ms: int) -> None:
        """Who was asked does not lead any more: nothing that flies is waited for any longer."""
        for flying in self._flying.values():
            flying.again_at = min(flying.again_at, now_ms)

    def overdue(self, now_ms: int) -> list[Answered]:
        """Proposals that nobody answered in time: perhaps committed, perhaps not."""
        late = [name for name, flying in self._flying.items() if flying.again_at <= now_ms]
        landed = [flying for name in late if (flying := self._land(name)) is not None]
        return [answered for flying in landed for answered in _all(flying, None)]

    def _land(self, name: str) -> _Flying | None:
        flying = self._flying.pop(name, None)
        for task in flying.tasks if flying is not None else ():
            del self._busy[task.id]
        return flying

    def deadline(self) -> int | None:
        """When something is overdue, or may be proposed again; proposals fly in the order in which they are due."""
        times = [wanted.not_before for wanted in self._wanted.values()]
        if self._flying:
            times.append(next(iter(self._flying.values())).again_at)
        return min(times, default=None)

    def clear(self) -> None:
        """This process is not the active one any more; what is flying may still be committed, which is harmless."""
        self._wanted.clear()
        self._flying.clear()
        self._busy.clear()


def _all(flying: _Flying, refusal: Refusal | None) -> list[Answered]:
    return [Answered(task, flying.view, refusal, None) for task in flying.tasks]


class NextId(Protocol):
    def __call__(self) -> str: ...
