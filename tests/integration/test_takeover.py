"""kill -9 of the process that holds the pin: the standby takes over and nothing is lost (DESIGN section 3)."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from contextlib import aclosing
from pathlib import Path

from berth.adapters import users
from berth.adapters.jetstream_api import JetStreamApi
from berth.adapters.request_queue import JetStreamQueue
from tests.contract.worlds import next_queued
from tests.nats_fixture import RealServer, real_server

__all__ = ["real_server"]

HOLDER = """
import asyncio, sys
from pathlib import Path
from berth.adapters.nats_bus import BusSettings, NatsBus
from berth.adapters.request_queue import JetStreamQueue

async def hold(url: str, seed: str) -> None:
    bus = await NatsBus.connect(BusSettings(url=url, user="quota-1", seed_file=Path(seed)), lost=sys.exit)
    async for batch in (await JetStreamQueue.open(bus)).pull():
        for message in batch:
            print(message.payload.decode(), flush=True)

asyncio.run(hold(*sys.argv[1:]))
"""
"""Takes what comes and never acknowledges it."""


async def test_the_standby_takes_over_from_a_killed_process(real_server: RealServer, tmp_path: Path) -> None:
    await real_server.bootstrap(ack_wait_seconds=1.0)
    program = tmp_path / "holder.py"
    program.write_text(HOLDER)
    seed = users.seed_file(real_server.keys, "quota-1")
    holder = await asyncio.create_subprocess_exec(
        sys.executable, program, real_server.server.url, seed, stdin=PIPE, stdout=PIPE
    )
    assert holder.stdout is not None
    client = await JetStreamApi.open(await real_server.connect("client"))
    await client.store("berth.v1.request.team-a", b"in hand", headers={}, within_seconds=10)
    assert await holder.stdout.readline() == b"in hand\n"

    standby = await JetStreamQueue.open(await real_server.connect("quota-2"))
    async with aclosing(standby.pull()) as batches:
        holder.kill()
        await holder.wait()
        await client.store("berth.v1.request.team-a", b"afterwards", headers={}, within_seconds=10)
        found = await next_queued(batches, 2)

    assert standby.pinned
    assert {(message.payload, message.count) for message in found} == {(b"in hand", 2), (b"afterwards", 1)}
