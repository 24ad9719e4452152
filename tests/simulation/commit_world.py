"""Whole raft nodes in the simulated world: real election, real leadership, real ledger adapter; time that jumps.

Proposers place requests on one node through the bus, again and again until they are told what became of them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from berth import subjects
from berth.adapters.jetstream_api import JetStreamApi
from berth.adapters.jetstream_ledger import JetStreamLedger, LedgerSettings
from berth.adapters.streams import create_streams
from berth.ids import LedgerId, Sequence
from berth.messages.commands import Proposal, ProposalAnswer, RefusalCode
from berth.messages.events import Transaction
from berth.ports import Appended, Envelope, StoredMessage
from berth.runtime.snapshots import Snapshots
from berth.runtime.telemetry import NoSpans
from berth.sim.faults import NO_FAULTS, NetworkFaults
from berth.sim.jetstream import SimulatedJetStream
from berth.sim.network import SimulatedBus, SimulatedNetwork
from berth.sim.snapshots import SimulatedSnapshots, at_once
from berth.sim.virtual_time import SimulatedClock
from berth.wire import codec
from berth_raft.commit import first_record
from berth_raft.core.effects import Amnesiac, HardState, RoleChanged
from berth_raft.core.messages import Tip
from berth_raft.core.node import RaftCore
from berth_raft.election import Election
from berth_raft.process import Promises, RaftNode
from berth_raft.settings import RaftNodeSettings

MEMBERS = ("raft-1", "raft-2", "raft-3")
STORMY = NetworkFaults(delay_us=(50, 20_000), dropped_permille=20, doubled_permille=20)
ANSWER_WITHIN_S = 0.5
SNAPSHOT_EVERY_EVENTS = 40
"""So few that a process that starts again begins with one, in nearly every world."""


@dataclass(slots=True)
class Disk:
    """What a node promised; a crash keeps it."""

    hard_state: HardState | Amnesiac = field(default_factory=lambda: HardState(incarnation=1, term=0, vote=None))

    def store(self, hard_state: HardState) -> None:
        if isinstance(self.hard_state, HardState):
            assert self.hard_state.may_become(hard_state), "I2: a promise was taken back"
        self.hard_state = hard_state

    def lose(self) -> None:
        """Its file is gone when it is looked for next."""
        self.hard_state = Amnesiac(why="the disk was replaced")


class SimulatedMirror:
    """A disk that keeps what was synced, and of the rest what `crash` leaves."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._kept: list[StoredMessage] = []
        self._synced = 0

    def records(self) -> list[StoredMessage]:
        return list(self._kept)

    def read(self, sequence: Sequence) -> bytes | None:
        return next((one.payload for one in self._kept if one.sequence == sequence), None)

    def cut(self, first: Sequence) -> None:
        self._kept = [one for one in self._kept if one.sequence < first]
        self._synced = min(self._synced, len(self._kept))

    async def append(self, messages: list[StoredMessage], *, sync: bool) -> None:
        self._kept += messages
        if sync:
            upto = len(self._kept)
            await asyncio.sleep(self._dice.randint(100, 3_000) / 1e6)
            self._synced = max(self._synced, upto)

    def crash(self) -> None:
        """The power fails: of what was not synced only the beginning may be there."""
        del self._kept[self._dice.randint(self._synced, len(self._kept)) :]


class SimulatedMachine:
    """The `Outside` of one node."""

    def __init__(self, world: "CommitWorld", name: str) -> None:
        self.clock = SimulatedClock(skew_ms=world.skews_ms.get(name, 0))
        self.dice = Random(world.random.random())
        self.buses: list[SimulatedBus] = []
        self._world = world
        self._name = name

    async def connect(self, *, keeps: bool) -> SimulatedBus:
        bus = self._world.network.bus(self._name, keeps_while_disconnected=keeps)
        self.buses.append(bus)
        return bus

    async def watch(self, ended: Callable[[str], None]) -> None:
        self._world.network.on_disconnect.append(ended)

    def snapshots(self) -> Snapshots:
        return Snapshots(
            self._world.snapshots[self._name], user=self._name, every_events=SNAPSHOT_EVERY_EVENTS, copy=at_once
        )

    def promises(self, *, ledger_term: int) -> Disk:
        del ledger_term
        return self._world.disks[self._name]

    def mirror(self) -> "SimulatedMirror":
        return self._world.mirrors[self._name]

    def election(
        self,
        make_core: Callable[[], RaftCore],
        promises: Promises,
        on_role: Callable[[RoleChanged], None],
        on_tips: Callable[[dict[str, Tip]], None],
    ) -> Election:
        bus = self._world.network.bus(self._name, keeps_while_disconnected=False)
        self.buses.append(bus)

        async def persist(hard_state: HardState) -> None:
            await asyncio.sleep(self.dice.randint(100, 3_000) / 1e6)
            promises.store(hard_state)

        return Election(make_core(), bus, self.clock, persist, on_role, on_tips)


