"""`berth events`, `audit`, `schema`: the ledger read directly, as every service reads it."""

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer

from berth.adapters.jetstream_ledger import JetStreamLedger, LedgerSettings
from berth.adapters.nats_bus import BusSettings, NatsBus
from berth.errors import CorruptRecord, NotFound
from berth.ids import Sequence
from berth.messages.documents import time_text
from berth.messages.envelope import Record, Tip, tip_of, why_not_valid
from berth.messages.events import (
    EVENT_TYPES,
    AllocationsEnded,
    AllocationsReleasing,
    DigestsRecorded,
    LeaderElected,
    LedgerCreated,
    RequestPlaced,
    Transaction,
)
from berth.model.charging import usage_drift
from berth.model.check import accept
from berth.model.ledger import State
from berth.ports import StoredMessage
from berth.wire.codec import decode_record
from berth_cli.context import Target, on_cluster
from berth_cli.output import print_json, print_json_line, print_lines

app = typer.Typer()

LEADERS_OWN = (LedgerCreated, LeaderElected, DigestsRecorded)


@asynccontextmanager
async def open_ledger(target: Target) -> AsyncGenerator[JetStreamLedger]:
    """The ledger, read with the admin's key."""
    address = target.address("admin")
    settings = BusSettings(url=address.url, user=address.user, seed_file=address.seed_file)
    bus = await NatsBus.connect(settings, lost=lambda _why: None)
    try:
        yield await JetStreamLedger.open(bus, LedgerSettings(consumer="admin", shared_user=True))
    finally:
        await bus.close()


async def stored_messages(ledger: JetStreamLedger, *, after: int, follow: bool) -> AsyncIterator[StoredMessage]:
    """Every stored message after `after`; without `follow` up to the end as it is now."""
    last = await ledger.last_sequence()
    if not follow and after >= last:
        return
    async for batch in ledger.follow(Sequence(after)):
        for stored in batch:
            yield stored
            if not follow and stored.sequence >= last:
                return


@app.command("events")
@on_cluster
def events(
    target: Target,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes.")] = False,
    start: Annotated[int, typer.Option("--from", metavar="SEQ", help="First sequence.", min=1)] = 1,
    raw: Annotated[bool, typer.Option("--raw", help="Every stored message, its bytes in base64.")] = False,
) -> None:
    """The ledger as a story: every event in order."""
    asyncio.run(_events(target, follow=follow, start=start, raw=raw))


async def _events(target: Target, *, follow: bool, start: int, raw: bool) -> None:
    rows: list[dict[str, Any]] = []
    one_a_line = follow or raw
    tip: Tip | None = None
    async with open_ledger(target) as ledger:
        async for stored in stored_messages(ledger, after=0 if not raw else start - 1, follow=follow):
            if raw:
                bytes_text = base64.b64encode(stored.payload).decode()
                print_json_line({"sequence": stored.sequence, "bytes": bytes_text})
                continue
            record = _valid(tip, stored)
            if record is None:
                continue
            tip = tip_of(record)
            if stored.sequence < start:
                continue
            for row in event_rows(record):
                if not target.as_json:
                    print_lines(event_line(row))
                elif one_a_line:
                    print_json_line(row)
                else:
                    rows.append(row)
    if target.as_json and not one_a_line:
        print_json(rows)


def _valid(tip: Tip | None, stored: StoredMessage) -> Record | None:
    try:
        record = decode_record(stored.payload)
    except CorruptRecord:
        return None
    return record if why_not_valid(tip, record, stored.sequence) is None else None


def event_rows(record: Record) -> list[dict[str, Any]]:
    """The record's events as `berth events` prints them."""
    rows: list[dict[str, Any]] = []
    for number, transaction in enumerate(record.transactions):
        for event in transaction:
            row: dict[str, Any] = {
                "sequence": record.sequence,
                "index": len(rows),
                "tx": number,
                "term": record.term,
                "at": record.at,
                "type": event.type,
                "version": EVENT_TYPES[event.type][1],
            }
            for name in ("namespace", "request", "attempt", "traceparent"):
                value = getattr(event, name)
                if value is not None:
                    row[name] = value
            rows.append({**row, "data": event.data.written()})
    return rows


def event_line(row: dict[str, Any]) -> str:
    """One event for people."""
    whom = "/".join(str(row[name]) for name in ("namespace", "request") if name in row)
    said = ", ".join(f"{name}={_short(value)}" for name, value in row["data"].items())
    return f"{row['sequence']:>6} {time_text(row['at'])} {row['type']} {whom} {said}".rstrip()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


async def state_at(target: Target, sequence: int) -> State:
    """The state as of a record of the past, folded from the ledger itself.

    Raises:
        NotFound: the ledger does not go that far, or holds nothing so early.
    """
    state = State()
    async with open_ledger(target) as ledger:
        last = await ledger.last_sequence()
        if sequence > last:
            raise NotFound(f"the ledger is at {last}", hint="ask for an earlier sequence; `berth events` lists them")
        async for stored in stored_messages(ledger, after=0, follow=False):
            if stored.sequence > sequence:
                break
            record = _valid(state.tip, stored)
            if record is not None:
                state.fold(record)
    if state.tip is None:
        raise NotFound(f"the ledger holds nothing at {sequence} or before", hint="`berth events` lists what it holds")
    return state


