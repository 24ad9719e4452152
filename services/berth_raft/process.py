"""One raft node as a process: the election on its own thread, the ledger and the proposals on the main one."""

import asyncio
import gc
import logging
import random
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from berth import subjects
from berth.adapters.jetstream_api import JetStreamApi
from berth.adapters.jetstream_ledger import JetStreamLedger, LedgerSettings
from berth.adapters.nats_bus import BusSettings, NatsBus
from berth.adapters.streams import check_ledger_stream
from berth.adapters.system_clock import SystemClock
from berth.errors import InvalidCommand, InvalidSetting
from berth.ids import NodeId, Sequence
from berth.messages.commands import (
    AdminAnswer,
    Committed,
    QueryAnswer,
    Refusal,
    RefusalCode,
    TransferLeadership,
)
from berth.model.ledger import State
from berth.ports import Envelope
from berth.runtime import traceparent
from berth.runtime.telemetry import Spans
from berth.wire import codec
from berth_raft import hard_state
from berth_raft.commit import Answer
from berth_raft.core.effects import Amnesiac, HardState
from berth_raft.core.node import RaftCore
from berth_raft.core.settings import InvalidRaftSetting, RaftSettings
from berth_raft.election import ElectionThread
from berth_raft.hearing import Hearing
from berth_raft.leadership import Leadership
from berth_raft.observing import CommitObserver, observe
from berth_raft.settings import RaftNodeSettings

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
YOUNG_OBJECTS = 50_000
NEVER = 1_000_000_000
HAND_OVER_S = 0.4


def keep_pauses_short() -> None:
    """No full collection on its own, and a quick hand-over between threads (RAFT section 2, "Stalls").

    Measured there: with the default collector heartbeats pause for seconds. The hot path makes no cycles.
    """
    gc.set_threshold(YOUNG_OBJECTS, 20, NEVER)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