class CommitWorld:
    """Three nodes, one server, and what proposers were told."""

    def __init__(
        self, seed: int, *, faults: NetworkFaults = NO_FAULTS, mishap_permille: int = 0, level: str = "ledger"
    ) -> None:
        self.random = Random(seed)
        self.network = SimulatedNetwork(Random(seed + 1))
        self.faults = faults
        self.jetstream = SimulatedJetStream(self.network, Random(seed + 2), mishap_permille=0)
        self.mishap_permille = mishap_permille
        self.level = level
        self.disks = {name: Disk() for name in MEMBERS}
        self.snapshots = {name: SimulatedSnapshots() for name in MEMBERS}
        self.mirrors = {name: SimulatedMirror(Random(seed + 3)) for name in MEMBERS}
        self.nodes: dict[str, RaftNode] = {}
        self.machines: dict[str, SimulatedMachine] = {}
        self.skews_ms: dict[str, int] = {}
        self.accepted: dict[str, int] = {}
        self.refused: dict[str, RefusalCode] = {}
        self._numbers = 0

    async def open(self, *history: Transaction) -> None:
        """Streams, the first record, all nodes, and `history` committed through them; then the faults begin."""
        await self.create_ledger()
        for name in MEMBERS:
            await self.start(name)
        for number, transaction in enumerate(history):
            await self.propose(f"history-{number}", transaction)
        self.network.faults = self.faults
        self.jetstream.mishap_permille = self.mishap_permille

    async def create_ledger(self) -> None:
        """As `berth init` does, the first time and after the server's disk was lost."""
        bus = self.network.bus("init")
        api = await JetStreamApi.open(bus)
        await create_streams(api)
        ledger = await JetStreamLedger.open(bus, LedgerSettings(consumer="init"))
        first = first_record(ledger_id=LedgerId("sim"), members=MEMBERS, level=self.level, now_ms=0)
        assert isinstance(await ledger.append(first, expected=Sequence(0)), Appended)

    async def lose_the_stream(self) -> None:
        """While everything is stopped, the server's disk is replaced by an empty one."""
        for name in MEMBERS:
            await self.crash(name)
        self.network.stop()
        for stream in list(self.jetstream.streams):
            self.jetstream.take_away(stream)
        self.jetstream.streams.clear()
        self.network.start()
        await self.create_ledger()

    async def start(self, name: str) -> None:
        machine = SimulatedMachine(self, name)
        settings = RaftNodeSettings(user=name, members=MEMBERS)
        node = RaftNode(settings, machine, NoSpans())
        self.machines[name] = machine
        await node.start()
        self.nodes[name] = node

    async def crash(self, name: str) -> None:
        """kill -9: nothing is sent any more; only the disk stays."""
        node, machine = self.nodes.pop(name), self.machines.pop(name)
        for bus in machine.buses:
            bus.crash()
        await node.abandon()
        self.mirrors[name].crash()

    def leader(self) -> str | None:
        """The node that may commit at this instant, the newest term's where two think so."""
        active = [
            (node.leadership.state.sequence, name) for name, node in self.nodes.items() if node.leadership.is_active
        ]
        return max(active)[1] if active else None

    async def calm(self) -> None:
        """All faults off, everybody up."""
        self.network.faults = NO_FAULTS
        self.jetstream.mishap_permille = 0
        if not self.network.running:
            self.network.start()
        for name in MEMBERS:
            if name not in self.nodes:
                await self.start(name)

    async def propose(self, name: str, transaction: Transaction) -> None:
        """Until it is known to be accepted, superseded by its own earlier copy, or refused for good."""
        proposer = self.network.bus("scheduler-1")
        while name not in self.accepted and name not in self.refused:
            answer = await self._ask(proposer, transaction)
            if answer is None:
                await asyncio.sleep(0.02)
                continue
            outcome = answer.outcomes[0]
            if outcome is None:
                assert answer.sequence is not None
                self.accepted[name] = answer.sequence
            elif outcome.code not in (RefusalCode.NOT_LEADER, RefusalCode.UNKNOWN, RefusalCode.OVERLOADED):
                self.refused[name] = outcome.code
        proposer.crash()

    async def _ask(self, bus: SimulatedBus, transaction: Transaction) -> ProposalAnswer | None:
        self._numbers += 1
        proposal = Proposal(id=f"p{self._numbers}", transactions=(transaction,), view_sequence=Sequence(0))
        answered: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        inbox = f"{bus.inbox}.{proposal.id}"

        def receive(envelope: Envelope) -> None:
            if not answered.done():
                answered.set_result(envelope)

        end = await bus.subscribe(inbox, receive)
        bus.publish(subjects.COMMIT.of(role="scheduler"), codec.encode_proposal(proposal), reply=inbox)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                envelope = await answered
        except TimeoutError:
            return None
        finally:
            end()
        return None if envelope.status is not None else codec.decode(ProposalAnswer, envelope.payload)

    def stored(self) -> list[bytes]:
        """Every message of the ledger's stream, in order."""
        stream = self.jetstream.streams[subjects.LEDGER_STREAM.name]
        return [stream.messages[sequence].payload for sequence in sorted(stream.messages)]
