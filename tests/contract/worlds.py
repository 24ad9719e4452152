"""The two worlds that must not differ: a real nats-server, and the simulated one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from random import Random
from typing import Protocol

from berth.adapters import streams
from berth.adapters.connection import Connection
from berth.adapters.jetstream_api import JetStreamApi
from berth.adapters.jetstream_ledger import JetStreamLedger, LedgerSettings
from berth.adapters.request_queue import JetStreamQueue
from berth.ids import Sequence
from berth.ports import QueuedMessage, StoredMessage
from berth.sim.jetstream import SimulatedJetStream
from berth.sim.network import SimulatedBus, SimulatedNetwork
from tests.nats_fixture import RealServer


class World(Protocol):
    """What a test may do to either."""

    async def connect(self, user: str, *, keeps_while_disconnected: bool = True) -> Connection:
        """A connection of `user`."""
        ...

    async def bootstrap(self, *, ack_wait_seconds: float = 10.0) -> None:
        """Make the streams and the pinned consumer."""
        ...

    async def leave(self, connection: Connection) -> None:
        """The process of that connection is gone."""
        ...

    def stop(self) -> None:
        """kill -9 of the server."""
        ...

    def start(self) -> None:
        """The server again, with its disk."""
        ...

    def freeze(self) -> None:
        """SIGSTOP of the server."""
        ...

    def thaw(self) -> None:
        """SIGCONT of the server."""
        ...

    async def unpin(self) -> None:
        """An operator takes the pin of REQUESTS away."""
        ...


class RealWorld:
    def __init__(self, server: RealServer) -> None:
        self._server = server

    async def connect(self, user: str, *, keeps_while_disconnected: bool = True) -> Connection:
        return await self._server.connect(user, keeps_while_disconnected=keeps_while_disconnected)

    async def bootstrap(self, *, ack_wait_seconds: float = 10.0) -> None:
        await self._server.bootstrap(ack_wait_seconds=ack_wait_seconds)

    async def leave(self, connection: Connection) -> None:
        gone = next(bus for bus in self._server.buses if bus is connection)
        await gone.close()

    def stop(self) -> None:
        self._server.server.kill()

    def start(self) -> None:
        self._server.server.start()

    def freeze(self) -> None:
        self._server.freeze()

    def thaw(self) -> None:
        self._server.thaw()

    async def unpin(self) -> None:
        await (await self._server.api()).call("CONSUMER.UNPIN.REQUESTS.quota", {"group": "active"})


class SimulatedWorld:
    def __init__(self, random: Random) -> None:
        self.network = SimulatedNetwork(random)
        self.jetstream = SimulatedJetStream(self.network, random)

    async def connect(self, user: str, *, keeps_while_disconnected: bool = True) -> Connection:
        return self.network.bus(user, keeps_while_disconnected=keeps_while_disconnected)

    async def bootstrap(self, *, ack_wait_seconds: float = 10.0) -> None:
        api = await JetStreamApi.open(await self.connect("init"))
        await streams.create_streams(api, ack_wait_seconds=ack_wait_seconds)

    async def leave(self, connection: Connection) -> None:
        assert isinstance(connection, SimulatedBus)
        connection.crash()

    def stop(self) -> None:
        self.network.stop()

    def start(self) -> None:
        self.network.start()

    def freeze(self) -> None:
        self.network.freeze()

    def thaw(self) -> None:
        self.network.thaw()

    async def unpin(self) -> None:
        self.jetstream.unpin("REQUESTS", "quota")


# --- what both are used through -----------------------------------------------------------------------


async def ledger_of(
    world: World, user: str, *, append_within_seconds: float = 5.0, shared_user: bool = False
) -> JetStreamLedger:
    """The ledger as the process `user` has it."""
    connection = await world.connect(user, keeps_while_disconnected=False)
    return await ledger_on(connection, user, append_within_seconds=append_within_seconds, shared_user=shared_user)


async def ledger_on(
    connection: Connection, user: str, *, append_within_seconds: float = 5.0, shared_user: bool = False
) -> JetStreamLedger:
    """The ledger on a connection that the test wants to watch."""
    settings = LedgerSettings(
        consumer=user,
        shared_user=shared_user,
        append_within_seconds=append_within_seconds,
        heartbeat_seconds=0.2,
    )
    return await JetStreamLedger.open(connection, settings)


async def queue_of(world: World, user: str) -> tuple[JetStreamQueue, Connection]:
    """The request queue as the process `user` has it, and its connection."""
    connection = await world.connect(user)
    return await JetStreamQueue.open(connection), connection


async def until_lost(*connections: Connection) -> None:
    """Return when each of them has noticed that the server is gone; call it before the server goes."""
    waiting = [asyncio.Event() for _ in connections]
    for connection, lost in zip(connections, waiting, strict=True):
        connection.on_connection(lost=lost.set)
    await asyncio.gather(*(lost.wait() for lost in waiting))


async def stopped(world: World, *connections: Connection) -> None:
    """kill -9 of the server, and every one of `connections` knows it."""
    noticed = asyncio.ensure_future(until_lost(*connections))
    await asyncio.sleep(0)
    world.stop()
    await noticed


async def read_to_end(ledger: JetStreamLedger, after: int = 0) -> list[StoredMessage]:
    """Everything after `after` up to the first "nothing more right now"."""
    found: list[StoredMessage] = []
    async with aclosing(ledger.follow(Sequence(after))) as batches:
        async for batch in batches:
            if not batch:
                break
            found += batch
    return found


async def next_messages(batches: AsyncIterator[list[StoredMessage]], count: int) -> list[StoredMessage]:
    """The next `count` messages of a tail that somebody keeps open."""
    found: list[StoredMessage] = []
    while len(found) < count:
        found += await anext(batches)
    return found


async def next_queued(batches: AsyncIterator[list[QueuedMessage]], count: int = 1) -> list[QueuedMessage]:
    """The next `count` deliveries of a pull that somebody keeps open."""
    found: list[QueuedMessage] = []
    while len(found) < count:
        found += await anext(batches)
    return found
