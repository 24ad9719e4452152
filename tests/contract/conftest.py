"""Every test here runs twice: simulated in virtual time, and against a real nats-server."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import pytest

from berth.sim.virtual_time import VirtualTimeLoop
from tests.contract.worlds import RealWorld, SimulatedWorld, World
from tests.nats_fixture import real_server

__all__ = ["real_server"]

REAL = "real"


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"simulated": VirtualTimeLoop, REAL: asyncio.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and f"[{REAL}" in item.nodeid:
            item.add_marker("nats")


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    """The world that belongs to the loop on which the test runs."""
    if f"[{REAL}" in request.node.nodeid:
        return RealWorld(request.getfixturevalue("real_server"))
    return SimulatedWorld(Random(7))
