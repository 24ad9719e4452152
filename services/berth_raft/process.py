"""One raft node: election, ledger and bus wired together. Holds no rule of its own.

What it stands on (`Outside`) is handed in, so the same node runs on a machine (`machine`) and in the
simulated world.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from berth import subjects
from berth.adapters.connection import Connection
from berth.adapters.jetstream_api import JetStreamApi
from berth.adapters.jetstream_ledger import JetStreamLedger, LedgerSettings
from berth.adapters.streams import check_ledger_stream
from berth.errors import CorruptRecord, InvalidCommand, InvalidSetting, Overloaded, Unreachable
from berth.ids import NodeId, Sequence
from berth.messages.commands import (
    AdminAnswer,
    Committed,
    QueryAnswer,
    RaftCommand,
    Refusal,
    RefusalCode,
)
from berth.model.ledger import State
from berth.ports import Clock, Envelope
from berth.runtime import traceparent
from berth.runtime.snapshots import Snapshots
from berth.runtime.telemetry import Spans
from berth.wire import codec
from berth_raft.commit import Answer
from berth_raft.control import ElectionControl
from berth_raft.core.effects import Amnesiac, HardState, RoleChanged
from berth_raft.core.messages import Tip
from berth_raft.core.node import RaftCore
from berth_raft.core.settings import Dice, InvalidRaftSetting, RaftSettings, check_founders
from berth_raft.election import MemberView
from berth_raft.hearing import Hearing
from berth_raft.leadership import Leadership
from berth_raft.mirror import MirrorStore
from berth_raft.observing import CommitObserver, count_refusals, observe
from berth_raft.settings import RaftNodeSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

HAND_OVER_S = 0.4


class NodeConnection(Connection, Protocol):
    """A connection that can be closed."""

    async def close(self) -> None: ...


class Promises(Protocol):
    """What this node has promised; durable when `store` returns."""

    @property
    def hard_state(self) -> HardState | Amnesiac: ...
    def store(self, hard_state: HardState) -> None: ...


class RunningElection(ElectionControl, Protocol):
    """An election that takes part until it is stopped."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def view(self) -> MemberView: ...
    def transfer(self, to: str | None) -> None: ...
    def recover(self, term: int) -> None: ...
    def suspect(self, name: str) -> None: ...


class Outside(Protocol):
    """What a node stands on."""

    @property
    def clock(self) -> Clock: ...
    @property
    def dice(self) -> Dice: ...

    async def connect(self, *, keeps: bool) -> NodeConnection:
        """A connection of this node's user. `keeps`: what is published while it is down may leave later."""
        ...

    async def watch(self, ended: Callable[[str], None]) -> None:
        """Calls `ended` with the user of each connection that ends, where this node may know; until it is closed."""
        ...

    def snapshots(self) -> Snapshots | None:
        """What this node starts from and writes, on its own disk; None: it reads the whole ledger."""
        ...

    def promises(self, *, ledger_term: int) -> Promises:
        """As they were stored; new ones when there never were any, which `ledger_term` 0 proves."""
        ...

    def mirror(self) -> MirrorStore:
        """This node's own copy of the ledger."""
        ...

    def election(
        self,
        make_core: Callable[[], RaftCore],
        promises: Promises,
        on_role: Callable[[RoleChanged], None],
        on_tips: Callable[[dict[str, Tip]], None],
    ) -> RunningElection:
        """An election that is not started yet, with a connection of its own."""
        ...


