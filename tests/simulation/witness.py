"""A service whose proposals, and the leader's answers to them, are written down: what was promised must be found."""

from dataclasses import dataclass, field
from typing import Any

from berth.effects import Effect, Message, Propose
from berth.ids import Sequence
from berth.messages.commands import ProposalAnswer
from berth.messages.envelope import Record
from berth.messages.events import Transaction
from berth.model.ledger import State
from berth.wire.codec import encode_event

Bytes = tuple[bytes, ...]


@dataclass
class Promises:
    """What proposers of one world were told: each transaction, as bytes, that was said to be committed, and where."""

    offered: dict[str, tuple[Transaction, ...]] = field(default_factory=dict[str, "tuple[Transaction, ...]"])
    accepted: list[tuple[Sequence, Bytes]] = field(default_factory=list["tuple[Sequence, Bytes]"])

    def note_effects(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            if isinstance(effect, Propose):
                self.offered[effect.proposal.id] = effect.proposal.transactions
        return effects

    def note_answer(self, answer: ProposalAnswer) -> None:
        for transaction, refusal in zip(self.offered[answer.id], answer.outcomes, strict=True):
            if refusal is None and answer.sequence is not None:
                self.accepted.append((answer.sequence, written(transaction)))


def written(transaction: Transaction) -> Bytes:
    return tuple(encode_event(event) for event in transaction)


class Witnessed:
    """Behind the same protocol as the service itself (`berth.effects.Service`)."""

    def __init__(self, service: Any, promises: Promises) -> None:
        self.service = service
        self.role: str = service.role
        self.subscriptions = service.subscriptions
        self._promises = promises

    @property
    def state(self) -> State:
        return self.service.state

    @property
    def sequence(self) -> Sequence:
        return self.service.sequence

    def replay(self, record: Record) -> None:
        self.service.replay(record)

    def started(self, now_ms: int) -> list[Effect]:
        return self._promises.note_effects(self.service.started(now_ms))

    def fold(self, record: Record, now_ms: int) -> list[Effect]:
        return self._promises.note_effects(self.service.fold(record, now_ms))

    def handle(self, message: Message, now_ms: int) -> list[Effect]:
        if isinstance(message.body, ProposalAnswer):
            self._promises.note_answer(message.body)
        return self._promises.note_effects(self.service.handle(message, now_ms))

    def settle(self, now_ms: int) -> list[Effect]:
        return self._promises.note_effects(self.service.settle(now_ms))

    def deadline(self) -> int | None:
        return self.service.deadline()
