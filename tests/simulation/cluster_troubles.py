"""What happens to a simulated cluster: which kinds of trouble a seed knows, one after the other, until the calm."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from berth.sim.faults import NetworkFaults
from berth.sim.jetstream import Mishap
from berth.sim.network import SimulatedBus
from berth.subjects import LEDGER_STREAM, QUOTA_CONSUMER, REQUESTS_STREAM
from tests.simulation.cluster_clients import Client
from tests.simulation.cluster_world import ClusterWorld

Trouble = Callable[[], Awaitable[None]]


def drawn_faults(dice: Random) -> tuple[NetworkFaults, int]:
    """What befalls messages: on the network, and (per mille) on their way into a stream."""
    most_us = dice.choice((0, 1_000, 20_000, 100_000))
    faults = NetworkFaults(
        delay_us=(0, most_us),
        dropped_permille=dice.choice((0, 0, 20, 60)),
        doubled_permille=dice.choice((0, 0, 20, 60)),
    )
    return faults, dice.choice((0, 30, 100))


class Troubles:
    """Draws which kinds this world knows; each call of `next` lets one of them begin beside those under way."""

    def __init__(self, world: ClusterWorld, clients: list[Client], dice: Random, began: float) -> None:
        self._world = world
        self._clients = clients
        self._dice = dice
        self._began = began
        every: list[Trouble] = [
            self._kill_a_node,
            self._kill_the_leader_in_doubt,
            self._kill_a_service,
            self._kill_a_service,
            self._end_a_service,
            self._kill_all_of_a_kind,
            self._restart_the_server,
            self._freeze_the_server,
            self._cut_somebody_off,
            self._cut_somebody_off,
            self._silence_an_agent,
            self._kill_a_client,
            self._take_the_pin,
            self._lose_a_consumer,
            self._take_a_stream_away,
        ]
        chosen = [trouble for trouble in every if dice.random() < 0.5]
        self._kinds = chosen or [self._kill_a_service]
        self._under_way: list[asyncio.Task[None]] = []

    def next(self) -> None:
        self._under_way.append(asyncio.ensure_future(self._dice.choice(self._kinds)()))

    async def over(self) -> None:
        """Everything that was taken away is given back."""
        await asyncio.gather(*self._under_way)

    async def _pause(self, least_ms: int, most_ms: int) -> None:
        await asyncio.sleep(self._dice.randint(least_ms, most_ms) / 1000)

    # --- processes ------------------------------------------------------------------------------------------

    async def _kill_a_node(self) -> None:
        nodes = sorted(self._world.raft.nodes)
        leader = self._world.raft.leader()
        if nodes:
            await self._kill_node(leader if leader and self._dice.random() < 0.7 else self._dice.choice(nodes))

    async def _kill_the_leader_in_doubt(self) -> None:
        """A message to a stream is lost, and before its sender knows, the leader is gone: often it was the sender."""
        lost = self._world.jetstream.mishaps
        lost.append(Mishap.MESSAGE_LOST)
        for _ in range(500):
            await asyncio.sleep(0.002)
            if not lost:
                break
        lost.clear()
        leader = self._world.raft.leader()
        if leader is not None:
            await self._kill_node(leader)

    async def _kill_node(self, name: str) -> None:
        await self._world.raft.crash(name)
        await self._pause(0, 1_000)
        await self._world.raft.start(name)

    def _service(self) -> str | None:
        running = sorted(self._world.processes)
        return self._dice.choice(running) if running else None

    async def _kill_a_service(self) -> None:
        victim = self._service()
        if victim is None:
            return
        await self._world.crash(victim)
        await self._pause(0, 2_500)
        await self._world.start(victim)

    async def _end_a_service(self) -> None:
        victim = self._service()
        if victim is None:
            return
        await self._world.stop(victim)
        await self._pause(0, 1_000)
        await self._world.start(victim)

    async def _kill_all_of_a_kind(self) -> None:
        kind = self._dice.choice(("quota", "scheduler", "reservation"))
        victims = [name for name in self._world.processes if name.startswith(kind)]
        for name in victims:
            await self._world.crash(name)
        await self._pause(0, 2_500)
        for name in victims:
            await self._world.start(name)

    async def _silence_an_agent(self) -> None:
        if not self._world.agents:
            return
        node = self._dice.choice(sorted(self._world.agents))
        await self._world.crash_agent(node)
        await self._pause(1_000, 9_000)
        await self._world.start_agent(node)

    async def _kill_a_client(self) -> None:
        victim = self._dice.choice(self._clients)
        if not victim.is_running:
            return
        await victim.crash()
        await self._pause(0, 500)
        victim.start(self._world.network, self._began)

    # --- the server and the ways to it ----------------------------------------------------------------------

    async def _restart_the_server(self) -> None:
        self._world.network.stop()
        await self._pause(1, self._dice.choice((100, 1_500)))
        self._world.network.start()

    async def _freeze_the_server(self) -> None:
        self._world.network.freeze()
        await self._pause(1, 900)
        self._world.network.thaw()

    async def _cut_somebody_off(self) -> None:
        buses = self._buses()
        cut = [bus for bus in self._dice.choice(buses) if self._dice.random() < 0.8]
        for bus in cut:
            bus.cut()
        await self._pause(10, 3_500)
        for bus in cut:
            bus.mend()

    def _buses(self) -> list[list[SimulatedBus]]:
        world = self._world
        return [
            *([process.bus] for process in world.processes.values()),
            *([agent.bus] for agent in world.agents.values()),
            *([client.bus] for client in self._clients if client.bus is not None),
            *(machine.buses for machine in world.raft.machines.values()),
        ]

    # --- streams and consumers ------------------------------------------------------------------------------

    async def _take_the_pin(self) -> None:
        self._world.jetstream.unpin(REQUESTS_STREAM.name, QUOTA_CONSUMER)
        await self._pause(1, 300)

    async def _lose_a_consumer(self) -> None:
        reader = self._service()
        if reader is not None and self._world.jetstream.has_consumer(LEDGER_STREAM.name, reader):
            self._world.jetstream.delete_consumer(LEDGER_STREAM.name, reader)
        await self._pause(1, 300)

    async def _take_a_stream_away(self) -> None:
        stream = self._dice.choice((LEDGER_STREAM.name, REQUESTS_STREAM.name))
        self._world.jetstream.take_away(stream)
        await self._pause(1, 800)
        self._world.jetstream.give_back(stream)
