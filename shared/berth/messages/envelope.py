"""One append to the ledger: a batch of transactions that the leader of one term committed together."""

from dataclasses import dataclass

from berth.ids import LedgerId, Sequence, Term
from berth.messages.events import EventData, LeaderElected, LedgerCreated, Transaction

NO_HASH = "0" * 64
"""The `prev_hash` of the first record."""

RECORD_BYTES_MAX = 256 * 1024
RECORD_EVENTS_MAX = 512
MESSAGE_BYTES_MAX = 512 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`at`: milliseconds UTC, never before the previous record's. `barrier`: sequence of the term's LeaderElected."""

    hash: str
    ledger_id: LedgerId
    sequence: Sequence
    term: Term
    leader: str
    barrier: Sequence
    at: int
    prev_hash: str
    transactions: tuple[Transaction, ...]

    @property
    def elected(self) -> LeaderElected | None:
        """The single event of a barrier, or None."""
        data = self._only_event()
        return data if isinstance(data, LeaderElected) else None

    @property
    def created(self) -> LedgerCreated | None:
        """The single event of the first record, or None."""
        data = self._only_event()
        return data if isinstance(data, LedgerCreated) else None

    def _only_event(self) -> EventData | None:
        if len(self.transactions) == 1 and len(self.transactions[0]) == 1:
            return self.transactions[0][0].data
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in one ledger's history; the hash tells two histories apart."""

    ledger_id: LedgerId
    sequence: Sequence
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """The last valid record, as far as its successor must agree with it. `at`: milliseconds UTC."""

    ledger_id: LedgerId
    sequence: Sequence
    hash: str
    term: Term
    leader: str
    barrier: Sequence
    at: int

    @property
    def position(self) -> Position:
        return Position(ledger_id=self.ledger_id, sequence=self.sequence, hash=self.hash)


def tip_of(record: Record) -> Tip:
    return Tip(
        ledger_id=record.ledger_id,
        sequence=record.sequence,
        hash=record.hash,
        term=record.term,
        leader=record.leader,
        barrier=record.barrier,
        at=record.at,
    )


def why_not_valid(previous: Tip | None, record: Record, stream_sequence: int) -> str | None:
    """None when `record` may follow `previous` (RAFT section 2, `valid`); else what is wrong with it.

    Every reader asks this same question and ignores a record that fails it; its hash was checked when
    it was decoded. `previous` None: the record must be the ledger's first.
    """
    if record.sequence != stream_sequence:
        return f"says sequence {record.sequence}, stored at {stream_sequence}"
    if previous is None:
        return _why_not_first(record)
    if record.ledger_id != previous.ledger_id:
        return f"belongs to ledger {record.ledger_id}"
    if record.sequence <= previous.sequence:
        return f"does not come after {previous.sequence}"
    if record.prev_hash != previous.hash:
        return f"does not follow the hash of {previous.sequence}"
    if record.elected is not None:
        return _why_not_barrier(previous, record)
    if record.created is not None:
        return "a second LedgerCreated"
    if previous.term == 0:
        return "only a barrier follows LedgerCreated"
    if (record.term, record.leader, record.barrier) != (previous.term, previous.leader, previous.barrier):
        return f"term, leader or barrier differ from those of {previous.sequence}"
    return None


def _why_not_first(record: Record) -> str | None:
    created = record.created
    if created is None:
        return "the first record must be one LedgerCreated"
    if created.ledger_id != record.ledger_id:
        return "LedgerCreated names another ledger"
    if (record.term, record.leader, record.barrier, record.prev_hash) != (0, "", 0, NO_HASH):
        return "the first record has term 0, no leader, barrier 0 and no previous hash"
    return None


def _why_not_barrier(previous: Tip, record: Record) -> str | None:
    elected = record.elected
    assert elected is not None
    if record.term <= previous.term:
        return f"barrier of term {record.term} after term {previous.term}"
    if record.barrier != record.sequence:
        return "a barrier names itself as barrier"
    if (elected.term, elected.leader) != (record.term, record.leader):
        return "LeaderElected and the record name different leaders"
    return None
