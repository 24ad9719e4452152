"""Work on a copy of this process: a fork has all of its memory as it is now, and nothing that it does is seen here.

So a large state is written while the process goes on changing it. The copy has one thread and no connection:
it computes bytes, sends them through a pipe and ends.
"""

import asyncio
import gc
import os
import resource
import signal
from collections.abc import Awaitable, Callable

from berth.errors import BerthError

NICE = 10
"""The copy waits for the cluster's own work."""
_DONE, _FAILED = b"\0", b"\1"
_TOLD = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    TypeError,
    ValueError,
    BerthError,
)
"""What whoever waits is told in words."""


class CopyFailed(BerthError):
    """The copy of this process raised, or was killed."""

    code = "copy_failed"


def on_a_copy(compute: Callable[[], bytes]) -> Awaitable[bytes]:
    """Fork now; what is returned awaits what `compute` returns there. Whoever stops waiting kills the copy.

    The awaitable raises CopyFailed.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _as_copy(compute, writing)
    os.close(writing)
    return _result(pid, reading)


def _as_copy(compute: Callable[[], bytes], writing: int) -> None:
    """Never returns. Connections are closed first: the server must see it when the original process dies."""
    status = 1
    try:
        gc.disable()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        os.closerange(3, writing)
        os.closerange(writing + 1, most)
        os.nice(NICE)
        with os.fdopen(writing, "wb") as pipe:
            try:
                made = compute()
            except _TOLD as error:
                pipe.write(_FAILED + repr(error).encode())
            else:
                pipe.write(_DONE)
                pipe.write(made)
                status = 0
    finally:
        os._exit(status)


async def _result(pid: int, reading: int) -> bytes:
    told = asyncio.create_task(asyncio.to_thread(_read, pid, reading))
    try:
        text = await asyncio.shield(told)
    except asyncio.CancelledError:
        os.kill(pid, signal.SIGKILL)
        await told
        raise
    if text[:1] != _DONE:
        raise CopyFailed(text[1:].decode() or f"process {pid} ended without a word")
    return text[1:]


def _read(pid: int, reading: int) -> bytes:
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text
