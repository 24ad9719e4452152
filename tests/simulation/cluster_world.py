"""A whole cluster in the simulated world: raft nodes, services on the real runner, agents, clients; time that jumps.

Everything that Berth runs is the real thing but for the server, the network, the disks and the clocks. What is
asked of the cluster stands in `cluster_clients`, what happens to it in `cluster_troubles`, what must hold in
`checkers`.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

import tenacity

from berth.adapters.jetstream_ledger import JetStreamLedger, LedgerSettings
from berth.adapters.replies import Replies
from berth.adapters.request_queue import JetStreamQueue
from berth.effects import Identity
from berth.ids import NodeId
from berth.messages.documents import NodeDocument
from berth.messages.events import Transaction
from berth.model.cluster import AllocationState
from berth.model.ledger import State
from berth.runtime.logs import TextLines
from berth.runtime.runner import Runner, Surroundings
from berth.runtime.snapshots import Snapshots
from berth.sim.faults import NO_FAULTS, NetworkFaults
from berth.sim.network import SimulatedBus
from berth.sim.snapshots import SimulatedSnapshots, at_once
from berth.sim.virtual_time import SimulatedClock
from berth.subjects import REQUEST, REQUESTS_STREAM
from berth_agent.reporting import NodeReport, surroundings
from berth_agent.workloads import Remembered
from berth_quota.service import QuotaService
from berth_reservation.service import ReservationService
from berth_scheduler.service import SchedulerService
from tests.simulation.commit_world import MEMBERS, SNAPSHOT_EVERY_EVENTS, CommitWorld
from tests.simulation.witness import Promises, Witnessed

Maker = Callable[[Identity], Any]
"""Makes a service; a mutant of it in `test_cluster_mutants`."""

SERVICES: Mapping[str, Maker] = {
    "quota-1": QuotaService,
    "quota-2": QuotaService,
    "scheduler-1": SchedulerService,
    "scheduler-2": SchedulerService,
    "reservation-1": ReservationService,
    "reservation-2": ReservationService,
}

QUIET_SECONDS = 4.0
"""Nothing is appended for so long: nobody retries anything any more."""
PATIENCE_SECONDS = 120.0
"""With all faults off everything is decided within this."""


@dataclass(slots=True, kw_only=True)
class Process:
    """A service that runs; `stopping` asks it to drain and end."""

    service: Any
    runner: Runner
    bus: SimulatedBus
    task: asyncio.Task[None]
    stopping: asyncio.Event


@dataclass(slots=True, kw_only=True)
class Agent:
    """The agent of one node."""

    bus: SimulatedBus
    task: asyncio.Task[None]


class Problems(logging.Handler):
    """Everything that Berth itself says must not happen: what it logs as an error."""

    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)
        self.found: list[str] = []
        self.setFormatter(TextLines("simulation"))

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


@dataclass
class ClusterWorld:
    """Made in a running virtual-time loop. `services`: who runs, by the name of the process.

    `skew_ms`: how far each machine's clock may be off. `machines`: what runs on each node, which its agent's death
    does not end.
    """

    seed: int
    services: Mapping[str, Maker]
    skew_ms: int = 0
    problems: Problems = field(default_factory=Problems)
    promises: Promises = field(default_factory=Promises)
    processes: dict[str, Process] = field(default_factory=dict[str, Process])
    agents: dict[str, Agent] = field(default_factory=dict[str, Agent])
    nodes: dict[str, NodeDocument] = field(default_factory=dict[str, NodeDocument])
    machines: dict[str, set[str]] = field(default_factory=dict[str, "set[str]"])
    snapshots: SimulatedSnapshots = field(default_factory=SimulatedSnapshots)
    """Of the services, which share them; each raft node has its own."""
    _starts: int = 0

    def __post_init__(self) -> None:
        self.dice = Random(self.seed)
        self.raft = CommitWorld(self.seed)
        self.raft.skews_ms.update({name: self._skew() for name in MEMBERS})
        self.network = self.raft.network
        self.jetstream = self.raft.jetstream

    async def open(self, nodes: list[NodeDocument], *history: Transaction) -> None:
        """Everything is there and works; `history` is committed first."""
        await self.raft.open(*history)
        for name in self.services:
            await self.start(name)
        for node in nodes:
            self.nodes[node.id] = node
            await self.start_agent(node.id)
        while any(node not in self.state.cluster.nodes for node in self.nodes):  # noqa: ASYNC110 nobody tells
            await asyncio.sleep(0.05)

    def storm(self, faults: NetworkFaults, *, mishap_permille: int) -> None:
        """From now on messages are lost, doubled, late, and stored without anybody's being told."""
        self.network.faults = faults
        self.jetstream.mishap_permille = mishap_permille

    async def calm(self) -> None:
        """All faults off, everybody up."""
        self.storm(NO_FAULTS, mishap_permille=0)
        self.network.thaw()
        await self.raft.calm()
        for stream in self.jetstream.streams:
            self.jetstream.give_back(stream)
        for name in self.services:
            if name not in self.processes:
                await self.start(name)
        for name in self.nodes:
            if name not in self.agents:
                await self.start_agent(name)

    # --- processes ------------------------------------------------------------------------------------------

    async def start(self, name: str) -> None:
        """The process `name` begins: it knows nothing but the ledger and the snapshots."""
        self._starts += 1
        identity = Identity(user=name, boot=f"b{self._starts}")
        service = self.services[name](identity)
        bus = self.network.bus(name)
        ledger = await JetStreamLedger.open(bus, LedgerSettings(consumer=name))
        queue = await JetStreamQueue.open(bus) if REQUEST in service.subscriptions else None
        clock = SimulatedClock(skew_ms=self._skew())
        runner = Runner(
            Witnessed(service, self.promises),
            identity,
            Surroundings(bus=bus, ledger=ledger, clock=clock, queue=queue, snapshots=self._snapshots(name)),
        )
        stopping = asyncio.Event()
        task = asyncio.create_task(runner.run(stopping), name=name)
        self.processes[name] = Process(service=service, runner=runner, bus=bus, task=task, stopping=stopping)

    def _snapshots(self, name: str) -> Snapshots:
        return Snapshots(self.snapshots, user=name, every_events=SNAPSHOT_EVERY_EVENTS, copy=at_once)

    def _skew(self) -> int:
        return self.dice.randint(-self.skew_ms, self.skew_ms)

    async def crash(self, name: str) -> None:
        """kill -9: nothing is sent any more, nothing is remembered."""
        process = self.processes.pop(name)
        process.bus.crash()
        await self._ended(name, process)

    async def stop(self, name: str) -> None:
        """SIGTERM: it drains, as far as it gets within ten seconds."""
        process = self.processes.pop(name)
        process.stopping.set()
        await asyncio.wait((process.task,), timeout=10)
        process.bus.crash()
        await self._ended(name, process)

    async def _ended(self, name: str, process: Process) -> None:
        failed = process.task.done() and process.task.exception()
        process.task.cancel()
        await asyncio.gather(process.task, return_exceptions=True)
        assert not failed, f"{name} failed: {failed!r}"

    async def start_agent(self, node: str) -> None:
        self._starts += 1
        bus = self.network.bus("agent")
        replies = await Replies.open(bus, f"{bus.inbox}.agent")
        around = surroundings(bus, replies, session=f"s{self._starts}", ask_every_ms=2_000)
        report = NodeReport(self.nodes[node], around, Remembered(self.machines.setdefault(node, set())))
        self.agents[node] = Agent(bus=bus, task=asyncio.create_task(report.run(), name=f"agent of {node}"))

    async def bring_back(self) -> None:
        """Agents whose node was removed are started again, as by somebody who wants it in the cluster after all."""
        for node, agent in list(self.agents.items()):
            if agent.task.done() and agent.task.exception() is None:
                agent.bus.crash()
                await self.start_agent(node)

    async def crash_agent(self, node: str) -> None:
        agent = self.agents.pop(node)
        agent.bus.crash()
        agent.task.cancel()
        await asyncio.gather(agent.task, return_exceptions=True)

    async def close(self) -> None:
        """End everything that runs."""
        for name in list(self.agents):
            await self.crash_agent(name)
        for name in list(self.processes):
            await self.crash(name)
        for name in list(self.raft.nodes):
            await self.raft.crash(name)

    # --- what is so -----------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The newest that a raft node has."""
        states = [node.leadership.state for node in self.raft.nodes.values()]
        return max(states, key=lambda state: state.sequence)

    @property
    def records(self) -> list[bytes]:
        return self.raft.stored()

    @property
    def requests_left(self) -> int:
        """Messages of the work queue that nobody has acknowledged."""
        return len(self.jetstream.streams[REQUESTS_STREAM.name].messages)

    async def until_quiet(self) -> None:
        """Return when nothing is left to do and nobody does anything any more.

        Raises:
            AssertionError: that does not come about (I17).
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + PATIENCE_SECONDS
        last, since = 0, loop.time()
        while loop.time() < give_up:
            await self.bring_back()
            stored = len(self.records)
            if stored != last or self._why_not_quiet() is not None:
                last, since = stored, loop.time()
            elif loop.time() >= since + QUIET_SECONDS:
                return
            await asyncio.sleep(0.25)
        raise AssertionError(f"I17: {PATIENCE_SECONDS} s after the last fault {self._why_not_quiet()}")

    def _why_not_quiet(self) -> str | None:
        state = self.state
        if self.requests_left:
            return f"{self.requests_left} messages of the work queue are not acknowledged"
        for name, process in self.processes.items():
            if process.service.sequence != len(self.records):
                return f"{name} has folded {process.service.sequence} of {len(self.records)} records"
        for allocation in state.cluster.allocations.values():
            if allocation.is_live and (allocation.ends_at is not None or allocation.until is not None):
                return f"{allocation.id} has not ended"
        for key in state.queue.waiting:
            if state.queue.requests[key].request.queue_deadline_seconds is not None:
                return f"{key} has not passed its queue deadline"
        for node, machine in self.machines.items():
            there = state.cluster.on_node(NodeId(node)).values()
            placed = {f"{one.namespace}/{one.id}" for one in there if one.state is AllocationState.PLACED}
            if machine != placed:
                return f"{sorted(machine)} runs on {node}, where the ledger has {sorted(placed)}"
            drain = state.cluster.nodes[NodeId(node)].drain if node in state.cluster.nodes else None
            if placed and drain is not None and drain.until is not None:
                return f"the drain of {node} has not come to its deadline"
        return next((f"{name} is not over" for name in state.reservations.open), None)


@contextmanager
def repeatable(seed: int, problems: Problems) -> Generator[None]:
    """What the simulation does not own is made to follow it: the dice and the clock that tenacity uses, the log."""
    library: Any = tenacity
    dice, clock = random.getstate(), library.time
    random.seed(seed)  # noqa: TID251 tenacity draws its pauses from it
    library.time = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
    logging.getLogger().addHandler(problems)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(problems)
        library.time = clock
        random.setstate(dice)
