"""Whether a proposal is committed: the leader's judgement, pure. Step 4 and 6 of the walk.

Proposals wait as bytes and events; a flush checks them one after the other on the committed state, each
seeing the earlier ones, and becomes one record. One append is in flight; what arrives meanwhile is the
next flush (group commit, no timer). Nothing is answered before the append is acknowledged.

What must live here: every judgement. What must not: the bus, the stream, the clock, the election.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from berth.ids import LedgerId, NodeId, Sequence, Term
from berth.messages.commands import ProposalAnswer, Refusal, RefusalCode
from berth.messages.envelope import NO_HASH, RECORD_BYTES_MAX, RECORD_EVENTS_MAX, Tip
from berth.messages.events import DigestsRecorded, Event, LeaderElected, LedgerCreated, NodeLost
from berth.model.check import accept
from berth.model.ledger import State
from berth.wire.codec import (
    OfferedProposal,
    OfferedTransaction,
    RecordHead,
    decode_record,
    encode_event,
    encode_record,
)

PROPOSALS_WAITING_MAX = 4_096
WAITING_BYTES_MAX = 64 * 1024 * 1024
CHECKING_MAX_US = 5_000
"""A flush is cut after that much checking, so that latency stays bounded."""

HEAD_BYTES = 1_024
"""What a record needs beside its events, generously."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back to the proposer, after the append."""

    reply_to: str
    body: ProposalAnswer
    traceparent: str | None


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """A proposal, as far as it has been judged."""

    proposal: OfferedProposal
    reply_to: str
    traceparent: str | None
    outcomes: list[Refusal | None] = field(default_factory=list[Refusal | None])


@dataclass(frozen=True, slots=True, kw_only=True)
class Flush:
    """One record to append: `payload` after the stream's `expected` sequence; `answers` once it is there.

    `payload` empty: everything was refused, nothing needs to be stored.
    """

    payload: bytes
    expected: Sequence
    tip: Tip | None
    answers: tuple[Answer, ...]
    transactions: int
    traced: tuple[tuple[str, str], ...]
    """(traceparent, namespace/request) of each accepted transaction that carries one."""


