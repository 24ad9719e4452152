"""What tests of the runner stand on: the simulated world, services that do as they are told, a tiny leader."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from berth import subjects
from berth.adapters.connection import Connection
from berth.adapters.jetstream_ledger import JetStreamLedger, LedgerSettings
from berth.adapters.replies import Replies
from berth.adapters.request_queue import JetStreamQueue
from berth.effects import Acknowledge, Effect, Identity, Message, Reply
from berth.ids import LedgerId, Namespace, Sequence, Term
from berth.messages.commands import AdminAnswer, Committed, ProposalAnswer
from berth.messages.envelope import NO_HASH, Record, Tip, tip_of
from berth.messages.events import Event, LeaderElected, LedgerCreated, QuotaSet, Transaction
from berth.model.ledger import State
from berth.ports import Appended, Clock, Envelope
from berth.runtime import telemetry, traceparent
from berth.runtime.runner import Runner, Surroundings
from berth.runtime.telemetry import NoSpans, Span, Spans
from berth.sim.virtual_time import SimulatedClock
from berth.subjects import Subject
from berth.wire import codec
from tests.builders import a_request
from tests.contract.worlds import World

LEDGER_ID = LedgerId("l1")
LEADER = "raft-1"
FIRST_SEQUENCE = Sequence(2)
"""Where a ledger of `Stage.open` ends: LedgerCreated, LeaderElected."""


class Scripted:
    """A service that remembers what it was given and does what its script says. `raising`: on what it fails."""

    def __init__(
        self,
        *subscriptions: Subject,
        role: str = subjects.QUOTA,
        handle: Callable[[Message], list[Effect]] = lambda _: [],
        fold: Callable[[Record], list[Effect]] = lambda _: [],
        settle: Callable[[list[Message]], list[Effect]] = lambda _: [],
        deadline: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.role = role
        self.subscriptions = subscriptions
        self.state = State()
        self.sequence = Sequence(0)
        self.replayed: list[Record] = []
        self.folded: list[Record] = []
        self.handled: list[Message] = []
        self.settled: list[list[Message]] = []
        self.settled_at_ms: list[int] = []
        self._unsettled: list[Message] = []
        self._handle, self._fold, self._settle, self._deadline = handle, fold, settle, deadline

    @property
    def bodies(self) -> list[Any]:
        return [message.body for message in self.handled]

    def replay(self, record: Record) -> None:
        self._fold(record)
        self.replayed.append(record)
        self.sequence = record.sequence

    def started(self, now_ms: int) -> list[Effect]:
        del now_ms
        return []

    def fold(self, record: Record, now_ms: int) -> list[Effect]:
        del now_ms
        effects = self._fold(record)
        self.folded.append(record)
        self.sequence = record.sequence
        return effects

    def handle(self, message: Message, now_ms: int) -> list[Effect]:
        del now_ms
        self.handled.append(message)
        self._unsettled.append(message)
        return self._handle(message)

    def settle(self, now_ms: int) -> list[Effect]:
        self.settled_at_ms.append(now_ms)
        unsettled, self._unsettled = self._unsettled, []
        if unsettled:
            self.settled.append(unsettled)
        return self._settle(unsettled)

    def deadline(self) -> int | None:
        return self._deadline()


class RememberedSpans:
    """Keeps every span; takes every root."""

    recording = True

    def __init__(self) -> None:
        self.all: list[Span] = []

    def wants_root(self, trace_id: str, name: str) -> bool:
        del trace_id, name
        return True

    def finished(self, span: Span) -> None:
        self.all.append(span)

    def named(self, name: str) -> list[Span]:
        return [span for span in self.all if span.operation.name == name]


@dataclass
class Running:
    """A runner that runs. `stop` asks it to end and returns when it has."""

    runner: Runner
    bus: Connection
    task: asyncio.Task[None]
    stopping: asyncio.Event

    async def stop(self) -> None:
        self.stopping.set()
        await self.task


@dataclass
class Stage:
    """A cluster for tests: `bus` may do everything, `leader` takes proposals once `lead` was called."""

    world: World
    clock: Clock = field(default_factory=SimulatedClock)
    users: int = 0
    bus: Connection = field(init=False)
    ledger: JetStreamLedger = field(init=False)
    replies: Replies = field(init=False)
    tip: Tip | None = None
    running: list[Running] = field(default_factory=list[Running])
    ends: list[Callable[[], object]] = field(default_factory=list[Callable[[], object]])

    async def open(self, user: str = "admin", leader: str = LEADER) -> None:
        """Begin the ledger: created, and a leader elected."""
        self.bus = await self.world.connect(user)
        self.replies = await Replies.open(self.bus, f"{self.bus.inbox}.test")
        connection = await self.world.connect(leader, keeps_while_disconnected=False)
        self.ledger = await JetStreamLedger.open(connection, LedgerSettings(consumer=leader))
        await self.append((Event(LedgerCreated(ledger_id=LEDGER_ID, members=(LEADER,), level="ledger")),))
        await self.elect(Term(1))

    async def close(self) -> None:
        for end in self.ends:
            end()
        for running in self.running:
            if not running.task.done():
                await running.stop()

    # --- the ledger -------------------------------------------------------------------------------

    async def elect(self, term: Term) -> Record:
        """A barrier of `term`."""
        previous = self.tip.term if self.tip is not None else Term(0)
        elected = LeaderElected(term=term, leader=LEADER, prev_term=previous)
        return await self.append((Event(elected),), term=term)

    async def append(self, *transactions: Transaction, term: Term | None = None) -> Record:
        """Append one record; `term` begins with it."""
        payload = self.encoded([[codec.encode_event(event) for event in events] for events in transactions], term)
        return await self.store(payload)

    async def store(self, payload: bytes) -> Record:
        stored = await self.ledger.append(payload, expected=await self.ledger.last_sequence())
        assert isinstance(stored, Appended)
        record = codec.decode_record(payload)
        self.tip = tip_of(record)
        return record

    def encoded(self, transactions: list[list[bytes]], term: Term | None = None, *, seq: int | None = None) -> bytes:
        """The next record's bytes."""
        tip = self.tip
        sequence = Sequence(seq or (1 if tip is None else tip.sequence + 1))
        head = codec.RecordHead(
            ledger_id=LEDGER_ID,
            sequence=sequence,
            term=term or (Term(0) if tip is None else tip.term),
            leader=LEADER if term or (tip is not None and tip.term) else "",
            barrier=sequence if term else (Sequence(0) if tip is None else tip.barrier),
            at=self.clock.now_ms(),
            prev_hash=NO_HASH if tip is None else tip.hash,
        )
        return codec.encode_record(head, transactions)[0]

    def announce(self, **changed: Any) -> None:
        """What the leader repeats."""
        assert self.tip is not None
        tip = self.tip
        committed = Committed(
            ledger_id=tip.ledger_id, term=tip.term, sequence=tip.sequence, hash=tip.hash, leader=tip.leader
        )
        self.bus.publish(subjects.COMMITTED.of(), codec.encode(committed.model_copy(update=changed)))

    # --- who is there -----------------------------------------------------------------------------

    async def start(self, service: Scripted, user: str, *, spans: Spans | None = None, **limits: Any) -> Running:
        """Run `service` as the process `user`; returns when it is ready or halted."""
        running = await self.launch(service, user, spans=spans, **limits)
        while running.runner.why_not_ready() is not None and running.runner.halted is None:
            if running.task.done():
                await running.task
            await asyncio.sleep(0.001)
        return running

    async def launch(self, service: Scripted, user: str, *, spans: Spans | None = None, **limits: Any) -> Running:
        bus = await self.world.connect(user)
        around = Surroundings(
            bus=bus,
            ledger=await JetStreamLedger.open(bus, LedgerSettings(consumer=user, heartbeat_seconds=0.2)),
            clock=self.clock,
            queue=await JetStreamQueue.open(bus) if subjects.REQUEST in service.subscriptions else None,
            spans=spans or NoSpans(),
        )
        self.users += 1
        runner = Runner(service, Identity(user=user, boot=f"b{self.users}"), replace(around, **limits))
        stopping = asyncio.Event()
        running = Running(runner, bus, asyncio.create_task(runner.run(stopping)), stopping)
        self.running.append(running)
        return running

    async def ask(self, subject: str, payload: bytes = b"", *, headers: dict[str, str] | None = None) -> Envelope:
        """One question and its first answer."""
        return await self.replies.ask(subject, payload, within_seconds=5, headers=headers)

    async def listen(self, pattern: str) -> list[Envelope]:
        """What is published from now on."""
        heard: list[Envelope] = []
        self.ends.append(await self.bus.subscribe(pattern, heard.append))
        return heard

    async def lead(self, spans: Spans | None = None) -> None:
        """Take every proposal whole, one append each, as a leader that refuses nothing would."""
        bus = await self.world.connect(LEADER)
        proposals: asyncio.Queue[Envelope] = asyncio.Queue()
        self.ends.append(await bus.subscribe(subjects.COMMIT.pattern(), proposals.put_nowait))

        async def lead() -> None:
            while True:
                envelope = await proposals.get()
                offered = codec.decode_proposal(envelope.payload)
                record = await self.store(self.encoded([list(one.lines) for one in offered.transactions]))
                made_spans(spans or NoSpans(), record)
                outcomes = (None,) * len(offered.transactions)
                answer = ProposalAnswer(id=offered.id, term=record.term, sequence=record.sequence, outcomes=outcomes)
                assert envelope.reply is not None
                bus.publish(envelope.reply, codec.encode(answer))

        task = asyncio.create_task(lead())
        self.ends.append(task.cancel)


