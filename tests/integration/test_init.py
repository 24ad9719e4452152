"""Streams and first record: made once, by whoever comes first (RAFT section 2, "Bootstrap")."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from berth.adapters.users import create_user, seed_file
from berth.errors import CorruptRecord, Unreachable
from berth.ids import Sequence
from berth.wire import codec
from berth_cli.bootstrap import OtherMembers, create_ledger
from tests.nats_fixture import ROOT, RealServer, real_server

pytestmark = pytest.mark.nats

__all__ = ["real_server"]

MEMBERS = ("raft-1", "raft-2", "raft-3")


def init_seed(server: RealServer) -> Path:
    return seed_file(server.keys, "init")


async def test_the_first_record_creates_the_ledger(real_server: RealServer) -> None:
    created = await create_ledger(real_server.server.url, init_seed(real_server), members=MEMBERS)

    ledger = await real_server.ledger("raft-1")
    stored = await ledger.read(Sequence(1))
    assert stored is not None
    record = codec.decode_record(stored.payload)
    assert record.created == created
    assert (created.members, created.level) == (MEMBERS, "ledger")
    assert (record.sequence, record.term, record.leader) == (1, 0, "")


async def test_doing_it_again_changes_nothing(real_server: RealServer) -> None:
    first = await create_ledger(real_server.server.url, init_seed(real_server), members=MEMBERS)

    again = await create_ledger(real_server.server.url, init_seed(real_server), members=MEMBERS)

    assert again == first
    assert await (await real_server.ledger("raft-1")).last_sequence() == 1


async def test_of_several_at_once_one_creates_the_ledger(real_server: RealServer) -> None:
    url, seed = real_server.server.url, init_seed(real_server)

    created = await asyncio.gather(*(create_ledger(url, seed, members=MEMBERS) for _ in range(4)))

    assert len({one.ledger_id for one in created}) == 1
    assert await (await real_server.ledger("raft-1")).last_sequence() == 1


async def test_a_ledger_of_other_raft_nodes_is_left_alone(real_server: RealServer) -> None:
    await create_ledger(real_server.server.url, init_seed(real_server), members=MEMBERS)

    with pytest.raises(OtherMembers, match="raft-1, raft-2, raft-3") as refused:
        await create_ledger(real_server.server.url, init_seed(real_server), members=("raft-1",))

    assert refused.value.exit_code == 2


async def test_a_stream_that_begins_with_something_else_is_no_ledger(real_server: RealServer) -> None:
    await real_server.bootstrap()
    api = await real_server.api(ROOT)
    await api.store("berth.v1.ledger", b"hello", headers={}, within_seconds=5)

    with pytest.raises(CorruptRecord):
        await create_ledger(real_server.server.url, init_seed(real_server), members=MEMBERS)


async def test_a_key_of_another_cluster_is_refused(real_server: RealServer, tmp_path: Path) -> None:
    create_user(tmp_path / "foreign", name="init", role="init")

    with pytest.raises(Unreachable, match="refuses user init"):
        await create_ledger(real_server.server.url, tmp_path / "foreign" / "init.nk", members=MEMBERS)


async def test_the_command_says_which_ledger_it_made(real_server: RealServer) -> None:
    words = ["init", "--url", real_server.server.url, "--nkey", str(init_seed(real_server)), "--json"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "berth_cli.main", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, problems = await process.communicate()

    told = json.loads(output)
    assert (process.returncode, problems) == (0, b"")
    assert (told["version"], told["members"], told["level"]) == (1, list(MEMBERS), "ledger")
