"""Proposals that the leader has not answered yet: sent again under the same id until it has, or given up.

What must live here: which transaction is on offer, for what purpose, and when to ask again. What must not:
what a transaction is for, and what to do with its outcome.
"""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Listing
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from berth.effects import Effect, Propose
from berth.ids import Sequence, Term
from berth.messages.commands import Proposal, ProposalAnswer, Refusal, RefusalCode
from berth.messages.events import Event, RequestPlaced, RequestSubmitted, Transaction
from berth.wire.codec import encode_event, request_shape
from berth_scheduler.limits import Limits


class Purpose(Protocol):
    """What a transaction is for. `settled`: its outcome is known from elsewhere, nobody waits for the leader."""

    settled: bool


P = TypeVar("P", bound=Purpose)

PROPOSAL_BYTES_MAX = 512 * 1024
"""A larger batch becomes several proposals: the server takes messages of 1 MiB at most."""

EVENT_BYTES, ALLOCATION_BYTES, EXTENDED_BYTES = 480, 300, 350
"""What an event, an allocation in it and an extended resource of its charge take beside a request's shape, at most."""

NOBODY_JUDGED_IT = frozenset({RefusalCode.NOT_LEADER, RefusalCode.OVERLOADED, RefusalCode.UNKNOWN})
"""Answers that say nothing about the transaction itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered(Generic[P]):
    """One transaction and what it is for."""

    transaction: Transaction
    purpose: P
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[P]):
    """What became of one transaction: accepted at `sequence` (refusal None), or refused, judged as part of it."""

    purpose: P
    refusal: Refusal | None
    sequence: Sequence


@dataclass(slots=True, kw_only=True)
class _Open(Generic[P]):
    proposal: Proposal
    purposes: tuple[P, ...]
    traceparent: str | None
    patience_ms: int
    ask_at: int
    give_up_at: int


@dataclass(slots=True)
class Offers(Generic[P]):
    """Open proposals, by id. `next_id`: gives each id of this process once."""

    next_id: Callable[[], str]
    limits: Limits
    _open: dict[str, _Open[P]] = field(default_factory=dict[str, "_Open[P]"])
    _term: Term = Term(0)

    def propose(self, offered: Listing[Offered[P]], *, view: Sequence, now_ms: int) -> list[Effect]:
        """Offer these transactions, in as few proposals as their size allows."""
        effects: list[Effect] = []
        for batch in _batches(offered):
            proposal = Proposal(
                id=self.next_id(),
                transactions=tuple(one.transaction for one in batch),
                view_sequence=view,
            )
            one = _Open(
                proposal=proposal,
                purposes=tuple(one.purpose for one in batch),
                traceparent=batch[0].traceparent if len(batch) == 1 else None,
                patience_ms=self.limits.answer_ms,
                ask_at=now_ms + self.limits.answer_ms,
                give_up_at=now_ms + self.limits.give_up_ms,
            )
            self._open[proposal.id] = one
            effects.append(Propose(proposal=proposal, traceparent=one.traceparent))
        return effects

    def answered(self, answer: ProposalAnswer, now_ms: int) -> list[Outcome[P]]:
        """The outcomes that an answer brings; nothing for an answer of a lower term, or to nobody's question.

        What nobody judged is offered again soon, by itself.
        """
        if 0 < answer.term < self._term or answer.id not in self._open:
            return []
        self._term = max(self._term, answer.term)
        one = self._open.pop(answer.id)
        if len(answer.outcomes) != len(one.purposes):
            self._open[answer.id] = one
            return []
        judged = [
            Outcome(purpose=purpose, refusal=refusal, sequence=answer.sequence or Sequence(0))
            for purpose, refusal in zip(one.purposes, answer.outcomes, strict=True)
            if not _is_unjudged(refusal)
        ]
        again = [index for index, refusal in enumerate(answer.outcomes) if _is_unjudged(refusal)]
        if again:
            self._keep(one, again, now_ms)
        return judged

    def _keep(self, one: _Open[P], indexes: list[int], now_ms: int) -> None:
        """All of a proposal keeps its id; a part of it becomes one of its own."""
        proposal = one.proposal
        if len(indexes) < len(one.purposes):
            transactions = tuple(proposal.transactions[index] for index in indexes)
            proposal = Proposal(id=self.next_id(), transactions=transactions, view_sequence=proposal.view_sequence)
            one.purposes = tuple(one.purposes[index] for index in indexes)
            one.proposal = proposal
        one.ask_at = now_ms + self.limits.retry_ms
        self._open[proposal.id] = one

    def nobody_there(self, token: str, now_ms: int) -> None:
        """No leader took it: ask again soon."""
        one = self._open.get(token)
        if one is not None:
            one.ask_at = now_ms + self.limits.retry_ms

    def leader_elected(self, now_ms: int) -> None:
        """Who was asked does not lead any more: ask the next one now, not when patience ends."""
        for one in self._open.values():
            one.ask_at = min(one.ask_at, now_ms)

    def due(self, now_ms: int) -> tuple[list[Effect], list[P]]:
        """What to send again now, and the purposes that have waited too long."""
        effects: list[Effect] = []
        given_up: list[P] = []
        for name, one in list(self._open.items()):
            if all(purpose.settled for purpose in one.purposes):
                del self._open[name]
            elif now_ms >= one.give_up_at:
                del self._open[name]
                given_up.extend(purpose for purpose in one.purposes if not purpose.settled)
            elif now_ms >= one.ask_at:
                one.patience_ms *= 2
                one.ask_at = now_ms + one.patience_ms
                effects.append(Propose(proposal=one.proposal, traceparent=one.traceparent))
        return effects, given_up

    def deadline(self) -> int | None:
        """When something is due next (milliseconds UTC)."""
        return min((min(one.ask_at, one.give_up_at) for one in self._open.values()), default=None)


def _is_unjudged(refusal: Refusal | None) -> bool:
    return refusal is not None and refusal.code in NOBODY_JUDGED_IT


def _batches(offered: Listing[Offered[P]]) -> Iterator[list[Offered[P]]]:
    batch: list[Offered[P]] = []
    size = 0
    for one in offered:
        grows = sum(_size(event) for event in one.transaction)
        if batch and size + grows > PROPOSAL_BYTES_MAX:
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += grows
    if batch:
        yield batch


def _size(event: Event) -> int:
    """Bytes that it takes in a proposal, at most. What a placement consists of is not encoded to be measured."""
    match event.data:
        case RequestSubmitted(request=request):
            return EVENT_BYTES + len(request_shape(request))
        case RequestPlaced(allocations=allocations):
            extended = max(len(one.charge.extended) for one in allocations)
            return EVENT_BYTES + len(allocations) * (ALLOCATION_BYTES + EXTENDED_BYTES * extended)
        case _:
            return len(encode_event(event)) + 16
