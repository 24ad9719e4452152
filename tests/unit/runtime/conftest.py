"""Every async test here runs in virtual time, in the simulated world."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from random import Random

import pytest

from berth.sim.virtual_time import VirtualTimeLoop
from tests.contract.worlds import SimulatedWorld
from tests.unit.runtime.stage import Stage


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"simulated": VirtualTimeLoop}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A cluster with streams, a created ledger and nobody in it."""
    world = SimulatedWorld(Random(7))
    await world.bootstrap()
    stage = Stage(world)
    await stage.open()
    yield stage
    await stage.close()