class Committer:
    """Judges for one term. `state` is the committed state; while a flush is in flight it is ahead by that flush."""

    def __init__(
        self,
        state: State,
        *,
        leader: str,
        monotonic_us: Callable[[], int],
        may_be_lost: Callable[[NodeId], bool],
    ) -> None:
        self.state = state
        self.leader = leader
        self._monotonic_us = monotonic_us
        self._may_be_lost = may_be_lost
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._in_flight: Flush | None = None
        self._mark = 0
        self._judged_before: tuple[_Waiting, int] | None = None

    @property
    def has_work(self) -> bool:
        return bool(self._waiting) and self._in_flight is None

    @property
    def in_flight(self) -> Flush | None:
        return self._in_flight

    @property
    def term(self) -> Term:
        assert self.state.tip is not None, "nobody commits before the ledger was created"
        return self.state.tip.term

    def offer(self, proposal: OfferedProposal, *, reply_to: str, traceparent: str | None) -> Answer | None:
        """Take a proposal into the queue; answered at once only when that is full."""
        if len(self._waiting) >= PROPOSALS_WAITING_MAX or self._waiting_bytes > WAITING_BYTES_MAX:
            refusal = Refusal(code=RefusalCode.OVERLOADED, detail="the leader's queue is full; propose again later")
            return self._answer(proposal, reply_to, traceparent, [refusal] * len(proposal.transactions))
        self._waiting.append(_Waiting(proposal=proposal, reply_to=reply_to, traceparent=traceparent))
        self._waiting_bytes += proposal.size
        return None

    def holds(self, reply_to: str) -> bool:
        """Whether the proposal whose answer goes to `reply_to` waits, or its append is in flight."""
        leaving = self._in_flight.answers if self._in_flight is not None else ()
        return any(one.reply_to == reply_to for one in (*self._waiting, *leaving))

    def flush(self, *, now_ms: int, stream_sequence: Sequence) -> Flush:
        """Judge what waits and make one record of it, to be stored right after `stream_sequence`."""
        assert self._in_flight is None, "I15: one append in flight"
        tip = self.state.tip
        assert tip is not None and tip.term > 0, "I5: a leader commits only after its barrier"
        at, sequence = max(tip.at, now_ms), Sequence(stream_sequence + 1)
        self._mark = self.state.journal.begin()
        head_of_queue = self._waiting[0] if self._waiting else None
        self._judged_before = (head_of_queue, len(head_of_queue.outcomes)) if head_of_queue else None
        batch = _Batch()
        if self.state.wants_digests(sequence):
            recorded = Event(DigestsRecorded(digests=self.state.digests()))
            self.state.fold_transaction((recorded,), at=at, sequence=sequence)
            batch.add(OfferedTransaction(events=(recorded,), lines=(encode_event(recorded),)))
        answers = self._judge(batch, at, sequence)
        if batch.accepted == 0:
            self.state.journal.undo(self._mark)
            return Flush(payload=b"", expected=stream_sequence, tip=None, answers=answers, transactions=0, traced=())
        head = RecordHead(
            ledger_id=tip.ledger_id,
            sequence=sequence,
            term=tip.term,
            leader=tip.leader,
            barrier=tip.barrier,
            at=at,
            prev_hash=tip.hash,
        )
        self._in_flight = _flush(head, batch, answers, stream_sequence)
        return self._in_flight

    def _judge(self, batch: "_Batch", at: int, sequence: Sequence) -> tuple[Answer, ...]:
        answers: list[Answer] = []
        began = self._monotonic_us()
        while self._waiting and self._monotonic_us() - began < CHECKING_MAX_US:
            waiting = self._waiting[0]
            transactions = waiting.proposal.transactions
            while len(waiting.outcomes) < len(transactions):
                transaction = transactions[len(waiting.outcomes)]
                if not batch.has_room_for(transaction):
                    return tuple(answers)
                outcome = self._outcome(transaction, at, sequence)
                waiting.outcomes.append(outcome)
                if outcome is None:
                    batch.accept(transaction)
            self._waiting.popleft()
            self._waiting_bytes -= waiting.proposal.size
            answers.append(
                self._answer(waiting.proposal, waiting.reply_to, waiting.traceparent, waiting.outcomes, sequence)
            )
        return tuple(answers)

    def _outcome(self, transaction: OfferedTransaction, at: int, sequence: Sequence) -> Refusal | None:
        if len(transaction.events) > RECORD_EVENTS_MAX - 1 or transaction.size > RECORD_BYTES_MAX - HEAD_BYTES:
            detail = f"{len(transaction.events)} events of {transaction.size} bytes do not fit one record"
            return Refusal(code=RefusalCode.TOO_LARGE, detail=detail)
        for event in transaction.events:
            if isinstance(event.data, NodeLost) and not self._may_be_lost(event.data.node):
                return Refusal(
                    code=RefusalCode.TOO_EARLY, detail=f"{event.data.node} was heard, or not listened for long"
                )
        try:
            return accept(self.state, transaction.events, at, sequence)
        except (AssertionError, LookupError, TypeError, ValueError) as error:
            return Refusal(code=RefusalCode.INTERNAL, detail=f"it does not fold: {error}")

    def appended(self) -> tuple[Answer, ...]:
        """The record in flight is committed: its answers may leave."""
        flush = self._in_flight
        assert flush is not None, "nothing is in flight"
        self.state.journal.keep()
        self.state.tip = flush.tip
        self._in_flight = None
        return flush.answers

    def withdrawn(self) -> tuple[Answer, ...]:
        """The record in flight is definitely not stored, or somebody else's fate now: take it back.

        The answers say `unknown`: a proposer asks again on the newer state, which decides it by attempt.
        """
        flush = self._in_flight
        assert flush is not None, "nothing is in flight"
        self.state.journal.undo(self._mark)
        self._in_flight = None
        self._forget_judgement()
        return unknown(flush.answers)

    def _forget_judgement(self) -> None:
        """A proposal that the record cut in two keeps only what earlier records committed of it."""
        if self._waiting and self._waiting[0].outcomes:
            cut = self._waiting[0]
            before = self._judged_before
            del cut.outcomes[before[1] if before is not None and before[0] is cut else 0 :]

    def stepped_down(self) -> tuple[Answer, ...]:
        """Answer everything that still waits with `not_leader`, but for what is committed of a proposal already."""
        refusal = Refusal(code=RefusalCode.NOT_LEADER, detail="the leader stepped down; propose to the next one")
        answers = tuple(
            self._answer(
                waiting.proposal,
                waiting.reply_to,
                waiting.traceparent,
                waiting.outcomes + [refusal] * (len(waiting.proposal.transactions) - len(waiting.outcomes)),
                self.state.sequence if waiting.outcomes else None,
            )
            for waiting in self._waiting
        )
        self._waiting.clear()
        self._waiting_bytes = 0
        return answers

    def _answer(
        self,
        proposal: OfferedProposal,
        reply_to: str,
        traceparent: str | None,
        outcomes: list[Refusal | None],
        sequence: Sequence | None = None,
    ) -> Answer:
        body = ProposalAnswer(id=proposal.id, term=self.term, sequence=sequence, outcomes=tuple(outcomes))
        return Answer(reply_to=reply_to, body=body, traceparent=traceparent)