@app.command("audit")
@on_cluster
def audit(target: Target) -> None:
    """Replay the whole ledger from nothing and check every invariant; exit 1 on a violation."""
    found = asyncio.run(audit_cluster(target))
    found.pop("doubled")
    if target.as_json:
        print_json(found)
    else:
        print_lines(
            f"{found['records']} records, {found['events']} events, digest {found['digest']}",
            *(f"  violation at {one['sequence']}: {one['what']}" for one in found["violations"]),
            "no violation" if not found["violations"] else f"{len(found['violations'])} violations",
        )
    if found["violations"]:
        raise typer.Exit(1)


async def audit_cluster(target: Target) -> dict[str, Any]:
    """What `berth audit` prints, and `doubled`: placements beyond the first of requests that nobody evicted."""
    auditor = Auditor()
    async with open_ledger(target) as ledger:
        async for stored in stored_messages(ledger, after=0, follow=False):
            auditor.take(stored)
    return auditor.report()


class Auditor:
    """Judges every record again with the leader's own check, and counts again what is kept as sums."""

    def __init__(self) -> None:
        self.state = State()
        self.records = 0
        self.foreign = 0
        self.violations: list[dict[str, Any]] = []
        self.doubled = 0
        self._placed: dict[object, int] = {}
        self._spent_ns = 0

    def take(self, stored: StoredMessage) -> None:
        began = time.perf_counter_ns()
        record = _valid(self.state.tip, stored)
        if record is None:
            self.foreign += 1
        else:
            self._fold(record)
        self._spent_ns += time.perf_counter_ns() - began

    def _fold(self, record: Record) -> None:
        if record.at < self.state.at:
            self._violated(record.sequence, "I6: time goes back")
        wanted = self.state.wants_digests(record.sequence) and record.elected is None and record.created is None
        recorded = [isinstance(transaction[0].data, DigestsRecorded) for transaction in record.transactions]
        if recorded[0] is not wanted or any(recorded[1:]):
            self._violated(record.sequence, "I11: digests are missing, or stand where they do not belong")
        for transaction in record.transactions:
            try:
                if isinstance(transaction[0].data, LEADERS_OWN) and len(transaction) == 1:
                    self.state.fold_transaction(transaction, at=record.at, sequence=record.sequence)
                    continue
                refusal = accept(self.state, transaction, record.at, record.sequence)
            except (AssertionError, LookupError) as error:
                self._violated(record.sequence, f"it does not fold: {error}")
                continue
            self._count_doubles(transaction)
            if refusal is not None:
                self._violated(record.sequence, f"{refusal.code}: {refusal.detail}")
                self.state.fold_transaction(transaction, at=record.at, sequence=record.sequence)
        self.state.tip = tip_of(record)
        self.records += 1

    def _count_doubles(self, transaction: Transaction) -> None:
        """A request is placed once, and once more for every time that it was taken from its nodes."""
        for event in transaction:
            if isinstance(event.data, RequestPlaced):
                self._placed[event.key] = self._placed.get(event.key, 0) + 1
                self.doubled += self._placed[event.key] > 1
            elif isinstance(event.data, AllocationsEnded | AllocationsReleasing):
                self._placed[event.key] = 0

    def _violated(self, sequence: int, what: str) -> None:
        self.violations.append({"sequence": sequence, "what": what})

    def _recount(self) -> None:
        state = self.state
        used = {node: used for node, used in state.cluster.used.items() if any(used.dimensions())}
        if state.cluster.recount() != used:
            self._violated(state.sequence, "I13: usage of nodes differs from a recount")
        for namespace, amount in usage_drift(state).items():
            self._violated(state.sequence, f"I13: usage of {namespace} differs from a recount by {amount}")
        for name, table in (
            ("nodes", state.cluster.nodes),
            ("allocations", state.cluster.allocations),
            ("requests", state.queue.requests),
        ):
            if table.recount() != table.digest:
                self._violated(state.sequence, f"I11: the digest of {name} differs from a recount")

    def report(self) -> dict[str, Any]:
        """The documented shape; `foreign` counts messages in the stream that are no records of the ledger."""
        self._recount()
        events = self.state.events_folded
        rate = events * 1_000_000_000 // self._spent_ns if self._spent_ns else 0
        return {
            "records": self.records,
            "events": events,
            "violations": self.violations,
            "digest": self.state.digest(),
            "replay_events_per_second": rate,
            "foreign": self.foreign,
            "doubled": self.doubled,
        }


@app.command("schema")
def schema() -> None:
    """The closed list of event types, each with the JSON schema of its data."""
    print_json(
        [
            {"type": name, "version": version, "schema": model.model_json_schema(mode="serialization")}
            for name, (model, version) in EVENT_TYPES.items()
        ]
    )
