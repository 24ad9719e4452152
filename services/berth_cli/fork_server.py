"""Starts the processes of a cluster for its supervisor, and cannot outlive it.

`berth up` starts a dozen Python processes that import the same half second of code. This process imports
it once and forks: each service is a process of its own, there in a few milliseconds, and so is one that was
killed. It is started as `python -m berth_cli.fork_server FOLDER`, with its end of a socket pair as standard
input; `processes.py` has the other end. It imports module by module while it listens.
Requests and reports are JSON, one a line:

    {"start": name, "command": [program, …] | null, "module": module | null, "environment": {…}, "log": path}
    {"signal": number, "name": name}
    ← {"started": name, "pid": pid}    ← {"ended": name, "pid": pid, "status": exit code, or minus a signal}

When the supervisor ends, the socket says so and everything is killed; when this process is killed, the
kernel kills what it started (PR_SET_PDEATHSIG, and each looks once who its parent is).

What must live here: forking and waiting. What must not: threads (a fork copies one thread only), the bus.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SHARED_MODULES = (
    "uvloop",
    "berth.messages.commands",
    "berth.adapters.jetstream_ledger",
    "berth.model.check",
    "berth.runtime.exporting",
    "berth_raft.__main__",
    "berth_quota.__main__",
    "berth_scheduler.__main__",
    "berth_reservation.__main__",
    "berth_agent.__main__",
    "berth_console.web.server",
    "berth_console.__main__",
    "uvicorn.protocols.http.auto",
)
"""What the processes import, in steps of at most an eighth of a second: the fork server listens in between."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What one process is to be: `command` is a command line, else the Python `module` is run as a program."""

    name: str
    command: list[str] | None
    module: str | None
    environment: dict[str, str]
    log: str


def main() -> None:
    """Serve until the supervisor is gone; a forked process leaves this function as what it was started for."""
    start = ForkServer(socket.socket(fileno=os.dup(sys.stdin.fileno())), SHARED_MODULES).serve()
    if start is not None:
        become(start)


class ForkServer:
    """The parent of all. `serve` returns in the parent when the supervisor is gone, in each child with its Start."""

    def __init__(self, control: socket.socket, modules: Sequence[str]) -> None:
        self._control = control
        self._to_import = deque(modules)
        self._names: dict[int, str] = {}
        self._unread = b""
        self._pid = os.getpid()

    def serve(self) -> Start | None:
        woken, waker = socket.socketpair()
        for end in (woken, waker):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, _noticed)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector, woken, waker, self._control:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            start = self._serve(selector, woken)
            signal.set_wakeup_fd(-1)
        return start

    def _serve(self, selector: selectors.BaseSelector, woken: socket.socket) -> Start | None:
        while True:
            if not selector.select(timeout=0 if self._to_import else None):
                self._import_next()
                continue
            with contextlib.suppress(BlockingIOError):
                woken.recv(4096)
            self._reap()
            try:
                requests = self._read()
            except BlockingIOError:
                continue
            except ConnectionError:
                self._kill_all()
                return None
            for request in requests:
                if (start := self._obey(request)) is not None:
                    return start

    def _read(self) -> list[dict[str, Any]]:
        """The requests that have come.

        Raises:
            ConnectionError: the supervisor is gone.
            BlockingIOError: none have.
        """
        received = self._control.recv(65_536, socket.MSG_DONTWAIT)
        if not received:
            raise ConnectionResetError("the supervisor has ended")
        *lines, self._unread = (self._unread + received).split(b"\n")
        return [json.loads(line) for line in lines]

    def _obey(self, request: dict[str, Any]) -> Start | None:
        if "signal" in request:
            self._signal(request["name"], request["signal"])
            return None
        start = Start(
            name=request["start"],
            command=request["command"],
            module=request["module"],
            environment=request["environment"],
            log=request["log"],
        )
        return self._fork(start)

    def _fork(self, start: Start) -> Start | None:
        """The child gets its Start; a module waits until everything is imported that it shares with others."""
        while start.module is not None and self._to_import:
            self._import_next()
        assert threading.active_count() == 1, "a fork copies one thread only"
        pid = os.fork()
        if pid == 0:
            end_with_parent(self._pid)
            return start
        self._names[pid] = start.name
        self._report({"started": start.name, "pid": pid})
        return None

    def _import_next(self) -> None:
        module = self._to_import.popleft()
        importlib.import_module(module)
        if module.endswith(".__main__"):
            del sys.modules[module]  # its process runs it as its program
        if not self._to_import:
            gc.collect()
            gc.freeze()  # the collectors of the processes leave alone what they share

    def _signal(self, name: str, number: int) -> None:
        """To the process of that name, if it has not been waited for: no other can have its pid yet."""
        for pid, known in self._names.items():
            if known == name:
                os.kill(pid, number)

    def _reap(self) -> None:
        while self._names:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            name = self._names.pop(pid)
            self._report({"ended": name, "pid": pid, "status": os.waitstatus_to_exitcode(status)})

    def _kill_all(self) -> None:
        for pid in self._names:
            os.kill(pid, signal.SIGKILL)
        while self._names:
            pid, _ = os.waitpid(-1, 0)
            self._names.pop(pid)

    def _report(self, report: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):  # the supervisor is gone: the next read says so
            self._control.sendall(json.dumps(report).encode() + b"\n")


def _noticed(number: int, _frame: object) -> None:
    """A child has ended: the wake-up descriptor says so."""
    assert number == signal.SIGCHLD


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which forked it, ends; end now if it has already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def become(start: Start) -> None:
    """Be the process that `start` describes: its log, its environment, its signals, its name in `ps`."""
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(start.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor, standard in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, standard)
    if start.command is not None:
        os.execve(start.command[0], start.command, start.environment)  # noqa: S606 a list of arguments, no shell
    assert start.module is not None, "a command or a module"
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, start.name.encode()[:15], 0, 0, 0)
    os.environ.clear()
    os.environ.update(start.environment)
    sys.argv = [start.module]
    runpy.run_module(start.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