def made_spans(spans: Spans, record: Record) -> None:
    """The spans of a commit and its append, as a raft node makes them."""
    for transaction in record.transactions:
        context = transaction[0].traceparent
        if context is None or not traceparent.is_sampled(context):
            continue
        commit = telemetry.operation(telemetry.COMMIT, subjects.COMMIT)
        append = telemetry.operation(telemetry.APPEND, subjects.LEDGER)
        committed = telemetry.child_of(context)
        spans.finished(Span(operation=commit, context=committed, parent=context, start_ns=1, end_ns=2))
        appended = traceparent.appended(context, record.sequence)
        spans.finished(Span(operation=append, context=appended, parent=committed, start_ns=1, end_ns=2))


async def until(holds: Callable[[], Any], *, within_seconds: float = 20) -> None:
    """Return as soon as `holds` is true."""
    async with asyncio.timeout(within_seconds):
        while not holds():  # noqa: ASYNC110 what is waited for has no event of its own
            await asyncio.sleep(0.005)


# --- scripts --------------------------------------------------------------------------------------------

QUOTA_SET: Transaction = (Event(QuotaSet(), Namespace("team-a")),)
ADMIN = subjects.ADMIN_QUOTA.of()
APPLY = b'{"command":"apply","quotas":[]}'


def reply(message: Message) -> list[Effect]:
    """The script of a service that says yes."""
    return [] if message.reply_to is None else [Reply(to=message.reply_to, body=AdminAnswer(detail="yes"))]


def acknowledge(message: Message) -> list[Effect]:
    """The script of a service that is done with whatever comes from the work queue."""
    return [] if message.delivery is None else [Acknowledge(delivery=message.delivery)]


def fail(*_: Any) -> list[Effect]:
    """The script of a service with a bug."""
    raise AssertionError("a bug")


def submit(stage: Stage, *names: str, namespace: str = "team-a") -> None:
    """Publish a list of small requests, as a client does."""
    requests = [a_request(name, namespace=namespace) for name in names]
    stage.bus.publish(subjects.REQUEST.of(namespace=namespace), codec.encode_requests(requests))
