"""Runs one service: folds the ledger into it, hands it what arrives, does what it wants done.

One loop, turn by turn: fold the records that have come, hand over every message that waits, let the
service settle once, perform the effects in order. What arrives meanwhile is the next turn. The service
never awaits, logs, or sees a span; it is called from this loop alone.

What goes wrong, and what is done (DESIGN section 2, "Poison"):

    bytes that are no message    dead-lettered at once; commands are answered `invalid`
    a handler raises             answered `internal`; from the work queue: delivered again, the fifth time
                                 dead-lettered
    `settle` raises              the same for the turn's messages, which come one at a time afterwards; ten
                                 times in a row: the process ends and folds again from the ledger
    a record does not fold       halted: effects stop, questions are answered still
    another history              the process ends; it starts again from a snapshot of what is there now
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from berth.adapters.replies import Replies
from berth.effects import Effect, Identity, Note, Reply, Service
from berth.errors import Halted, InvalidCommand
from berth.ids import Sequence, Term
from berth.messages.commands import Committed
from berth.messages.envelope import Record
from berth.ports import Bus, Clock, Envelope, Ledger, RequestQueue
from berth.runtime import telemetry
from berth.runtime.follower import Batch, Follower, OtherHistory
from berth.runtime.handling import BUGS, Handling
from berth.runtime.inbox import Inbox
from berth.runtime.intake import ANSWERS, Intake, endpoint_of
from berth.runtime.performing import Performer
from berth.runtime.snapshots import Snapshots
from berth.runtime.telemetry import NoSpans, Spans
from berth.runtime.tracing import Traces
from berth.subjects import COMMITTED, QUERY
from berth.wire import codec

log = logging.getLogger(__name__)

Folded = TypeVar("Folded")

RECORDS_WAITING_MAX = 8_192
_REST_SECONDS_MIN, _REST_SECONDS_MAX = 0.001, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a service runs on. `queue` for the one that takes from the work queue. `replayed` is called
    once, when the past is folded (or cannot be). Without `snapshots` the whole ledger is folded.
    """

    bus: Bus
    ledger: Ledger
    clock: Clock
    queue: RequestQueue | None = None
    spans: Spans = field(default_factory=NoSpans)
    inbox_messages: int = 10_000
    inbox_bytes: int = 64 * 1024 * 1024
    drain_seconds: float = 5.0
    replayed: Callable[[], None] = lambda: None
    snapshots: Snapshots | None = None


