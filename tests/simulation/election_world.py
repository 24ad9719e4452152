"""A world of raft cores: a network, disks, clocks and processes that fail as one seed decides.

Everything happens in `World._run`, one event at a time, in the order of (time, number): one seed is one history.
The nodes are the real `RaftCore` over the real `HardStateStore`; only the shell around them is simulated, with a
ledger that is nothing but its tip and a compare-and-set.
"""

import heapq
from collections.abc import Callable
from hashlib import blake2b
from random import Random

from berth_raft.core.effects import Amnesiac, Effect, Persist, Role, RoleChanged, Send
from berth_raft.core.messages import EMPTY, Message, Tip
from berth_raft.core.node import RaftCore
from berth_raft.core.settings import RaftSettings
from berth_raft.core.wire import decode, encode
from berth_raft.hard_state import HardStateStore
from tests.simulation.election_checkers import Checkers
from tests.simulation.election_disk import PowerCut, SimulatedDisk, store_until_cut
from tests.simulation.election_faults import Faults

MS = 1_000
SECOND = 1_000_000
BARRIER_US: tuple[int, int] = (500, 5_000)


class World:
    """`run_for` lets time pass; everything else is what a fault or a test does between two instants."""

    def __init__(
        self, seed: int, *, voters: int = 3, observers: int = 0, faults: Faults, core: type[RaftCore] = RaftCore
    ) -> None:
        names = [chr(ord("a") + number) for number in range(voters + observers)]
        self.random = Random(seed)
        self.settings = RaftSettings(members=tuple(names[:voters]), observers=tuple(names[voters:]))
        self.faults = faults
        self.core_type = core
        self.checkers = Checkers(self.settings.members)
        self.now_us = 0
        self.ledger = EMPTY
        self.ledger_grows = True
        self.cut: dict[tuple[str, str], bool] = {}
        self.changes: list[tuple[int, str, RoleChanged]] = []
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self._trace = blake2b(digest_size=16)
        self.nodes = {name: Node(self, name) for name in names}
        for node in self.nodes.values():
            node.start()

    # ------------------------------------------------------------------ time

    def after(self, delay_us: int, happen: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now_us + delay_us, self._number, happen))

    def run_for(self, duration_us: int) -> None:
        until_us = self.now_us + duration_us
        while self._events and self._events[0][0] <= until_us:
            self.now_us, _, happen = heapq.heappop(self._events)
            happen()
        self.now_us = until_us

    def note(self, text: str) -> None:
        self._trace.update(f"{self.now_us} {text}\n".encode())

    @property
    def history(self) -> str:
        """A digest of all that happened."""
        return self._trace.hexdigest()

    # ------------------------------------------------------------------ network

    def deliver(self, sender: str, send: Send) -> None:
        """Each message goes through its bytes, so that every history also tests the codec."""
        data = encode(send.message)
        self.note(f"{sender}>{send.to} {data!r}")
        for _ in range(1 + (self.random.random() < self.faults.twice)):
            if self.random.random() < self.faults.lost:
                continue
            delay_us = self.random.randint(*self.faults.delay_us)
            if self.random.random() < self.faults.late:
                delay_us += self.random.randint(0, self.faults.late_us)
            self.after(delay_us, lambda: self._arrive(sender, send.to, data))

    def _arrive(self, sender: str, to: str, data: bytes) -> None:
        if not self.cut.get((sender, to)):
            self.nodes[to].receive(sender, decode(data))

    def isolate(self, name: str, *, hears: bool = False, is_heard: bool = False) -> None:
        for other in self.nodes:
            self.cut[other, name] = not hears
            self.cut[name, other] = not is_heard

    def heal(self) -> None:
        self.cut.clear()

    # ------------------------------------------------------------------ what a test asks

    @property
    def active_leader(self) -> str | None:
        """The one that leads and may commit, if all that run agree on it."""
        running = [node for node in self.nodes.values() if node.core is not None]
        leaders = [node.name for node in running if node.core is not None and node.core.is_leader]
        agreed = {node.core.leader for node in running if node.core is not None}
        return leaders[0] if len(leaders) == 1 and agreed == {leaders[0]} else None

    def leader_changes(self, since_us: int) -> list[tuple[int, str, int]]:
        """(when, who, term) for each node that came to lead, or stopped leading, since then."""
        changes: list[tuple[int, str, int]] = []
        led: dict[str, bool] = {}
        for at_us, name, change in self.changes:
            leads = change.role is Role.LEADER
            if leads != led.get(name, False) and at_us > since_us:
                changes.append((at_us, name, change.term))
            led[name] = leads
        return changes

    def end_all_faults(self) -> None:
        self.faults.stop()
        self.heal()
        for node in self.nodes.values():
            node.resume()
            node.set_eligible(True)
            node.start()


