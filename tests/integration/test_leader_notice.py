"""What the real server says of a raft node that was killed: the two sources of the leader-gone notice (RAFT 2)."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from berth.adapters import users
from berth_raft.machine import Machine
from berth_raft.notice import LeaderNotice
from berth_raft.settings import RaftNodeSettings
from tests.nats_fixture import RealServer, real_server

__all__ = ["real_server"]

LEADER = """
import asyncio, sys
from pathlib import Path
from berth import subjects
from berth.adapters.nats_bus import BusSettings, NatsBus

async def lead(url: str, seed: str) -> None:
    bus = await NatsBus.connect(BusSettings(url=url, user="raft-1", seed_file=Path(seed)), lost=sys.exit)
    await bus.subscribe(subjects.RAFT_PEER.pattern(to="raft-1"), lambda envelope: None)
    print("listens", flush=True)
    await asyncio.sleep(600)

asyncio.run(lead(*sys.argv[1:]))
"""


async def a_leader(real_server: RealServer, folder: Path) -> asyncio.subprocess.Process:
    program = folder / "leader.py"
    program.write_text(LEADER)
    seed = users.seed_file(real_server.keys, "raft-1")
    leader = await asyncio.create_subprocess_exec(sys.executable, program, real_server.server.url, seed, stdout=PIPE)
    assert leader.stdout is not None
    assert await leader.stdout.readline() == b"listens\n"
    return leader


async def test_a_killed_leader_is_told_of_by_the_server_and_then_nobody_listens(
    real_server: RealServer, tmp_path: Path
) -> None:
    settings = RaftNodeSettings(
        user="raft-2",
        nats_url=real_server.server.url,
        data_dir=tmp_path / "raft-2",
        watch_nkey_file=users.seed_file(real_server.keys, "watch"),
    )
    machine = Machine(settings, lost=pytest.fail)
    ended: asyncio.Queue[str] = asyncio.Queue()
    await machine.watch(ended.put_nowait)
    leader = await a_leader(real_server, tmp_path)
    bus = await real_server.connect("raft-2")
    gone: asyncio.Queue[str] = asyncio.Queue()
    notice = LeaderNotice("raft-2", bus, gone.put_nowait)
    await notice.start()

    notice.ask("raft-1")
    await bus.flush()
    assert gone.empty(), "it listens"

    leader.kill()
    await leader.wait()
    async with asyncio.timeout(20):
        assert await ended.get() == "raft-1"
        while gone.empty():
            notice.ask("raft-1")
            await asyncio.sleep(0.01)
    assert gone.get_nowait() == "raft-1"
    notice.stop()
    await machine.close()


async def test_a_node_without_the_key_does_as_well_without(real_server: RealServer, tmp_path: Path) -> None:
    settings = RaftNodeSettings(user="raft-2", nats_url=real_server.server.url, data_dir=tmp_path / "raft-2")
    machine = Machine(settings, lost=pytest.fail)

    await machine.watch(pytest.fail)

    await machine.close()
