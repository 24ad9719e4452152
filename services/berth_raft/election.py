"""The shell of the Raft core: its timer, its disk, its bus. Decides nothing.

`Election` runs on whatever loop it is started on (in the simulation: the world's). `ElectionThread` gives it
a thread, a loop and a connection of its own, so that heartbeats wait behind no fsync and no JSON work
(RAFT section 2, "Stalls").
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from berth import subjects
from berth.adapters.connection import Connection
from berth.ports import Clock, Envelope
from berth_raft.core.effects import Effect, HardState, Persist, Role, RoleChanged, Send
from berth_raft.core.messages import Tip
from berth_raft.core.node import RaftCore
from berth_raft.core.wire import MalformedMessage, decode, encode
from berth_raft.notice import AGAIN_S, OVERDUE_HEARTBEATS, PROBE, LeaderNotice

log = logging.getLogger(__name__)


class HardStateDisk(Protocol):
    """Where promises are kept; `store` returns when they are durable."""

    def store(self, hard_state: HardState) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """What one node knows of itself and the others, for people."""

    role: str
    term: int
    leader: str | None
    active: bool
    last_step_down: str | None
    amnesiac: bool
    tips: dict[str, int]


class Election:
    """Drives one core. All methods but `view` belong to the loop that `start` was awaited on."""

    def __init__(
        self,
        core: RaftCore,
        bus: Connection,
        clock: Clock,
        persist: Callable[[HardState], Awaitable[None]],
        on_role: Callable[[RoleChanged], None],
        on_tips: Callable[[dict[str, Tip]], None],
    ) -> None:
        """`on_tips`: told, while this node leads, how far the mirrors of the others reach, when that has changed."""
        self._core = core
        self._bus = bus
        self._clock = clock
        self._persist = persist
        self._on_role = on_role
        self._on_tips = on_tips
        self._tips: dict[str, Tip] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._to_persist: asyncio.Queue[Persist] = asyncio.Queue()
        self._persisting: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._notice = LeaderNotice(core.node_id, bus, self._leader_gone)
        self._overdue: asyncio.TimerHandle | None = None
        self._watched_us: int | None = None
        self.malformed = 0
        self.notices = 0

    async def start(self) -> None:
        self._persisting = asyncio.get_running_loop().create_task(self._persist_in_order())
        pattern = subjects.RAFT_PEER.pattern(to=self._core.node_id)
        self._unsubscribe = await self._bus.subscribe(pattern, self._receive)
        await self._notice.start()
        self._perform(self._core.tick(self._clock.monotonic_us()))

    async def stop(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._notice.stop()
        for timer in (self._timer, self._overdue):
            if timer is not None:
                timer.cancel()
        if self._persisting is not None:
            self._persisting.cancel()
            await asyncio.gather(self._persisting, return_exceptions=True)

    @property
    def persisting(self) -> asyncio.Task[None]:
        """Ends only when storing went wrong in a way that nobody foresaw: then this node must not go on."""
        assert self._persisting is not None, "asked before it was started"
        return self._persisting

    def view(self) -> MemberView:
        core = self._core
        return MemberView(
            role=core.role.value,
            term=core.term,
            leader=core.leader,
            active=core.active,
            last_step_down=core.last_step_down,
            amnesiac=core.is_amnesiac,
            tips={name: peer.tip.sequence for name, peer in core.peers.items()},
        )

    def set_tip(self, tip: Tip) -> None:
        self._core.set_tip(tip)
        self._rejoin()

    def set_eligible(self, eligible: bool) -> None:  # noqa: FBT001 - the one fact that this call tells
        self._perform(self._core.set_eligible(eligible))

    def activate(self, term: int) -> None:
        """The barrier of `term` is in the ledger; ignored when that term is over by now."""
        if self._core.term == term:
            self._perform(self._core.activate(self._clock.monotonic_us()))

    def resign(self, term: int, why: str) -> None:
        """Stop leading `term`; ignored when that term is over by now."""
        if self._core.term == term:
            self._perform(self._core.resign(self._clock.monotonic_us(), why))

    def adopt_term(self, term: int) -> None:
        self._perform(self._core.adopt_term(self._clock.monotonic_us(), term))

    def report(self) -> None:
        """Tell the leader now how far this node's mirror reaches, not with the next heartbeat."""
        self._perform(self._core.report())

    def transfer(self, to: str | None) -> None:
        self._perform(self._core.transfer(self._clock.monotonic_us(), to))

    def _receive(self, envelope: Envelope) -> None:
        tokens = subjects.RAFT_PEER.tokens(envelope.subject)
        if tokens is None or envelope.payload == PROBE:
            return
        try:
            message = decode(envelope.payload)
        except MalformedMessage:
            self.malformed += 1
            return
        self._perform(self._core.step(self._clock.monotonic_us(), tokens["sender"], message))
        self._rejoin()
        self._tell_tips()

    def _tell_tips(self) -> None:
        if self._core.role is Role.LEADER:
            tips = {name: peer.tip for name, peer in self._core.peers.items()}
            if tips != self._tips:
                self._tips = tips
                self._on_tips(tips)

    def recover(self, term: int) -> None:
        """Vote again, above `term`: every node has lost its votes, says an operator."""
        self._perform(self._core.recover(self._clock.monotonic_us(), self._next_incarnation(), term=term))

    def _rejoin(self) -> None:
        """A node that has lost its votes takes part again once it has what the leader has."""
        if self._core.can_rejoin:
            incarnation = self._next_incarnation()
            log.warning("votes_rejoined", extra={"incarnation": incarnation, "term": self._core.term})
            self._perform(self._core.rejoin(self._clock.monotonic_us(), incarnation))

    def _next_incarnation(self) -> int:
        """Higher than any before it: nobody remembers the last one."""
        return max(1, self._clock.now_ms() // 1000)

    # ------------------------------------------------------------------ hearing early that the leader is gone

    def suspect(self, name: str) -> None:
        """A connection of `name` has ended; if it leads, ask whether anything of it is left."""
        if name == self._core.leader and name != self._core.node_id:
            self._notice.ask(name)
            for wait_s in AGAIN_S:
                asyncio.get_running_loop().call_later(wait_s, self._ask_again, name)

    def _ask_again(self, name: str) -> None:
        if name == self._core.leader:
            self._notice.ask(name)

    def _leader_gone(self, name: str) -> None:
        if name == self._core.leader and name != self._core.node_id:
            self.notices += 1
            log.info("leader_gone_noticed", extra={"leader": name, "term": self._core.term})
            self._perform(self._core.leader_gone(self._clock.monotonic_us()))

    def _watch(self) -> None:
        """Keep an eye on the leader whose heartbeat was accepted last."""
        heard_us = self._core.leader_heard_us if self._core.leader is not None else None
        if heard_us == self._watched_us:
            return
        self._watched_us = heard_us
        if self._overdue is not None:
            self._overdue.cancel()
        if heard_us is not None:
            patience_us = OVERDUE_HEARTBEATS * self._core.settings.heartbeat_us
            wait_us = heard_us + patience_us - self._clock.monotonic_us()
            self._overdue = asyncio.get_running_loop().call_later(wait_us / 1e6, self._ask_overdue)

    def _ask_overdue(self) -> None:
        """Ask for the leader, and again until it is heard or given up."""
        leader = self._core.leader
        if leader is not None and leader != self._core.node_id:
            self._notice.ask(leader)
            wait_us = self._core.settings.heartbeat_us // 4
            self._overdue = asyncio.get_running_loop().call_later(wait_us / 1e6, self._ask_overdue)

    # ------------------------------------------------------------------ the core's effects

    def _tick(self) -> None:
        self._perform(self._core.tick(self._clock.monotonic_us()))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    subject = subjects.RAFT_PEER.of(to=effect.to, sender=self._core.node_id)
                    self._bus.publish(subject, encode(effect.message))
                case Persist():
                    self._to_persist.put_nowait(effect)
                case RoleChanged():
                    self._on_role(effect)
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wait_us = max(0, self._core.deadline() - self._clock.monotonic_us())
        # A little late rather than a little early: an early tick would find nothing due and spin.
        self._timer = asyncio.get_running_loop().call_later(wait_us / 1e6 + 0.0001, self._tick)
        self._watch()

    async def _persist_in_order(self) -> None:
        while True:
            wanted = await self._to_persist.get()
            while not self._to_persist.empty():
                wanted = self._to_persist.get_nowait()  # a later one replaces the earlier ones
            try:
                await self._persist(wanted.hard_state)
            except OSError:
                log.exception("hard_state_not_stored", extra={"runbook": "raft-disk.md"})
                self._perform(self._core.on_persist_failed(wanted.token))
            else:
                self._perform(self._core.on_synced(wanted.token, self._clock.monotonic_us()))


class ElectionThread:
    """An `Election` on its own thread; every method may be called from the main one."""

    def __init__(
        self,
        make_core: Callable[[], RaftCore],
        connect: Callable[[], Awaitable[Connection]],
        disk: HardStateDisk,
        clock: Clock,
        on_role: Callable[[RoleChanged], None],
        on_tips: Callable[[dict[str, Tip]], None],
        on_failed: Callable[[str], None],
    ) -> None:
        """`on_role`, `on_tips` and `on_failed` are called on the main loop (the one that is running now);
        after `on_failed` it takes no part.
        """
        self._make_core = make_core
        self._connect = connect
        self._disk = disk
        self._clock = clock
        self._main = asyncio.get_running_loop()
        self._on_role = on_role
        self._on_tips = on_tips
        self._on_failed = on_failed
        self._loop = asyncio.new_event_loop()
        self._ready: asyncio.Future[None] = self._main.create_future()
        self._election: Election | None = None
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="raft", daemon=True)

    async def start(self) -> None:
        """Returns when the node takes part; raises what connecting raised."""
        self._thread.start()
        await self._ready

    async def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        await asyncio.to_thread(self._thread.join, 2.0)

    def view(self) -> MemberView:
        assert self._election is not None, "asked before it was started"
        return self._election.view()

    def set_tip(self, tip: Tip) -> None:
        self._call(lambda election: election.set_tip(tip))

    def set_eligible(self, eligible: bool) -> None:  # noqa: FBT001 - the one fact that this call tells
        self._call(lambda election: election.set_eligible(eligible))

    def activate(self, term: int) -> None:
        self._call(lambda election: election.activate(term))

    def resign(self, term: int, why: str) -> None:
        self._call(lambda election: election.resign(term, why))

    def adopt_term(self, term: int) -> None:
        self._call(lambda election: election.adopt_term(term))

    def report(self) -> None:
        self._call(lambda election: election.report())

    def transfer(self, to: str | None) -> None:
        self._call(lambda election: election.transfer(to))

    def recover(self, term: int) -> None:
        self._call(lambda election: election.recover(term))

    def suspect(self, name: str) -> None:
        self._call(lambda election: election.suspect(name))

    def _call(self, act: Callable[[Election], None]) -> None:
        election = self._election
        if election is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act, election)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        try:
            bus = await self._connect()
        except OSError as error:
            self._main.call_soon_threadsafe(self._ready.set_exception, error)
            return
        election = Election(self._make_core(), bus, self._clock, self._store, self._tell, self._tell_tips)
        self._election = election
        await election.start()
        self._main.call_soon_threadsafe(self._ready.set_result, None)
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((stopping, election.persisting), return_when=asyncio.FIRST_COMPLETED)
        if election.persisting.done():
            why = f"the hard state cannot be kept: {election.persisting.exception()!r}"
            self._main.call_soon_threadsafe(self._on_failed, why)
        await election.stop()

    async def _store(self, hard_state: HardState) -> None:
        await self._loop.run_in_executor(None, self._disk.store, hard_state)

    def _tell(self, changed: RoleChanged) -> None:
        self._main.call_soon_threadsafe(self._on_role, changed)

    def _tell_tips(self, tips: dict[str, Tip]) -> None:
        self._main.call_soon_threadsafe(self._on_tips, tips)
