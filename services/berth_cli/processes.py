"""The supervisor's hand on its processes: start, signal, hear that one has ended. `fork_server.py` does it."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berth.errors import BerthError
from berth_cli.log_files import last_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a process runs: `command` is a command line, else the Python `module` as a program."""

    command: tuple[str, ...] | None = None
    module: str | None = None

    def __post_init__(self) -> None:
        assert (self.command is None) != (self.module is None), "a command line or a module"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A process has ended. `status`: its exit code, or minus the signal that killed it."""

    name: str
    pid: int
    status: int


def _nothing(pid: int) -> None:
    """For whoever waits for the pid instead."""
    del pid


@dataclass(frozen=True, slots=True, kw_only=True)
class _Starting:
    """Who is to be told that a process was started."""

    pid: asyncio.Future[int]
    started: Callable[[int], None]


class StarterLost(BerthError):
    """The process that starts the others has ended, and with it everything that it had started."""

    code = "starter_lost"


class Processes:
    """Made by `launch`, before there is an event loop; `listen` runs as long as the supervisor does."""

    def __init__(self, server: "subprocess.Popen[bytes]", control: socket.socket, log: Path) -> None:
        self._server = server
        self._control = control
        self._log = log
        self._writer: asyncio.StreamWriter | None = None
        self._listening = asyncio.Event()
        self._starting: dict[str, _Starting] = {}

    @classmethod
    def launch(cls, folder: Path, log: Path) -> "Processes":
        """Start the fork server, which begins to import.

        `folder` stands in its command line, so that `ps` says whose processes these are.
        """
        control, other = socket.socketpair()
        with log.open("ab") as output, other:
            server = subprocess.Popen(
                [sys.executable, "-P", "-u", "-m", "berth_cli.fork_server", str(folder)],
                stdin=other.fileno(),
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in a terminal is for the supervisor alone
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # its threads would not survive a fork
            )
        return cls(server, control, log)

    async def listen(self, ended: Callable[[Ended], None]) -> None:
        """Report what ends, until cancelled.

        Raises:
            StarterLost: the fork server is gone.
        """
        reader, self._writer = await asyncio.open_connection(sock=self._control)
        self._listening.set()
        with contextlib.suppress(ConnectionError):  # which says the same as the end of what it sends
            while line := await reader.readline():
                report: dict[str, Any] = json.loads(line)
                if "started" in report:
                    self._started(report["started"], report["pid"])
                else:
                    ended(Ended(name=report["ended"], pid=report["pid"], status=report["status"]))
        raise self._lost()

    async def start(
        self,
        name: str,
        program: Program,
        *,
        environment: Mapping[str, str],
        log: Path,
        started: Callable[[int], None] = _nothing,
    ) -> int:
        """Start `program` as `name` and return its pid; its output is appended to `log`.

        `started` is called with the pid before anybody is told that the process has ended.

        Raises:
            StarterLost: the fork server is gone.
        """
        assert name not in self._starting, f"{name} is being started already"
        await self._listening.wait()
        pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._starting[name] = _Starting(pid=pid, started=started)
        self._ask(
            {
                "start": name,
                "command": program.command,
                "module": program.module,
                "environment": dict(environment),
                "log": str(log),
            }
        )
        return await pid

    def signal(self, name: str, number: int) -> None:
        """Send a signal to the process of that name, if it still runs."""
        self._ask({"signal": number, "name": name})

    def close(self) -> None:
        """End the fork server, and with it everything that still runs."""
        if self._writer is not None:
            self._writer.close()
        self._control.close()
        self._server.wait()

    def _started(self, name: str, pid: int) -> None:
        starting = self._starting.pop(name)
        starting.started(pid)
        if not starting.pid.done():  # else whoever asked was cancelled
            starting.pid.set_result(pid)

    def _ask(self, request: dict[str, Any]) -> None:
        assert self._writer is not None, "listen first"
        self._writer.write(json.dumps(request).encode() + b"\n")

    def _lost(self) -> StarterLost:
        lines = last_lines(self._log, 1)
        error = StarterLost(
            f"the process that starts the others has ended: {lines[0] if lines else 'it said nothing'}",
            hint=f"its log is {self._log}",
        )
        for starting in self._starting.values():
            if not starting.pid.done():
                starting.pid.set_exception(error)
        return error
