"""Time that jumps says so when it cannot: when nobody will ever act again, and when nobody ever rests."""

import asyncio

import pytest

from berth.sim.virtual_time import Deadlock, Livelock, SimulatedClock, run


def test_an_hour_of_waiting_takes_none() -> None:
    async def story() -> tuple[float, int]:
        await asyncio.sleep(3_600)
        return asyncio.get_running_loop().time(), SimulatedClock(skew_ms=5).now_ms() - SimulatedClock().now_ms()

    assert run(story()) == (3_600.0, 5)


def test_what_waits_for_ever_is_a_deadlock() -> None:
    with pytest.raises(Deadlock):
        run(asyncio.Event().wait())


def test_what_never_rests_is_a_livelock() -> None:
    async def story() -> None:
        while True:  # noqa: ASYNC110 this is what must be found
            await asyncio.sleep(0)

    with pytest.raises(Livelock, match=r"it is still 0\.000 s"):
        run(story())