class RaftNode:
    """Made, started, and stopped once."""

    def __init__(self, settings: RaftNodeSettings, outside: Outside, spans: Spans) -> None:
        """Raises InvalidSetting: a configuration that could not elect."""
        try:
            self._raft = RaftSettings(
                members=settings.members,
                election_timeout_min_ms=settings.election_timeout_min_ms,
                election_timeout_max_ms=settings.election_timeout_max_ms,
                heartbeat_ms=settings.heartbeat_ms,
            )
            check_founders(self._raft)
            self._raft.check_membership(settings.user)
        except InvalidRaftSetting as error:
            raise InvalidSetting(f"{error.setting}: {error.expected}", hint=error.hint) from None
        self._settings = settings
        self._outside = outside
        self._clock = outside.clock
        self._hearing = Hearing(self._clock.monotonic_us() // 1000)
        self._spans = spans
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._commits: Callable[[], None] | None = None
        self._bus: NodeConnection | None = None
        self._ledger_bus: NodeConnection | None = None
        self._election: RunningElection | None = None
        self._leadership: Leadership | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def leadership(self) -> Leadership:
        assert self._leadership is not None, "asked before it was started"
        return self._leadership

    @property
    def bus(self) -> NodeConnection:
        assert self._bus is not None, "asked before it was started"
        return self._bus

    def end(self, why: str) -> None:
        """This process must exit; called on the main loop."""
        if not self._ended.done():
            self._ended.set_result(why)

    @property
    def ended(self) -> asyncio.Future[str]:
        """Done with the reason when this process must exit."""
        return self._ended

    async def start(self) -> None:
        """Returns when the node follows and takes part in elections."""
        self._bus = await self._outside.connect(keeps=True)
        self._ledger_bus = await self._outside.connect(keeps=False)
        api = await JetStreamApi.open(self._ledger_bus)
        await _until_reached(lambda: check_ledger_stream(api, replicas=self._settings.replicas))
        ledger = await JetStreamLedger.open(self._ledger_bus, LedgerSettings(consumer=self._settings.user))
        mirror, snapshots = self._outside.mirror(), self._outside.snapshots()
        self._leadership = Leadership(
            await _restored(ledger, mirror, snapshots),
            node_id=self._settings.user,
            members=self._settings.members,
            ledger=ledger,
            mirror=mirror,
            clock=self._clock,
            timeout_max_ms=self._settings.election_timeout_max_ms,
            answer=self._answer,
            announce=self._announce,
            may_be_lost=self._may_be_lost,
            on_active=self._on_active,
            observer=CommitObserver(self._spans, self._clock),
            snapshots=snapshots,
        )
        observe(self._leadership)
        promises = self._outside.promises(ledger_term=await _until_reached(lambda: _last_term(ledger)))
        self._election = self._outside.election(
            lambda: RaftCore(
                self._settings.user,
                self._raft,
                promises.hard_state,
                self._outside.dice,
                self._clock.monotonic_us(),
            ),
            promises,
            self._leadership.role_changed,
            self._leadership.mirrors_changed,
        )
        self._leadership.election = self._election
        await self._subscribe()
        await self._election.start()
        await self._outside.watch(self._election.suspect)
        self._election.set_eligible(False)
        task = asyncio.create_task(self._leadership.run(), name="leadership")
        task.add_done_callback(self._leadership_ended)
        self._tasks.append(task)

    async def stop(self) -> None:
        """Hand the leadership over first, so that no client sees a gap (RAFT section 2, elections)."""
        election, leadership = self._election, self._leadership
        if election is not None and leadership is not None and leadership.is_active:
            election.transfer(None)
            try:
                async with asyncio.timeout(HAND_OVER_S):
                    while leadership.is_active:  # noqa: ASYNC110 - ends within a few heartbeats, or not
                        await asyncio.sleep(0.005)
            except TimeoutError:
                log.warning("leadership_not_handed_over", extra={"term": leadership.state.sequence})
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if election is not None:
            await election.stop()
        for connection in (self._ledger_bus, self._bus):
            if connection is not None:
                await connection.close()

    async def abandon(self) -> None:
        """End every task at once and tell nobody, as when the process is killed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._election is not None:
            await self._election.stop()

    def _leadership_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self.end(f"the ledger's task ended: {task.exception()!r}")

    # ------------------------------------------------------------------ the bus

    async def _subscribe(self) -> None:
        bus = self.bus
        bus.on_connection(regained=lambda: self._hearing.start(self._clock.monotonic_us() // 1000))
        await bus.subscribe(subjects.NODE_HEARTBEAT.pattern(), self._heartbeat)
        await bus.subscribe(subjects.QUERY.of(namespace=subjects.CLUSTER, what="raft"), self._query)
        await bus.subscribe(subjects.ADMIN_RAFT.template, self._admin)

    def _on_active(self, active: bool) -> None:  # noqa: FBT001 - the one fact that this call tells
        if active:
            self._tasks.append(asyncio.create_task(self._take_proposals(), name="take proposals"))
        elif self._commits is not None:
            self._commits()
            self._commits = None

    async def _take_proposals(self) -> None:
        end = await self.bus.subscribe(subjects.COMMIT.pattern(), self._proposal)
        if self.leadership.is_active and self._commits is None:
            self._commits = end
        else:
            end()
        self._tasks = [task for task in self._tasks if not task.done()]

    def _proposal(self, envelope: Envelope) -> None:
        if envelope.reply is None or not self.leadership.takes(envelope.reply):
            return
        try:
            offered = codec.decode_proposal(envelope.payload)
        except InvalidCommand as error:
            log.warning("proposal_undecodable", extra={"subject": envelope.subject, "why": str(error)})
            return
        context = traceparent.of_headers(envelope.headers)
        self.leadership.offer(offered, reply_to=envelope.reply, traceparent=context)

    def _answer(self, answer: Answer) -> None:
        count_refusals(answer.body)
        with contextlib.suppress(Overloaded):  # who is not answered asks again, and is then told by attempt
            self.bus.publish(answer.reply_to, codec.encode(answer.body))

    def _announce(self, committed: Committed) -> None:
        self.bus.publish(subjects.COMMITTED.template, codec.encode(committed))

    def _heartbeat(self, envelope: Envelope) -> None:
        tokens = subjects.NODE_HEARTBEAT.tokens(envelope.subject)
        if tokens is not None:
            known = self.leadership.state.cluster.nodes
            self._hearing.heard(NodeId(tokens["node"]), self._clock.monotonic_us() // 1000, known=known)

    def _may_be_lost(self, node: NodeId) -> bool:
        nodes = len(self.leadership.state.cluster.nodes)
        return self._hearing.may_be_lost(node, nodes=nodes, now_ms=self._clock.monotonic_us() // 1000)

    def _query(self, envelope: Envelope) -> None:
        if envelope.reply is not None:
            answer = QueryAnswer(items=(self.status(),), sequence=self.leadership.state.sequence)
            self.bus.publish(envelope.reply, codec.encode(answer))

    def status(self) -> dict[str, object]:
        """What this node says of itself; the client makes `berth raft status` of all of them."""
        leadership = self.leadership
        tip = leadership.state.tip
        view = self._election.view() if self._election is not None else None
        return {
            "id": self._settings.user,
            "role": view.role if view else "follower",
            "term": view.term if view else 0,
            "leader": view.leader if view else None,
            "active": leadership.is_active,
            "has_votes": view is None or not view.amnesiac,
            "last_step_down": view.last_step_down if view else None,
            "ledger_id": leadership.state.ledger_id,
            "ledger_term": tip.term if tip else 0,
            "sequence": tip.sequence if tip else 0,
            "mirror_sequence": leadership.mirrored,
            "committed": leadership.committed.sequence if leadership.committed is not None else None,
            "level": leadership.state.level,
            "restored": leadership.counts.restored,
            "hash": tip.hash if tip else "",
            "halted": leadership.counts.halted_at,
            "foreign": leadership.counts.foreign,
        }

    def _admin(self, envelope: Envelope) -> None:
        if envelope.reply is None or self._election is None:
            return
        try:
            command = codec.decode(RaftCommand, envelope.payload)
        except InvalidCommand as error:
            if self.leadership.is_active:
                self._refuse(envelope.reply, RefusalCode.INVALID, str(error))
            return
        if command.command == "recover":
            self._recover(self._election, envelope.reply)
        elif self.leadership.is_active:
            self._transfer(self._election, command.to, envelope.reply)

    def _transfer(self, election: RunningElection, to: str | None, reply: str) -> None:
        """Only the leader answers: it alone can hand over."""
        if to is not None and to not in self._raft.members:
            known = ", ".join(self._raft.members)
            self._refuse(reply, RefusalCode.NOT_FOUND, f"no member {to}; members are {known}")
            return
        election.transfer(to)
        self.bus.publish(reply, codec.encode(AdminAnswer(detail=f"{self._settings.user} hands over")))

    def _recover(self, election: RunningElection, reply: str) -> None:
        """Who has lost its votes answers; whether all have, the asker has seen."""
        if election.view().amnesiac and self.leadership.is_caught_up:
            tip = self.leadership.state.tip
            election.recover(tip.term if tip is not None else 0)
            self.bus.publish(reply, codec.encode(AdminAnswer(detail=self._settings.user)))

    def _refuse(self, reply: str, code: RefusalCode, detail: str) -> None:
        self.bus.publish(reply, codec.encode(AdminAnswer(refusal=Refusal(code=code, detail=detail))))


async def _restored(ledger: JetStreamLedger, mirror: MirrorStore, snapshots: Snapshots | None) -> State:
    """The newest snapshot that the mirror reaches; a mirror that ends before it is read again, without a gap."""
    state = State()
    tip = None if snapshots is None else await snapshots.restore(state, ledger)
    return State() if tip is not None and mirror.read(tip.sequence) is None else state


async def _until_reached(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again while the stream does not answer: a node may start before the server is ready."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(Unreachable), wait=wait_exponential(multiplier=0.05, max=1.0)
    ):
        with attempt:
            return await ask()
    raise AssertionError("tenacity ends with an answer or an error")


async def _last_term(ledger: JetStreamLedger) -> int:
    """The term of the ledger's last record, found from its end; 0 in one without a barrier."""
    last = await ledger.last_sequence()
    for sequence in range(last, 0, -1):
        stored = await ledger.read(Sequence(sequence))
        try:
            if stored is not None:
                return codec.decode_record(stored.payload).term
        except CorruptRecord:
            continue
    return 0