class Runner:
    """One service in its surroundings; `run` is called once."""

    def __init__(self, service: Service, identity: Identity, around: Surroundings) -> None:
        self.service = service
        self.identity = identity
        self._around = around
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._records: deque[Record] = deque()
        self._traces = Traces(around.spans)
        self._follower = Follower(around.ledger)
        self._ready = False
        self._stopping = False
        self._failure: BaseException | None = None
        self._following: asyncio.Task[None] | None = None
        self._doors_closed = False
        self.halted: Halted | None = None
        self.announced: Committed | None = None
        """What the leader said last."""
        self.endpoints = [endpoint_of(subject, service.role) for subject in service.subscriptions]
        self._handling = Handling(
            service, identity, self._traces, endpoints=self.endpoints, highest_term=self._highest_term
        )
        self._performer: Performer
        self._intake: Intake

    # --- what others may know -----------------------------------------------------------------------

    def why_not_ready(self) -> str | None:
        """None while the service does its work."""
        if self.halted is not None:
            return str(self.halted)
        if not self._ready:
            return f"folding the ledger, at {self.service.sequence}"
        return "ending" if self._stopping else None

    def metadata(self) -> dict[str, str]:
        """What `$SRV` says of this process; strings, as ADR-33 wants."""
        tip, queue = self._follower.tip, self._around.queue
        found = {
            "role": self.service.role,
            "user": self.identity.user,
            "sequence": str(self.service.sequence),
            "term": str(self._highest_term()),
            "leader": tip.leader if tip is not None else "",
            "ledger_id": tip.ledger_id if tip is not None else "",
            "ready": "true" if self.why_not_ready() is None else "false",
            "halted": "" if self.halted is None else str(self.halted.sequence),
        }
        if queue is not None:
            found["active"] = "true" if queue.pinned else "false"
        return found

    @property
    def is_active(self) -> bool | None:
        """Whether this process does the work of those that stand by for each other; None where there is nothing to
        stand by for.
        """
        return None if self._around.queue is None else self._around.queue.pinned

    @property
    def foreign(self) -> int:
        """Messages in the ledger's stream that are no records of it."""
        return self._follower.foreign

    @property
    def waiting(self) -> int:
        """Messages that wait to be handled."""
        return len(self._intake)

    # --- the whole life -----------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, then finish what was begun; what is not within `drain_seconds` comes again,
        to this service's next start or to another.

        Raises:
            OtherHistory, Stuck: the process must end and fold again.
            NotPermitted, Unreachable: the bus does not take a subscription.
        """
        bus, identity = self._around.bus, self.identity
        replies = await Replies.open(bus, f"_INBOX_{identity.user}.stored-{identity.boot}")
        self._performer = Performer(bus, replies, self._around.queue, identity=identity, role=self.service.role)
        self._intake = self._made_intake()
        end_committed = await bus.subscribe(COMMITTED.pattern(), self._on_committed)
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(self._stop)
        living = asyncio.create_task(self._live())
        try:
            await asyncio.wait((living, stopping), return_when=asyncio.FIRST_COMPLETED)
            if self._ready and not living.done():
                await asyncio.wait((living,), timeout=self._around.drain_seconds)
            if living.done():
                await living
            elif self._ready:
                log.warning("drain_cut_short", extra={"waiting": self.waiting})
            if self._around.snapshots is not None and living.done() and self.halted is None:
                await self._around.snapshots.finish(self.service.state)
        finally:
            self._intake.close()
            end_committed()
            replies.close()
            tasks: list[asyncio.Task[Any]] = [living, stopping]
            if self._following is not None:
                tasks.append(self._following)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _made_intake(self) -> Intake:
        around = self._around
        return Intake(
            around.bus,
            around.queue,
            Inbox(messages_max=around.inbox_messages, bytes_max=around.inbox_bytes),
            self._performer,
            identity=self.identity,
            endpoints=self.endpoints,
            wake=self._wake.set,
        )

    def _stop(self, _: object) -> None:
        self._stopping = True
        self._wake.set()

    async def _live(self) -> None:
        """Fold what there is, open the doors, drive what waits; then turn by turn until asked to stop."""
        await self._restored()
        batches = self._follower.batches()
        if await self._replayed(batches):
            await self._until_committed()
            await self._intake.open()
            self._ready = True
            log.info("service_started", extra={"sequence": self.service.sequence, "foreign": self.foreign})
            self._following = asyncio.create_task(self._follow(batches), name="follower of the ledger")
            self._following.add_done_callback(lambda _: self._wake.set())
            await self._perform(self.service.started(self._around.clock.now_ms()))
            self._wake.set()
        while not self._stopping:
            await self._check()
            await self._next()
            await self._turn()
        await self._drain()

    async def _restored(self) -> None:
        """Begin with the newest snapshot of this ledger, if there is one."""
        around = self._around
        tip = await around.snapshots.restore(self.service.state, around.ledger) if around.snapshots else None
        if tip is not None:
            self._follower.resume(tip)
            self._follower.is_quorum = self.service.state.level == "quorum"

    async def _replayed(self, batches: AsyncGenerator[Batch]) -> bool:
        """Fold everything up to now, without effects; False: halted."""
        start_ns, records, events = time.time_ns(), 0, 0
        try:
            async for batch in batches:
                for record in batch.records:
                    self._fold_guarded(record, self.service.replay)
                    records += 1
                    events += sum(map(len, record.transactions))
                if batch.caught_up:
                    break
        except Halted as halted:
            self.halted = halted
        self._around.replayed()
        self._traces.replayed(start_ns=start_ns, records=records, events=events)
        return self.halted is None

    async def _until_committed(self) -> None:
        """What was folded may be above what a majority of mirrors has: nothing is done before it is committed."""
        tip = self._follower.tip
        while tip is not None and not self._is_committed(tip.sequence) and not self._stopping:
            await self._wake.wait()
            self._wake.clear()

    def _is_committed(self, sequence: Sequence) -> bool:
        """At level `ledger` everything that was read is; at `quorum` what the leader has announced."""
        return not self._follower.is_quorum or (self.announced is not None and self.announced.sequence >= sequence)

    async def _follow(self, batches: AsyncGenerator[Batch]) -> None:
        """Raises:
        Halted, OtherHistory: nothing more can be folded.
        """
        async with aclosing(batches):
            async for batch in batches:
                self._records.extend(batch.records)
                if batch.records:
                    self._wake.set()
                while len(self._records) > RECORDS_WAITING_MAX:
                    self._room.clear()
                    await self._room.wait()

    def _on_committed(self, envelope: Envelope) -> None:
        try:
            announced = codec.decode(Committed, envelope.payload)
            if announced.term >= self._highest_term():
                self.announced = announced
                self._follower.compare(announced)
                if self._follower.is_quorum:
                    self._wake.set()
        except InvalidCommand:
            log.warning("message_undecodable", extra={"subject": COMMITTED.template})
        except OtherHistory as error:
            self._failure = error
            self._wake.set()

    async def _check(self) -> None:
        """Act on what other tasks found: close the doors of a halted service, end with what ends the process."""
        failure = self._failure or self._intake.failure() or _failure_of(self._following)
        if isinstance(failure, Halted):
            self.halted = self.halted or failure
        elif failure is not None:
            raise failure
        if self.halted is not None and not self._doors_closed:
            self._doors_closed = True
            if self._following is not None:
                self._following.cancel()
            log.error("service_halted", extra={"sequence": self.halted.sequence, "why": self.halted.message})
            self._intake.close(keep=frozenset({QUERY.name}))
            await self._intake.open_queries()

    async def _next(self) -> None:
        """Return when there is something to do: something came, or the service's deadline is there."""
        await asyncio.sleep(0)  # others run too, even when there is always something to do
        deadline = None if self.halted is not None else self.service.deadline()
        if deadline is not None and not self._wake.is_set():
            rest = (deadline - self._around.clock.now_ms()) / 1000
            alarm = asyncio.get_running_loop().call_later(
                min(max(rest, _REST_SECONDS_MIN), _REST_SECONDS_MAX), self._wake.set
            )
            await self._wake.wait()
            alarm.cancel()
        await self._wake.wait()
        self._wake.clear()

    async def _drain(self) -> None:
        """Finish what was begun: what waits is handled, what is being stored is stored."""
        self._intake.close(keep=frozenset({ANSWERS}))
        while len(self._intake) or (self._records and self._is_committed(self._records[0].sequence)):
            await self._turn()
            await asyncio.sleep(0)
        await self._performer.finish(self._around.drain_seconds)
        log.info("service_stopped", extra={"sequence": self.service.sequence})

    # --- one turn -----------------------------------------------------------------------------------

    async def _turn(self) -> None:
        began = time.perf_counter()
        now_ms = self._around.clock.now_ms()
        effects = self._folded(now_ms)
        if self._around.snapshots is not None and self.halted is None:
            self._around.snapshots.look(self.service.state)
        taken = self._intake.take()
        for message in self._performer.take_returned():
            effects += self._handling.told(message, now_ms)
        effects += self._handling.handled(taken, now_ms, halted=self.halted)
        await self._perform(effects)
        telemetry.TURN_DURATION.record(time.perf_counter() - began)
        telemetry.TURN_MESSAGES.record(len(taken))

    async def _perform(self, effects: list[Effect]) -> None:
        if self.halted is not None:
            effects = [effect for effect in effects if isinstance(effect, Reply | Note)]
        await self._performer.perform(self._traces.continued(effects))
        if self._performer.returned:
            self._wake.set()

    def _folded(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        while self._records and self.halted is None and self._is_committed(self._records[0].sequence):
            try:
                effects += self._fold_guarded(self._records.popleft(), lambda record: self.service.fold(record, now_ms))
            except Halted as halted:
                self.halted = halted
                self._records.clear()
        self._room.set()
        return effects

    def _fold_guarded(self, record: Record, fold: Callable[[Record], Folded]) -> Folded:
        """Raises:
        Halted: the service cannot fold what the leader committed.
        """
        try:
            return fold(record)
        except BUGS as error:
            log.exception("record_not_folded", extra={"sequence": record.sequence})
            raise Halted(sequence=record.sequence, why=repr(error)) from error

    def _highest_term(self) -> Term:
        tip = self._follower.tip
        return max(tip.term if tip else Term(0), self.announced.term if self.announced else Term(0))


def _failure_of(task: asyncio.Task[None] | None) -> BaseException | None:
    return task.exception() if task is not None and task.done() and not task.cancelled() else None
