"""`berth bench replay`: how fast a ledger is folded, and how long a start from a snapshot takes; bytes in memory.

The ledger is made in the same run, as leaders write it: requests come evenly, run a while, end, and are forgotten when
their retention is over.
"""

import asyncio
import gc
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from berth.adapters.forking import on_a_copy
from berth.adapters.snapshot_files import SnapshotFiles
from berth.errors import CorruptRecord
from berth.ids import Attempt, LedgerId, Namespace, NodeId, RequestId, RequestKey, Term, allocation_id
from berth.ids import Sequence as Position
from berth.messages.envelope import NO_HASH, Tip, tip_of, why_not_valid
from berth.messages.events import (
    AllocationPlaced,
    AllocationsEnded,
    Event,
    How,
    LeaderElected,
    LedgerCreated,
    NodeRegistered,
    RequestEnded,
    RequestPlaced,
    RequestsForgotten,
    RequestStatus,
    RequestSubmitted,
    about,
)
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Amounts, Request
from berth.model.ledger import State
from berth.resources import Resources
from berth.wire import codec, snapshots

LEDGER = LedgerId("bench")
LEADER = "raft-1"
BEGAN_MS = 1_767_225_600_000
DAY_MS = 86_400_000
TRANSACTIONS = 100
"""In one record: what a busy leader commits at once."""
NODES = 500
RUNNING = 5_000
TAIL_RECORDS = 50
"""What the ledger has after the snapshot."""
_EVENTS_OF_A_REQUEST = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`fork_ms`: how long the process stands still for a snapshot. Seconds are of the wall clock; `cpu`: this
    process's own, which a busy machine does not change.
    """

    events: int
    records: int
    events_per_second: float
    events_per_cpu_second: float
    restart_s: float
    restart_cpu_s: float
    rows: int
    snapshot_bytes: int
    write_s: float
    fork_ms: float


def measure(events: int, *, days: float, retention_days: float) -> Measured:
    """A ledger of about `events` events over `days`, where settled requests are known for `retention_days`."""
    payloads = list(_ledger(events, days=days, retention_days=retention_days))
    gc.collect()
    gc.freeze()
    gc.disable()  # as every process does while it folds the past
    try:
        return asyncio.run(_measure(payloads))
    finally:
        gc.enable()


async def _measure(payloads: Sequence[bytes]) -> Measured:
    state, began, began_cpu = State(), time.perf_counter(), time.process_time()
    _fold(state, payloads[:-TAIL_RECORDS])
    replayed_s, replayed_cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    events = state.events_folded
    with tempfile.TemporaryDirectory(prefix="berth-replay-") as folder:
        files, position = SnapshotFiles(Path(folder)), state.sequence
        snapshots.schema()
        forking = time.perf_counter()
        copied = on_a_copy(lambda: snapshots.encode_verified(state))
        forked = time.perf_counter()
        await files.write(position, await copied)
        written = time.perf_counter()
        _fold(state, payloads[-TAIL_RECORDS:])
        restarting, restarting_cpu = time.perf_counter(), time.process_time()
        again, stored = State(), await files.read(position)
        assert stored is not None, "it was just written"
        snapshots.decode_into(again, stored, snapshots.read_head(stored))
        _fold(again, payloads[-TAIL_RECORDS:])
        restart_s, restart_cpu_s = time.perf_counter() - restarting, time.process_time() - restarting_cpu
    assert again.digest() == state.digest(), "I12: a start from the snapshot gave another state"
    return Measured(
        events=state.events_folded,
        records=len(payloads),
        events_per_second=round(events / replayed_s, 1),
        events_per_cpu_second=round(events / replayed_cpu_s, 1),
        restart_s=round(restart_s, 3),
        restart_cpu_s=round(restart_cpu_s, 3),
        rows=len(state.queue.requests) + len(state.cluster.allocations),
        snapshot_bytes=len(stored),
        write_s=round(written - forked, 3),
        fork_ms=round((forked - forking) * 1000, 1),
    )


def _fold(state: State, payloads: Sequence[bytes]) -> None:
    """As a follower does: every hash is checked, and that every record follows the one before it."""
    for payload in payloads:
        record = codec.decode_record(payload)
        why = why_not_valid(state.tip, record, record.sequence)
        if why is not None:
            raise CorruptRecord(f"the ledger that was made does not hold at {record.sequence}: {why}")
        state.fold(record)


# --- the ledger -------------------------------------------------------------------------------------------


def _ledger(events: int, *, days: float, retention_days: float) -> Iterator[bytes]:
    written = _Written()
    yield written.record([[Event(LedgerCreated(ledger_id=LEDGER, members=(LEADER,), level="ledger"))]], BEGAN_MS)
    elected = Event(LeaderElected(term=Term(1), leader=LEADER, prev_term=Term(0)))
    yield written.record([[elected]], BEGAN_MS, term=Term(1))
    for first in range(0, NODES, TRANSACTIONS):
        yield written.record([[_node(number)] for number in range(first, first + TRANSACTIONS)], BEGAN_MS)
    running: deque[RequestKey] = deque()
    settled: deque[tuple[int, RequestKey]] = deque()
    requests = events // _EVENTS_OF_A_REQUEST
    for first in range(0, requests, TRANSACTIONS):
        at = BEGAN_MS + int(days * DAY_MS * first / requests)
        transactions: list[list[Event]] = []
        for number in range(first, first + TRANSACTIONS):
            request = _request(number)
            transactions.append(_placed(request, number))
            running.append(request.key)
            if len(running) > RUNNING:
                ending = running.popleft()
                transactions.append(_ended(ending))
                settled.append((at, ending))
        yield written.record(transactions, at)
        forgotten: list[RequestId] = []
        while settled and settled[0][0] < at - retention_days * DAY_MS and len(forgotten) < 2 * TRANSACTIONS:
            forgotten.append(settled.popleft()[1][1])
        if forgotten:
            yield written.record([[Event(RequestsForgotten(requests=tuple(forgotten)), _OWNER)]], at)


class _Written:
    """Records one after the other, each with its predecessor's hash."""

    def __init__(self) -> None:
        self._tip: Tip | None = None

    def record(self, transactions: Sequence[Sequence[Event]], at: int, *, term: Term | None = None) -> bytes:
        tip = self._tip
        sequence = Position(1 if tip is None else tip.sequence + 1)
        head = codec.RecordHead(
            ledger_id=LEDGER,
            sequence=sequence,
            term=term or (Term(0) if tip is None else tip.term),
            leader=LEADER if term or (tip is not None and tip.term) else "",
            barrier=sequence if term else (Position(0) if tip is None else tip.barrier),
            at=at,
            prev_hash=NO_HASH if tip is None else tip.hash,
        )
        payload, _ = codec.encode_record(head, [[codec.encode_event(event) for event in one] for one in transactions])
        self._tip = tip_of(codec.decode_record(payload))
        return payload