class Node:
    """One process and its disk. `life` counts its starts: what belongs to a former life is void."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.core: RaftCore | None = None
        self.life = 0
        self.disk = SimulatedDisk(world.random)
        self.disk.format()
        self.mirror = EMPTY
        self.barrier_takes_us = BARRIER_US
        self._store: HardStateStore | None = None
        self._is_paused = False
        self._missed: list[Callable[[], None]] = []
        self._to_persist: list[Persist] = []
        self._tick_due_us = 0
        self._clock_starts_us = world.random.randint(0, 10**9)
        self._clock_rate = 1 + world.random.uniform(-1, 1) * world.faults.clock_drift

    # ------------------------------------------------------------------ process

    def start(self) -> None:
        if self.core is not None:
            return
        self.disk.syncs_fail = False
        store = HardStateStore.load(self.disk)
        self.life += 1
        self._store = None if isinstance(store, Amnesiac) else store
        hard_state = store if isinstance(store, Amnesiac) else store.hard_state
        world = self.world
        self.core = world.core_type(self.name, world.settings, hard_state, world.random, self.clock_us())
        self.core.set_tip(self.mirror)
        world.note(f"{self.name} starts with {hard_state}")
        self.schedule_tick()
        self._later(100 * MS, self._follow_ledger)

    def crash(self, *, power_fails: bool) -> None:
        """A killed process leaves its written bytes to the kernel; a power cut does not."""
        if self.core is None:
            return
        self.world.note(f"{self.name} crashes")
        if self._store is not None and self._to_persist and self.world.random.random() < 0.5:
            store_until_cut(self._store, self.disk, self._to_persist[-1].hard_state)
        if power_fails:
            self.disk.cut_power()
        self.core = None
        self._is_paused = False
        self._missed.clear()
        self._to_persist.clear()

    def pause(self) -> None:
        self._is_paused = self.core is not None

    def resume(self) -> None:
        """What was missed comes at once, in any order between messages and timers."""
        self._is_paused = False
        missed, self._missed = self._missed, []
        if self.world.random.random() < 0.5:
            missed.reverse()
        for happen in missed:
            happen()

    def clock_us(self) -> int:
        """A monotonic clock of its own, with an offset and a drift."""
        return self._clock_starts_us + int(self.world.now_us * self._clock_rate)

    def _later(self, delay_us: int, happen: Callable[[], None]) -> None:
        """In this life only, and not while the process is paused."""
        life = self.life

        def in_this_life() -> None:
            if self.core is None or self.life != life:
                return
            if self._is_paused:
                self._missed.append(in_this_life)
            else:
                happen()

        self.world.after(delay_us, in_this_life)

    # ------------------------------------------------------------------ shell

    def receive(self, sender: str, message: Message) -> None:
        if self._is_paused:
            self._missed.append(lambda: self.receive(sender, message))
        elif self.core is not None:
            self.perform(self.core.step(self.clock_us(), sender, message))

    def set_eligible(self, eligible: bool) -> None:
        if self.core is not None:
            self.perform(self.core.set_eligible(eligible))

    def perform(self, effects: list[Effect]) -> None:
        life = self.life
        for effect in effects:
            if self.core is None or self.life != life:
                return  # crashed while sending
            match effect:
                case Send():
                    self._send(effect)
                case Persist():
                    self._to_persist.append(effect)
                    if len(self._to_persist) == 1:
                        self._start_persist()
                case RoleChanged():
                    self._role_changed(effect)
        self.schedule_tick()

    def _send(self, send: Send) -> None:
        world = self.world
        world.checkers.sent(self.name, send, self.disk.on_disk())
        world.deliver(self.name, send)
        if getattr(send.message, "granted", False) and world.random.random() < world.faults.crash_after_vote:
            # The rarest fault of a uniform swarm and the dearest bug: forget a vote that was just given.
            self.crash(power_fails=True)
            world.after(world.random.randint(100, 4_000), self.start)

    def _start_persist(self) -> None:
        self._later(self.world.random.randint(*self.world.faults.sync_us), self._end_persist)

    def _end_persist(self) -> None:
        """One sync for all that has come meanwhile: the last hard state contains the others."""
        assert self.core is not None
        assert self._store is not None
        newest = self._to_persist[-1]
        self._to_persist.clear()
        self.disk.syncs_fail = self.world.random.random() < self.world.faults.syncs_that_fail
        try:
            self._store.store(newest.hard_state)
        except OSError:
            self.perform(self.core.on_persist_failed(newest.token))
        except PowerCut:
            raise AssertionError("only a crash cuts the power") from None
        else:
            self.perform(self.core.on_synced(newest.token, self.clock_us()))

    def schedule_tick(self) -> None:
        if self.core is None:
            return
        world = self.world
        wait_us = int((self.core.deadline() - self.clock_us()) / self._clock_rate) + 1
        due_us = world.now_us + max(0, wait_us) + world.random.randint(0, world.faults.tick_late_us)
        if self._tick_due_us <= world.now_us or due_us < self._tick_due_us:
            self._tick_due_us = due_us
            self._later(due_us - world.now_us, lambda: self._tick(due_us))

    def _tick(self, due_us: int) -> None:
        if self._tick_due_us == due_us and self.core is not None:
            self._tick_due_us = 0
            self.perform(self.core.tick(self.clock_us()))

    # ------------------------------------------------------------------ ledger

    def _role_changed(self, change: RoleChanged) -> None:
        world = self.world
        world.note(f"{self.name} {change}")
        world.checkers.role_changed(self.name, self.life, change)
        world.changes.append((world.now_us, self.name, change))
        if change.role is Role.LEADER and not change.active:
            self._later(world.random.randint(*self.barrier_takes_us), lambda: self._append_barrier(change.term))

    def _append_barrier(self, term: int) -> None:
        """The compare-and-set of RAFT section 2, step 4, in one instant."""
        core, world = self.core, self.world
        assert core is not None
        if (core.role, core.term) != (Role.LEADER, term):
            return
        if world.ledger.barrier_term > term:
            self.perform(core.adopt_term(self.clock_us(), world.ledger.barrier_term))
            return
        self._advance_ledger(Tip(barrier_term=term, sequence=world.ledger.sequence + 1))
        self.perform(core.activate(self.clock_us()))

    def _follow_ledger(self) -> None:
        core, world = self.core, self.world
        assert core is not None
        if core.is_leader and core.term == world.ledger.barrier_term:
            sequence = world.ledger.sequence + (world.random.randint(0, 20) if world.ledger_grows else 0)
            self._advance_ledger(Tip(barrier_term=core.term, sequence=sequence))
        elif world.random.random() < 0.7:
            self.mirror = world.ledger
            core.set_tip(self.mirror)
            self.perform(core.adopt_term(self.clock_us(), self.mirror.barrier_term))
        self._later(100 * MS, self._follow_ledger)

    def _advance_ledger(self, tip: Tip) -> None:
        assert self.core is not None
        self.world.ledger = self.mirror = tip
        self.core.set_tip(tip)