def unknown(answers: Iterable[Answer]) -> tuple[Answer, ...]:
    """The same answers, where nobody can tell whether what they accept was committed."""
    refusal = Refusal(code=RefusalCode.UNKNOWN, detail="the leader cannot tell whether it was committed")
    return tuple(
        Answer(
            reply_to=answer.reply_to,
            traceparent=answer.traceparent,
            body=answer.body.model_copy(
                update={"outcomes": tuple(outcome or refusal for outcome in answer.body.outcomes)}
            ),
        )
        for answer in answers
    )


class _Batch:
    """The transactions of one record to be, as bytes."""

    def __init__(self) -> None:
        self.lines: list[tuple[bytes, ...]] = []
        self.traced: list[tuple[str, str]] = []
        self.accepted = 0
        self._bytes = HEAD_BYTES
        self._events = 0

    def has_room_for(self, transaction: OfferedTransaction) -> bool:
        """Whether it still fits; what fits no record at all has room, so that it can be refused."""
        if self.accepted == 0:
            return True
        return (
            self._bytes + transaction.size <= RECORD_BYTES_MAX
            and self._events + len(transaction.events) <= RECORD_EVENTS_MAX
        )

    def add(self, transaction: OfferedTransaction) -> None:
        self.lines.append(transaction.lines)
        self._bytes += transaction.size
        self._events += len(transaction.lines)

    def accept(self, transaction: OfferedTransaction) -> None:
        self.add(transaction)
        self.accepted += 1
        for event in transaction.events:
            if event.traceparent is not None:
                self.traced.append((event.traceparent, f"{event.namespace}/{event.request}"))
                return


def _flush(head: RecordHead, batch: _Batch, answers: tuple[Answer, ...], expected: Sequence) -> Flush:
    payload, found = encode_record(head, batch.lines)
    return Flush(
        payload=payload,
        expected=expected,
        tip=_tip(head, found),
        answers=answers,
        transactions=batch.accepted,
        traced=tuple(batch.traced),
    )


def _tip(head: RecordHead, found: str) -> Tip:
    return Tip(
        ledger_id=head.ledger_id,
        sequence=head.sequence,
        hash=found,
        term=head.term,
        leader=head.leader,
        barrier=head.barrier,
        at=head.at,
    )


def barrier(tip: Tip, *, term: Term, leader: str, now_ms: int, stream_sequence: Sequence) -> tuple[bytes, str]:
    """The record with which a term begins, to be stored right after `stream_sequence`, and its hash."""
    assert term > tip.term, f"I4: term {term} begins after term {tip.term}"
    sequence = Sequence(stream_sequence + 1)
    head = RecordHead(
        ledger_id=tip.ledger_id,
        sequence=sequence,
        term=term,
        leader=leader,
        barrier=sequence,
        at=max(tip.at, now_ms),
        prev_hash=tip.hash,
    )
    return encode_record(head, [[encode_event(Event(LeaderElected(term=term, leader=leader, prev_term=tip.term)))]])


def first_record(*, ledger_id: LedgerId, members: tuple[str, ...], level: str, now_ms: int) -> bytes:
    """What `berth init` appends to an empty stream."""
    head = RecordHead(
        ledger_id=ledger_id,
        sequence=Sequence(1),
        term=Term(0),
        leader="",
        barrier=Sequence(0),
        at=now_ms,
        prev_hash=NO_HASH,
    )
    event = Event(LedgerCreated(ledger_id=ledger_id, members=members, level=level))
    payload, _ = encode_record(head, [[encode_event(event)]])
    assert decode_record(payload).created is not None
    return payload
