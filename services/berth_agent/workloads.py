"""What runs on a node, as far as its agent starts and stops it.

An agent that is only to take part (demo nodes, benchmarks) remembers what it was told. One with a runner has
a program of the operator's do it, which finds again after any crash what it had started.
"""

import asyncio
import logging
from collections.abc import Collection
from typing import Any, Protocol

import orjson

log = logging.getLogger(__name__)

RUNNER_WITHIN_SECONDS = 60.0


class Workloads(Protocol):
    """Allocations are named `namespace/id`. What fails is tried again when the agent has next asked."""

    async def running(self) -> Collection[str] | None:
        """What runs here now, whoever's process started it; None: nobody can tell."""
        ...

    async def start(self, allocation: dict[str, Any]) -> bool:
        """Start one, as the cluster describes it; whether it runs now."""
        ...

    async def stop(self, allocation: str) -> bool:
        """Stop one; whether it has stopped."""
        ...


class Remembered:
    """Nothing is started anywhere. `kept`: what survives this agent, if anything does."""

    def __init__(self, kept: set[str] | None = None) -> None:
        self._running: set[str] = set() if kept is None else kept

    async def running(self) -> Collection[str]:
        return sorted(self._running)

    async def start(self, allocation: dict[str, Any]) -> bool:
        self._running.add(str(allocation["id"]))
        return True

    async def stop(self, allocation: str) -> bool:
        self._running.discard(allocation)
        return True


class Runner:
    """A program that is called as `PROGRAM list NODE`, `PROGRAM start NODE ID` and `PROGRAM stop NODE ID`.

    `list` prints an ID a line. `start` gets the allocation as JSON on standard input. It has done what it was asked
    when it ends with 0, so `stop` ends only when nothing of it runs any more. Each may be asked for twice.
    """

    def __init__(self, program: str, node: str) -> None:
        self._program = program
        self._node = node

    async def running(self) -> Collection[str] | None:
        printed = await self._call("list")
        return None if printed is None else sorted(printed.decode(errors="replace").split())

    async def start(self, allocation: dict[str, Any]) -> bool:
        return await self._call("start", str(allocation["id"]), stdin=orjson.dumps(allocation)) is not None

    async def stop(self, allocation: str) -> bool:
        return await self._call("stop", allocation) is not None

    async def _call(self, verb: str, *words: str, stdin: bytes = b"") -> bytes | None:
        """What it printed; None: it failed, which it has said on standard error."""
        problem: str
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                verb,
                self._node,
                *words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            problem = str(error)
        else:
            try:
                async with asyncio.timeout(RUNNER_WITHIN_SECONDS):
                    printed, _ = await process.communicate(stdin)
            except TimeoutError:
                process.kill()
                await process.wait()
                problem = f"no end within {RUNNER_WITHIN_SECONDS:g} s"
            else:
                if process.returncode == 0:
                    return printed
                problem = f"exit code {process.returncode}"
        log.warning("runner_failed", extra={"node": self._node, "verb": verb, "words": words, "why": problem})
        return None
