"""The processes of a running cluster: each is started again when it ends, and all are stopped in order."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from berth.errors import BerthError
from berth_cli import layout, log_files
from berth_cli.folder import Folder, RunningProcess
from berth_cli.layout import STOP_ORDER, ProcessSpec
from berth_cli.processes import Ended, Processes, StarterLost
from berth_cli.restarts import BAD_SETTINGS, Lives

log = logging.getLogger(__name__)

STOP_WITHIN_SECONDS = 10.0
"""What a process that was asked to end may take before it is killed; its own limit is shorter."""


_LOOK_AGAIN_SECONDS = 0.01


class ProcessFailed(BerthError):
    """A process that cannot live, however often it is started."""

    code = "process_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    spec: ProcessSpec
    pid: int
    since: float


@dataclass(kw_only=True)
class Children:
    """`changed` is called when a process was started or has ended, `gave_up` when one cannot live and the cluster
    is still starting; later a process is started again for ever.
    """

    folder: Folder
    processes: Processes
    changed: Callable[[], None]
    gave_up: Callable[[BerthError], None]
    settled: bool = False
    """The cluster has been ready."""
    _specs: dict[str, ProcessSpec] = field(default_factory=dict[str, ProcessSpec])
    _running: dict[str, _Running] = field(default_factory=dict[str, _Running])
    _lives: dict[str, Lives] = field(default_factory=dict[str, Lives])
    _restarting: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _gone: list[int] = field(default_factory=list[int])
    _stopping: bool = False

    @property
    def running(self) -> list[RunningProcess]:
        """In the order in which their specs were given."""
        found = [self._running[name] for name in self._specs if name in self._running]
        return [RunningProcess(role=one.spec.role, name=one.spec.name, pid=one.pid) for one in found]

    @property
    def restarts(self) -> dict[str, int]:
        """How often each process was started again; those that never were are left out."""
        return {name: lives.restarts for name, lives in self._lives.items() if lives.restarts}

    def replace(self, spec: ProcessSpec) -> None:
        """Start it like this from now on, when it has to be started again."""
        self._specs[spec.name] = spec

    async def start(self, spec: ProcessSpec) -> int:
        """Start it and keep it running; its pid.

        Raises:
            StarterLost: nothing can be started any more.
        """
        self._specs[spec.name] = spec
        self.folder.data(spec.name).mkdir(mode=0o700, parents=True, exist_ok=True)

        def started(pid: int) -> None:
            self._running[spec.name] = _Running(spec=spec, pid=pid, since=time.monotonic())
            self.changed()

        return await self.processes.start(
            spec.name,
            spec.program,
            environment={**layout.inherited(os.environ), **spec.environment},
            log=self.folder.log(spec.name),
            started=started,
        )

    # --- what ends ----------------------------------------------------------------------------------

    def ended(self, ended: Ended) -> None:
        """A process has ended: it is started again, unless that was wanted or is hopeless."""
        one = self._running.pop(ended.name)
        self._ended.set()
        self.changed()
        if self._stopping:
            return
        lives = self._lives.setdefault(ended.name, Lives())
        wait_ms = lives.ended(lived_ms=int((time.monotonic() - one.since) * 1000))
        log.warning(
            "process_ended",
            extra={"ended": ended.name, "pid": ended.pid, "status": ended.status, "restart_after_ms": wait_ms},
        )
        if not self.settled and (ended.status == BAD_SETTINGS or lives.is_hopeless):
            self.gave_up(self._failure(ended))
            return
        self._restart_after(ended.name, wait_ms / 1000)

    def exit_status(self, name: str, pid: int) -> int | None:
        """None while the process of that name is still `pid`, else 1. Safe to ask from another thread."""
        one = self._running.get(name)
        return None if one is not None and one.pid == pid else 1

    def _failure(self, ended: Ended) -> ProcessFailed:
        lines = log_files.last_lines(self.folder.log(ended.name))
        error = ProcessFailed(
            f"{ended.name} ended with {described(ended.status)}: {lines[-1] if lines else 'it said nothing'}",
            hint=f"its log is {self.folder.log(ended.name)}",
        )
        error.exit_code = BAD_SETTINGS if ended.status == BAD_SETTINGS else 1
        return error

    def _restart_after(self, name: str, seconds: float) -> None:
        restarting = asyncio.create_task(self._restart(name, seconds), name=f"restart {name}")
        self._restarting.add(restarting)
        restarting.add_done_callback(self._restarting.discard)

    async def _restart(self, name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        with contextlib.suppress(StarterLost):  # whoever listens is told, and starts everything again
            await self.start(self._specs[name])

    def lost(self) -> None:
        """The process that starts the others has ended, and the kernel kills what it had started."""
        self._cancel_restarts()
        for name in self._running:
            self._lives.setdefault(name, Lives()).restarts += 1
        self._gone += [one.pid for one in self._running.values()]
        self._running.clear()
        self._ended.set()

    async def start_all_again(self, processes: Processes) -> None:
        """Start everything that was lost from `processes`, once the last of it is gone."""
        self.processes = processes
        while any(is_alive(pid) for pid in self._gone):  # noqa: ASYNC110 the kernel tells nobody but their parent
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        self._gone.clear()
        for spec in list(self._specs.values()):
            await self.start(spec)

    # --- the end ------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Ask each group of STOP_ORDER to end, one group after the other; kill what does not."""
        self._stopping = True
        self._cancel_restarts()
        for roles in STOP_ORDER:
            names = [one.name for one in self.running if one.role in roles]
            for name in names:
                self.processes.signal(name, signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_WITHIN_SECONDS):
                    await self._until_ended(names)
            except TimeoutError:
                late = [name for name in names if name in self._running]
                log.warning("process_killed", extra={"names": late, "after_seconds": STOP_WITHIN_SECONDS})
                for name in late:
                    self.processes.signal(name, signal.SIGKILL)
                await self._until_ended(late)

    async def _until_ended(self, names: Collection[str]) -> None:
        while any(name in self._running for name in names):
            self._ended.clear()
            await self._ended.wait()

    def _cancel_restarts(self) -> None:
        for restarting in self._restarting:
            restarting.cancel()


def is_alive(pid: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def described(status: int) -> str:
    """An exit status for people."""
    return f"exit code {status}" if status >= 0 else signal.Signals(-status).name