_OWNER = Namespace("team-a")


def _node(number: int) -> Event:
    capacity = Resources(1_000_000, 1_000_000, 1_000_000, 10_000)
    labels = {"zone": f"z{number % 3}", "region": "us-east-1"}
    return Event(NodeRegistered(node=NodeId(f"node-{number:03d}"), capacity=capacity, labels=labels))


def _request(number: int) -> Request:
    amounts = Amounts(cpu_cores=1.0, ram_mb=256)
    return Request(id=RequestId(f"r-{number}"), namespace=_OWNER, resources=amounts, labels={"app": f"a{number % 20}"})


def _placed(request: Request, number: int) -> list[Event]:
    node = NodeId(f"node-{number % NODES:03d}")
    allocation = AllocationPlaced(id=allocation_id(request.id, 0), node=node, charge=request.charge)
    first = Attempt(1)
    return [
        about(request.key, RequestSubmitted(request=request, digest=codec.request_digest(request)), attempt=first),
        about(request.key, RequestPlaced(allocations=(allocation,)), attempt=first),
    ]


def _ended(key: RequestKey) -> list[Event]:
    second = Attempt(2)
    ended = AllocationsEnded(ids=(allocation_id(key[1], 0),), how=How.RELEASED, reason=ReasonCode.RELEASED)
    settled = RequestEnded(status=RequestStatus.RELEASED, reason=ReasonCode.RELEASED)
    return [about(key, ended, attempt=second), about(key, settled, attempt=second)]