class RaftNode:
    """Wires election, ledger and bus together; holds no rule of its own."""

    def __init__(self, settings: RaftNodeSettings, spans: Spans) -> None:
        """Raises InvalidSetting: a configuration that could not elect."""
        if settings.data_dir is None:
            raise InvalidSetting(
                f"{RaftNodeSettings.prefix()}DATA_DIR is required", hint="a raft node keeps its vote there"
            )
        try:
            self._raft = RaftSettings(
                members=settings.members,
                election_timeout_min_ms=settings.election_timeout_min_ms,
                election_timeout_max_ms=settings.election_timeout_max_ms,
                heartbeat_ms=settings.heartbeat_ms,
            )
            self._raft.check_membership(settings.user)
        except InvalidRaftSetting as error:
            raise InvalidSetting(f"{error.setting}: {error.expected}", hint=error.hint) from None
        self._settings = settings
        self._folder: Path = settings.data_dir
        self._clock = SystemClock()
        self._hearing = Hearing(self._clock.monotonic_us() // 1000)
        self._spans = spans
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._commits: Callable[[], None] | None = None
        self._bus: NatsBus | None = None
        self._election: ElectionThread | None = None
        self._leadership: Leadership | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def leadership(self) -> Leadership:
        assert self._leadership is not None, "asked before it was started"
        return self._leadership

    @property
    def bus(self) -> NatsBus:
        assert self._bus is not None, "asked before it was started"
        return self._bus

    @property
    def ended(self) -> asyncio.Future[str]:
        """Done with the reason when this process must exit."""
        return self._ended

    async def start(self) -> None:
        """Returns when the node follows and takes part in elections."""
        self._bus = await self._connect(keeps=True)
        ledger_bus = await self._connect(keeps=False)
        api = await JetStreamApi.open(ledger_bus)
        await check_ledger_stream(api, replicas=self._settings.replicas)
        ledger = await JetStreamLedger.open(ledger_bus, LedgerSettings(consumer=self._settings.user))
        self._leadership = Leadership(
            State(),
            node_id=self._settings.user,
            ledger=ledger,
            clock=self._clock,
            timeout_max_ms=self._settings.election_timeout_max_ms,
            answer=self._answer,
            announce=self._announce,
            may_be_lost=self._may_be_lost,
            on_active=self._on_active,
            observer=CommitObserver(self._spans),
        )
        observe(self._leadership)
        store = await self._hard_state(ledger)
        self._election = ElectionThread(
            lambda: self._core(store.hard_state),
            lambda: self._connect(keeps=False),
            store,
            self._clock,
            self._leadership.role_changed,
        )
        self._leadership.election = self._election
        await self._subscribe()
        await self._election.start()
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
                    while leadership.is_active:
                        await asyncio.sleep(0.005)
            except TimeoutError:
                log.warning("leadership_not_handed_over", extra={"term": leadership.state.sequence})
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if election is not None:
            await election.stop()
        if self._bus is not None:
            await self._bus.close()

    def _leadership_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self._ended.done():
            self._ended.set_result(f"the ledger's task ended: {task.exception()!r}")

    async def _connect(self, *, keeps: bool) -> NatsBus:
        settings = BusSettings(
            url=self._settings.nats_url,
            user=self._settings.user,
            seed_file=self._settings.nkey_file,
            connect_within_seconds=None,
            keeps_while_disconnected=keeps,
        )
        return await NatsBus.connect(settings, lost=self._lost)

    def _lost(self, why: str) -> None:
        """Called on any thread: the connection is closed for good, so this process ends and is started again."""
        self._ended.get_loop().call_soon_threadsafe(lambda: self._ended.done() or self._ended.set_result(why))

    def _core(self, promised: HardState) -> RaftCore:
        dice = random.Random(secrets.randbits(64))  # noqa: S311 - spreads timeouts, guards nothing
        return RaftCore(self._settings.user, self._raft, promised, dice, self._clock.monotonic_us())

    async def _hard_state(self, ledger: JetStreamLedger) -> hard_state.HardStateStore:
        """This node's promises. A node that has lost them waits until the ledger shows what it may not repeat.

        In a ledger without a barrier nobody has voted yet. Later, a new incarnation begins above the term that the
        ledger is at: whatever this node may have promised in a term that led to nothing is fenced by the ledger.
        """
        path = self._folder / "hard-state"
        self._folder.mkdir(parents=True, exist_ok=True)
        found = hard_state.load(path)
        if not isinstance(found, Amnesiac):
            return found
        term = await _last_term(ledger)
        if path.exists():
            path.rename(path.with_suffix(f".corrupt-{self._clock.now_ms()}"))
        incarnation = 1 if term == 0 else self._clock.now_ms() // 1000
        log.warning("hard_state_created", extra={"why": found.why, "term": term, "incarnation": incarnation})
        return hard_state.create(path, HardState(incarnation=incarnation, term=term, vote=None))

    # ------------------------------------------------------------------ the bus

    async def _subscribe(self) -> None:
        bus = self.bus
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
        if envelope.reply is None:
            return
        try:
            offered = codec.decode_proposal(envelope.payload)
        except InvalidCommand as error:
            log.warning("proposal_undecodable", extra={"subject": envelope.subject, "why": str(error)})
            return
        context = traceparent.of_headers(envelope.headers)
        self.leadership.offer(offered, reply_to=envelope.reply, traceparent=context)

    def _answer(self, answer: Answer) -> None:
        self.bus.publish(answer.reply_to, codec.encode(answer.body))

    def _announce(self, committed: Committed) -> None:
        self.bus.publish(subjects.COMMITTED.template, codec.encode(committed))

    def _heartbeat(self, envelope: Envelope) -> None:
        tokens = subjects.NODE_HEARTBEAT.tokens(envelope.subject)
        if tokens is not None:
            self._hearing.heard(NodeId(tokens["node"]), self._clock.monotonic_us() // 1000)

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
            "last_step_down": view.last_step_down if view else None,
            "ledger_id": leadership.state.ledger_id,
            "ledger_term": tip.term if tip else 0,
            "mirror_sequence": tip.sequence if tip else 0,
            "hash": tip.hash if tip else "",
            "halted": leadership.counts.halted_at,
            "foreign": leadership.counts.foreign,
        }

    def _admin(self, envelope: Envelope) -> None:
        """Only the leader answers: it alone can hand over."""
        if envelope.reply is None or not self.leadership.is_active or self._election is None:
            return
        try:
            command = codec.decode(TransferLeadership, envelope.payload)
        except InvalidCommand as error:
            self._refuse(envelope.reply, RefusalCode.INVALID, str(error))
            return
        if command.to is not None and command.to not in self._raft.members:
            known = ", ".join(self._raft.members)
            self._refuse(envelope.reply, RefusalCode.NOT_FOUND, f"no member {command.to}; members are {known}")
            return
        self._election.transfer(command.to)
        answer = AdminAnswer(detail=f"{self._settings.user} hands over")
        self.bus.publish(envelope.reply, codec.encode(answer))

    def _refuse(self, reply: str, code: RefusalCode, detail: str) -> None:
        self.bus.publish(reply, codec.encode(AdminAnswer(refusal=Refusal(code=code, detail=detail))))


async def _last_term(ledger: JetStreamLedger) -> int:
    """The term of the ledger's last record, found from its end; 0 in one without a barrier."""
    last = await ledger.last_sequence()
    for sequence in range(last, 0, -1):
        stored = await ledger.read(Sequence(sequence))
        try:
            if stored is not None:
                return codec.decode_record(stored.payload).term
        except codec.CorruptRecord:
            continue
    return 0


