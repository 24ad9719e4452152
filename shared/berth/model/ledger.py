"""The fold of everything: one `State` from the records of one ledger, the same in every process.

No clock, no chance, no order of a set: time and choice stand in the record (DESIGN section 1, law 1).
A fold asserts what transactions promise; the leader has checked it before it wrote (`check`).
"""

from collections.abc import Mapping
from functools import cached_property

from berth.ids import LedgerId, Namespace, RequestKey, Sequence
from berth.messages.envelope import Record, Tip, tip_of
from berth.messages.events import (
    AllocationsEnded,
    AllocationsReleasing,
    Event,
    How,
    RequestPlaced,
    Transaction,
    Wake,
    WakeOn,
)
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Request
from berth.model.census import Census
from berth.model.charging import CONFIGURATION, UNFORESEEN, quota_scope
from berth.model.cluster import Cluster
from berth.model.demand import Demand
from berth.model.folds import FOLDS
from berth.model.queue import Queue, RequestState
from berth.model.quota import Quotas
from berth.model.request_folds import REQUEST_FOLDS
from berth.model.reservation import Reservations
from berth.model.tables import Journal, Table

DIGESTS_EVERY = 1000

ChangeKey = tuple[WakeOn, str]

_ENDS = (AllocationsEnded, AllocationsReleasing)


