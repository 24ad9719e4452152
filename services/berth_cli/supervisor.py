"""The supervisor of `berth up`: starts everything at once, says when it is ready, keeps it running until asked to stop.

Each process is its own, with its own key; none outlives the supervisor (`fork_server.py`). What it knows of
them is written to `berth.json` whenever that changes.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from berth import subjects
from berth.adapters import nats_server
from berth.adapters.nats_server import ServerAddress
from berth.adapters.server_config import ANY_PORT, ServerSettings
from berth.adapters.users import seed_file
from berth.errors import BerthError, InvalidSetting
from berth_cli import bootstrap, layout, log_files
from berth_cli.children import Children
from berth_cli.folder import (
    Folder,
    Phase,
    Progress,
    RunningProcess,
    leftovers,
    read_members,
    write_description,
    write_members,
    write_progress,
)
from berth_cli.layout import NATS, SUPERVISOR, Addresses, ProcessSpec, Wish
from berth_cli.processes import Processes, Program, StarterLost
from berth_cli.readiness import until_ready

log = logging.getLogger(__name__)

READY_WITHIN_SECONDS = 60.0
_LOGS_EVERY_SECONDS = 5.0
_LEFTOVERS_SECONDS = 5.0
_SAMPLE_WITHIN_SECONDS = 15.0


class StillRunning(BerthError):
    """Processes of a supervisor that was killed have outlived it. Nothing was started."""

    code = "still_running"


async def supervise(
    folder: Folder, wish: Wish, processes: Processes, *, tell: Callable[[str], None], ready: Callable[[], None]
) -> None:
    """Run one cluster until SIGINT, SIGTERM or SIGHUP; a second one kills everything at once.

    Raises:
        BerthError: the cluster cannot start; nothing is left running.
    """
    stop = asyncio.Event()
    supervisor = Supervisor(folder, wish, processes, tell=tell)

    def asked(number: int) -> None:
        if stop.is_set():
            supervisor.kill()
            os._exit(128 + number)
        tell("stopping")
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` has it ignored
            asyncio.get_running_loop().add_signal_handler(number, asked, number)
    await supervisor.run(stop, ready)


class Supervisor:
    """One cluster from start to end; `run` is called once. The caller holds the folder's lock."""

    def __init__(self, folder: Folder, wish: Wish, processes: Processes, *, tell: Callable[[str], None]) -> None:
        """`processes` is already starting; `tell` gets progress for people."""
        self._folder = folder
        self._wish = wish
        self._tell = tell
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._children = Children(folder=folder, processes=processes, changed=self._changed, gave_up=self._gave_up)
        self._listening = asyncio.create_task(self._listen(processes), name="listen")
        self._phase = Phase.STARTING
        self._addresses: Addresses | None = None
        self._server: ServerAddress | None = None
        self._began = time.monotonic()
        self._say(Phase.STARTING)

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Start, call `ready`, and supervise until `stop` is set; in every case nothing is left running.

        Raises:
            BerthError: the cluster cannot start.
        """
        logs = asyncio.create_task(self._keep_logs_small(), name="keep logs small")
        problem = ""
        try:
            await self._unless_stopped(self._start(), stop)
            if not stop.is_set():
                self._children.settled = True
                self._say(Phase.READY)
                ready()
                await self._supervise(stop)
        except BerthError as error:
            problem = str(error)
            raise
        finally:
            self._say(Phase.STOPPING)
            with contextlib.suppress(StarterLost):
                await self._children.stop()
            for task in (logs, self._listening):
                task.cancel()
            await asyncio.gather(logs, self._listening, return_exceptions=True)
            self._children.processes.close()
            self._describe([])
            if problem:
                self._say(Phase.FAILED, problem)

    def kill(self) -> None:
        """End everything at once."""
        self._children.processes.close()

    # --- start --------------------------------------------------------------------------------------

    async def _start(self) -> None:
        members = self._members()
        await self._clean_up()
        self._tell("starting the bus")
        server = await self._start_server(len(members))
        seed = seed_file(self._folder.keys, subjects.INIT)
        created = await bootstrap.create_ledger(
            server.url, seed, members=members, level=self._wish.durability, keep=self._folder.first_record
        )
        write_members(self._folder, created.members)
        port = self._wish.port + 1 if self._wish.port else _free_port()
        addresses = self._addresses = Addresses(nats_url=server.url, console_port=port)
        self._tell("starting raft nodes and services")
        specs = layout.services(self._folder, self._wish, members=members, addresses=addresses, environment=os.environ)
        for spec in specs:
            await self._children.start(spec)
        leader = await until_ready(
            addresses.nats_url,
            seed_file(self._folder.keys, subjects.ADMIN),
            names=[spec.name for spec in specs if spec.role != subjects.AGENT],
            nodes=self._wish.nodes,
            within_seconds=READY_WITHIN_SECONDS,
            tell=self._tell,
        )
        if self._wish.workload:
            await self._submit_sample(addresses.nats_url)
        seconds = time.monotonic() - self._began
        self._tell(f"ready after {seconds:.1f} s: {leader} leads, {self._wish.nodes} nodes")

    async def _clean_up(self) -> None:
        """What a supervisor that was killed has left in the folder says nothing about this one."""
        try:
            async with asyncio.timeout(_LEFTOVERS_SECONDS):
                while leftovers(self._folder):  # noqa: ASYNC110 the kernel tells nobody but their parent
                    await asyncio.sleep(0.02)
        except TimeoutError:
            names = ", ".join(f"{process.name} ({process.pid})" for process in leftovers(self._folder))
            raise StillRunning(f"of an earlier `berth up` still run: {names}", hint="kill them first") from None
        self._folder.description.unlink(missing_ok=True)
        for path in self._folder.server_configuration.glob("*.ports"):
            path.unlink()

    async def _submit_sample(self, url: str) -> None:
        """The demo workload; a cluster that does not take it in time is ready all the same."""
        from berth.client import connect
        from berth_cli.demo import submit_sample

        self._tell("submitting the demo workload")
        try:
            seed = seed_file(self._folder.keys, subjects.ADMIN)
            async with (
                asyncio.timeout(_SAMPLE_WITHIN_SECONDS),
                connect(url, nkey=seed, user=subjects.ADMIN) as cluster,
            ):
                await submit_sample(cluster)
        except (BerthError, TimeoutError) as error:
            log.warning("sample_not_submitted", extra={"why": repr(error)})
            self._tell("the demo workload was not taken; `berth demo` submits it again")

    def _members(self) -> tuple[str, ...]:
        """The raft nodes of the folder's ledger, or those that are asked for where there is none yet."""
        there = read_members(self._folder)
        if self._wish.raft is None:
            return there or layout.raft_members(3)
        asked = layout.raft_members(self._wish.raft)
        if there is not None and there != asked:
            raise bootstrap.OtherMembers(there)
        return asked

    async def _start_server(self, raft: int) -> ServerAddress:
        """The bus, ready; when it has to be started again, clients find it where it was."""
        folder, port = self._folder, self._wish.port
        for taken in (port, port + 1) if port else ():
            _expect_free(taken)
        settings = ServerSettings(store=folder.store, port=port or ANY_PORT, monitor_port=ANY_PORT)
        size = bootstrap.Size(raft=raft, schedulers=self._wish.schedulers, quotas=self._wish.quotas)
        configuration = bootstrap.prepare(folder, settings, size)
        program = nats_server.find_server()

        def spec(address: ServerAddress | None) -> ProcessSpec:
            line = nats_server.command(program, configuration, folder.server_configuration, address)
            return ProcessSpec(role=NATS, name=NATS, program=Program(command=tuple(line)))

        pid = await self._children.start(spec(None))
        address = await asyncio.to_thread(
            nats_server.wait_ready,
            pid=pid,
            ports_folder=folder.server_configuration,
            exit_status=lambda: self._children.exit_status(NATS, pid),
            log=folder.log(NATS),
        )
        self._children.replace(spec(address))
        return address

    async def _unless_stopped(self, start: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
        """Return when `start` is done, or when it was stopped before.

        Raises:
            BerthError: it failed, or a process of the cluster cannot live.
        """
        starting = asyncio.create_task(start, name="start")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        ends: list[asyncio.Future[Any]] = [starting, stopped, self._failure, self._listening]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for failed in (self._failure, self._listening, starting):
                if failed.done():
                    failed.result()
        finally:
            for task in (starting, stopped):
                task.cancel()
            await asyncio.gather(starting, stopped, return_exceptions=True)

    # --- keep running -------------------------------------------------------------------------------

    async def _listen(self, processes: Processes) -> None:
        try:
            await processes.listen(self._children.ended)
        except StarterLost:
            self._children.lost()
            raise

    async def _supervise(self, stop: asyncio.Event) -> None:
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            while not stop.is_set():
                await asyncio.wait((stopped, self._listening), return_when=asyncio.FIRST_COMPLETED)
                if self._listening.done() and not stop.is_set():
                    await self._start_again()
        finally:
            stopped.cancel()

    async def _start_again(self) -> None:
        """The fork server was killed, and everything with it."""
        log.error("fork_server_lost", extra={"why": repr(self._listening.exception())})
        self._children.processes.close()
        processes = Processes.launch(self._folder.path, self._folder.log("fork-server"))
        self._listening = asyncio.create_task(self._listen(processes), name="listen")
        with contextlib.suppress(StarterLost):  # then the loop comes here again
            await self._children.start_all_again(processes)

    async def _keep_logs_small(self) -> None:
        while True:
            await asyncio.sleep(_LOGS_EVERY_SECONDS)
            for path in self._folder.logs.glob("*.log"):
                log_files.bound(path)

    # --- what others may know -----------------------------------------------------------------------

    def _gave_up(self, error: BerthError) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)

    def _changed(self) -> None:
        """A process was started or has ended."""
        self._describe([RunningProcess(role=SUPERVISOR, name=SUPERVISOR, pid=os.getpid()), *self._children.running])
        self._say(self._phase)

    def _describe(self, processes: list[RunningProcess]) -> None:
        if self._addresses is not None:
            urls = self._addresses
            write_description(self._folder, nats_url=urls.nats_url, console_url=urls.console_url, processes=processes)

    def _say(self, phase: Phase, problem: str = "") -> None:
        self._phase = phase
        write_progress(
            self._folder,
            Progress(phase=phase, supervisor=os.getpid(), problem=problem, restarts=self._children.restarts),
        )


def _free_port() -> int:
    """A port of the loopback that nobody has; whoever binds it next gets it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _expect_free(port: int) -> None:
    """Raises InvalidSetting: somebody listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InvalidSetting(
                f"port {port} cannot be used: {error.strerror}", hint="choose another with --port, or --port 0 for any"
            ) from None
