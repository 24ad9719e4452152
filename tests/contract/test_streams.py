"""The streams are made once, and a server whose streams are otherwise is refused."""

import pytest

from berth.adapters import streams
from berth.adapters.jetstream_api import JetStreamApi
from berth.errors import NotFound
from berth.subjects import LEDGER_STREAM
from tests.contract.worlds import World


async def test_making_the_streams_twice_changes_nothing(world: World) -> None:
    await world.bootstrap()
    await world.bootstrap()

    raft = await JetStreamApi.open(await world.connect("raft-1"))
    await streams.check_ledger_stream(raft)


async def test_a_server_without_the_ledger_is_refused_with_what_to_do(world: World) -> None:
    raft = await JetStreamApi.open(await world.connect("raft-1"))

    with pytest.raises(NotFound, match="berth init"):
        await streams.check_ledger_stream(raft)


async def test_a_ledger_that_may_forget_is_refused_by_name_of_the_setting(world: World) -> None:
    init = await JetStreamApi.open(await world.connect("init"))
    forgetful = {**streams.stream_configuration(LEDGER_STREAM, replicas=1), "max_age": 3_600_000_000_000}
    await init.call("STREAM.CREATE.LEDGER", forgetful)

    with pytest.raises(streams.StreamMisconfigured, match="max_age is 3600000000000"):
        await streams.check_ledger_stream(init)
    with pytest.raises(streams.StreamMisconfigured, match="max_age is 3600000000000"):
        await world.bootstrap()
