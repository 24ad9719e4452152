"""A copy of the process computes on the memory of one moment, and whatever becomes of it is heard."""

import asyncio
import os
import signal
import time

import pytest

from berth.adapters.forking import CopyFailed, on_a_copy


async def test_what_changes_after_the_fork_is_not_seen_on_the_copy() -> None:
    numbers = [1, 2]

    copied = on_a_copy(lambda: repr(numbers).encode() * 100_000)  # more than a pipe holds
    numbers.append(3)

    assert await copied == b"[1, 2]" * 100_000


async def test_what_is_done_on_the_copy_is_not_seen_here() -> None:
    numbers = [1, 2]

    def change() -> bytes:
        numbers.clear()
        return str(os.getpid()).encode()

    pid = int(await on_a_copy(change))

    assert pid != os.getpid()
    assert numbers == [1, 2]


async def test_an_error_on_the_copy_is_raised_here() -> None:
    with pytest.raises(CopyFailed, match="ZeroDivisionError"):
        await on_a_copy(lambda: b"%d" % (1 // 0))


async def test_a_copy_that_is_killed_is_a_copy_that_failed() -> None:
    def die() -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    with pytest.raises(CopyFailed, match="without a word"):
        await on_a_copy(die)


async def test_a_copy_has_none_of_the_files_and_connections_of_the_process() -> None:
    reading, writing = os.pipe()
    copied = on_a_copy(lambda: b"" if _is_open(writing) else b"closed")

    assert await copied == b"closed"
    os.close(reading)
    os.close(writing)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


async def test_whoever_stops_waiting_ends_the_copy() -> None:
    began = time.monotonic()
    waiting = asyncio.ensure_future(on_a_copy(_for_ever))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.wait((waiting,))

    assert waiting.cancelled()
    assert time.monotonic() - began < 60


def _for_ever() -> bytes:
    signal.pause()
    return b""