class State:
    """Everything that the events up to `tip` say."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.cluster = Cluster(self.journal)
        self.queue = Queue(self.journal)
        self.quotas = Quotas(self.journal)
        self.reservations = Reservations(self.journal)
        self.demand = Demand(self.journal)
        self.changed: Table[ChangeKey, Sequence] = Table(self.journal)
        self.digests_at: Table[str, Sequence] = Table(self.journal)
        self.tip: Tip | None = None
        self.ledger_id = LedgerId("")
        self.members: tuple[str, ...] = ()
        self.level = ""
        self.counts: Table[str, int] = Table(self.journal)

    @cached_property
    def census(self) -> Census:
        """Who has how many neighbours where; made when somebody asks for the first time."""
        return Census(self.cluster)

    @property
    def sequence(self) -> Sequence:
        return self.tip.sequence if self.tip else Sequence(0)

    @property
    def at(self) -> int:
        """Domain time of the last record, milliseconds UTC."""
        return self.tip.at if self.tip else 0

    @property
    def events_folded(self) -> int:
        """How many events made this state."""
        return self.counts.get("events", 0)

    def digests(self) -> dict[str, str]:
        """One digest per sub-state, 16 hex digits each."""
        return {
            "cluster": f"{self.cluster.digest:016x}",
            "queue": f"{self.queue.digest:016x}",
            "quota": f"{self.quotas.digest:016x}",
            "reservation": f"{self.reservations.digest:016x}",
        }

    def wants_digests(self, sequence: Sequence) -> bool:
        """Whether a record at `sequence` that is no barrier begins with DigestsRecorded (DESIGN section 4)."""
        return sequence // DIGESTS_EVERY > self.digests_at.get("", Sequence(0)) // DIGESTS_EVERY

    def digest(self) -> str:
        """All sub-states in one value, for comparing replays."""
        return "-".join(self.digests().values())

    def fold(self, record: Record) -> None:
        """Take in the next valid record.

        Raises:
            AssertionError: the record breaks what transactions promise; this state must not be used further.
        """
        assert record.at >= self.at, f"I6: time goes back at {record.sequence}"
        for transaction in record.transactions:
            self.fold_transaction(transaction, at=record.at, sequence=record.sequence)
        self.tip = tip_of(record)

    def fold_transaction(self, transaction: Transaction, *, at: int, sequence: Sequence) -> None:
        """All events of one transaction. A request that several of them change is kept once, as the last leaves it."""
        self.quotas.at = at
        decided: dict[RequestKey, RequestState] = {}
        requests = self.queue.requests
        takes = False
        for event in transaction:
            data = event.data
            takes = takes or type(data) in _ENDS
            change = REQUEST_FOLDS.get(type(data))
            if change is None:
                self._fold_other(event, at, sequence)
                continue
            key = event.key
            assert key is not None, f"I8: {event.type} names no request"
            decided[key] = change(self, decided.get(key) or requests.get(key), event, data, at, sequence)
        self._finish(transaction, decided, at, sequence, takes=takes)

    def fold_event(self, event: Event, *, at: int, sequence: Sequence) -> None:
        """One event alone; its transaction is whole only after `finish_transaction`."""
        self.quotas.at = at
        change = REQUEST_FOLDS.get(type(event.data))
        if change is None:
            self._fold_other(event, at, sequence)
        else:
            key = event.key
            assert key is not None, f"I8: {event.type} names no request"
            self.queue.put(key, change(self, self.queue.requests.get(key), event, event.data, at, sequence))

    def finish_transaction(self, transaction: Transaction, *, at: int, sequence: Sequence) -> None:
        """Raise the attempts of the requests that the transaction names, and remember what it took from others."""
        named = {key: self.queue.requests[key] for key in requests_named(transaction)}
        takes = any(type(event.data) in _ENDS for event in transaction)
        self._finish(transaction, named, at, sequence, takes=takes)

    def _fold_other(self, event: Event, at: int, sequence: Sequence) -> None:
        assert event.key is None, f"I8: {event.type} is of no request"
        FOLDS[type(event.data)](self, event, event.data, at, sequence)

    def _finish(
        self,
        transaction: Transaction,
        decided: Mapping[RequestKey, RequestState],
        at: int,
        sequence: Sequence,
        *,
        takes: bool,
    ) -> None:
        """`takes`: whether it takes allocations from where they are."""
        self.counts.put("events", self.counts.get("events", 0) + len(transaction))
        if takes:
            self._count_moves(transaction)
        victims = _evicted(self, transaction) if takes and len(decided) > 1 else ()
        placing = {event.key for event in transaction if isinstance(event.data, RequestPlaced)} if victims else ()
        for key, request in decided.items():
            self.queue.put(key, request.decided_again(sequence, at, victims if key in placing else ()))

    def _count_moves(self, transaction: Transaction) -> None:
        """What a drain took from its node and placed elsewhere at once."""
        for event in transaction:
            data = event.data
            if not isinstance(data, AllocationsEnded | AllocationsReleasing) or data.reason is not ReasonCode.DRAINED:
                continue
            key = event.key
            assert key is not None, f"I8: {event.type} names no request"
            if any(isinstance(other.data, RequestPlaced) and other.key == key for other in transaction):
                for name in data.ids:
                    self.cluster.count_drained(self.cluster.allocations[key[0], name].node, moved=1)

    def touch(self, on: WakeOn, name: str, sequence: Sequence) -> None:
        key = (on, name)
        if self.changed.get(key) != sequence:  # else this record has said so already
            self.changed.put(key, sequence)

    def touch_capacity(self, sequence: Sequence) -> None:
        """Room that no calendar knew of: it may be worth more than what is promised."""
        self.touch(WakeOn.CAPACITY, "", sequence)
        self.touch(WakeOn.CAPACITY, UNFORESEEN, sequence)

    def last_change(self, wake: Wake, namespace: Namespace) -> Sequence:
        """When what `wake` waits for last changed for the better (R101)."""
        match wake.on:
            case WakeOn.QUOTA | WakeOn.RECLAIM:
                keys = ((WakeOn.QUOTA, CONFIGURATION), (wake.on, quota_scope(self, namespace)))
            case WakeOn.RESERVATION | WakeOn.CAPACITY:
                keys = ((wake.on, wake.name or ""),)
            case WakeOn.QUEUE:
                keys = ((wake.on, namespace),)
            case _:
                keys = ((wake.on, ""),)
        return max(self.changed.get(key, Sequence(0)) for key in keys)


def moved_at(state: State, request: Request) -> Sequence:
    """When something last changed that can change what is decided about `request`: a node, what runs anywhere, quotas
    of its namespace or of whom it shares with, the reservation it draws on. What is only queued, rejected or
    forgotten is none of that, nor who leads.
    """
    conditions = [WakeOn.NODES, WakeOn.CAPACITY, WakeOn.PLACEMENT, WakeOn.QUOTA]
    wakes = [Wake(on=on) for on in conditions]
    if request.reservation is not None:
        wakes.append(Wake(on=WakeOn.RESERVATION, name=request.reservation))
    return max(state.last_change(wake, request.namespace) for wake in wakes)


def why_moved(state: State, request: Request) -> str | None:
    """Why the request's `if_sequence` does not hold any more, in numbers; None: it holds, or there is none."""
    if request.if_sequence is None:
        return None
    if request.if_sequence > state.sequence:
        return f"if_sequence {request.if_sequence} is to come: the ledger is at {state.sequence}"
    moved = moved_at(state, request)
    if moved <= request.if_sequence:
        return None
    return f"what decides about it changed at {moved}, after {request.if_sequence}"


def requests_named(transaction: Transaction) -> list[RequestKey]:
    """The requests a transaction decides about, in order of first mention."""
    return list(dict.fromkeys(event.key for event in transaction if event.key is not None))


def _evicted(state: State, transaction: Transaction) -> tuple[tuple[str, str, str, str], ...]:
    """(allocation, namespace, node, reason) of what this transaction took from others."""
    found: list[tuple[str, str, str, str]] = []
    for event in transaction:
        data = event.data
        if isinstance(data, AllocationsEnded | AllocationsReleasing) and data.how is How.EVICTED and event.namespace:
            for name in data.ids:
                node = state.cluster.allocations[event.namespace, name].node
                found.append((name, event.namespace, node, data.reason.value))
    return tuple(found)
