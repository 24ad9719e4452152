"""`berth up` and `berth down`: all of Berth on this machine, out of one folder.

`up` either becomes the supervisor of the folder or, when one runs there already, waits until that is ready.
With `--detach` the supervisor is a process of its own, which tells the waiting command through a pipe.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from berth.errors import BerthError, InvalidSetting, TimedOut
from berth_cli import layout
from berth_cli.context import Target, on_cluster
from berth_cli.folder import (
    Folder,
    Phase,
    holder,
    is_held,
    read_description,
    read_progress,
    take_lock,
    write_holder,
)
from berth_cli.layout import Durability, Wish
from berth_cli.log_files import last_lines
from berth_cli.output import note, print_json, print_lines
from berth_cli.processes import Processes

app = typer.Typer()

WAIT_SECONDS = 90.0
STOP_SECONDS = 30.0
_LOOK_AGAIN_SECONDS = 0.05


class NotStarted(BerthError):
    """The supervisor could not start the cluster; its message is the reason."""

    code = "not_started"


@app.command("up")
@on_cluster
def up(
    target: Target,
    *,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when everything is ready.")] = False,
    nodes: Annotated[
        int | None, typer.Option(min=0, help="Number of demo nodes; no demo workload then.", show_default="20")
    ] = None,
    schedulers: Annotated[int, typer.Option(min=1, help="Number of schedulers.")] = 2,
    quotas: Annotated[
        int, typer.Option(min=1, help="Number of quota services; one is active, the others take over.")
    ] = 2,
    raft: Annotated[
        int | None, typer.Option(help="Number of raft nodes: 1, 3 or 5.", show_default="3, or as many as there were")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65_534, help="Port of the bus; the console has the next one. 0: any free ones.")
    ] = 4222,
    empty: Annotated[bool, typer.Option("--empty", help="No demo nodes and no demo workload.")] = False,
    durability: Annotated[
        Durability | None,
        typer.Option(
            help="Committed is what the bus's disk has, or what a majority of raft nodes has on theirs besides.",
            show_default="ledger, or as it was",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the services.")
    ] = None,
) -> None:
    """Run all of Berth on this machine until Ctrl-C."""
    if target.url is not None or target.nkey is not None:
        raise InvalidSetting("`berth up` starts a cluster of its own", hint="it takes --dir, not --url or --nkey")
    if empty and nodes:
        raise InvalidSetting("--empty means no nodes", hint="give --nodes or --empty")
    if raft is not None:
        layout.raft_members(raft)
    wish = Wish(
        raft=raft,
        schedulers=schedulers,
        quotas=quotas,
        nodes=0 if empty else 20 if nodes is None else nodes,
        workload=not empty and nodes is None,
        port=port,
        durability=durability,
        settings=_chosen(settings or []),
    )
    folder = Folder(path=target.folder_meant().absolute())
    folder.create()
    lock = _lock_or_ready(folder)
    if lock is None:
        note(f"a cluster runs in {folder.path} already; nothing was started")
    elif detach:
        _start_detached(folder, wish, lock)
    else:
        _supervise(folder, wish, lock, as_json=target.as_json)
        return
    _print_addresses(folder, as_json=target.as_json)


def _chosen(assignments: list[str]) -> dict[str, dict[str, str]]:
    if not assignments:
        return {}
    from berth_cli.chosen_settings import chosen

    return chosen(assignments)


def _lock_or_ready(folder: Folder) -> int | None:
    """The folder's lock, or None once the cluster that runs there is ready.

    Raises:
        TimedOut: neither within a minute and a half.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        lock = take_lock(folder)
        if lock is not None:
            return lock
        progress = read_progress(folder)
        if progress is not None and progress.phase == Phase.READY:
            return None
        if time.monotonic() > deadline:
            phase = "starting" if progress is None else progress.phase
            raise TimedOut(
                f"the cluster in {folder.path} has been {phase} for {WAIT_SECONDS:g} s",
                hint=f"see {folder.log('supervisor')}, or stop it with `berth down --dir {folder.path}`",
            )
        time.sleep(_LOOK_AGAIN_SECONDS)


def _print_addresses(folder: Folder, *, as_json: bool) -> None:
    told = read_description(folder)
    assert told is not None, "a ready cluster has described itself"
    if as_json:
        print_json({"version": 1, "dir": str(folder.path), **_addresses(told)})
    else:
        print_lines(
            f"Berth runs in {folder.path}",
            f"  console  {told['console_url']}",
            f"  bus      {told['nats_url']}",
            f"Next: BERTH_DIR={folder.path} berth status; `berth down --dir {folder.path}` stops it",
        )


def _addresses(told: dict[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in ("nats_url", "console_url")}


# --- the supervisor ---------------------------------------------------------------------------------


def _supervise(folder: Folder, wish: Wish, lock: int, *, as_json: bool) -> None:
    """Be the supervisor, in the foreground: logs on standard error, addresses on standard output."""
    from berth_cli.display import Display

    def ready() -> None:
        _print_addresses(folder, as_json=as_json)
        note("Ctrl-C stops it")

    with Display(folder, sys.stderr):
        _run_supervisor(folder, wish, lock, tell=note, ready=ready)


def _start_detached(folder: Folder, wish: Wish, lock: int) -> None:
    """Start the supervisor as a daemon and return when it is ready.

    Raises:
        NotStarted: it could not start; nothing is left running.
    """
    reading, writing = os.pipe()
    if (first := os.fork()) == 0:
        os.close(reading)
        _become_daemon(folder, keep=(writing, lock))
        raise typer.Exit(_run_detached(folder, wish, lock, writing))
    os.close(writing)
    os.close(lock)  # the daemon holds it on
    os.waitpid(first, 0)
    try:
        _follow(reading, folder)
    except KeyboardInterrupt:
        if (supervisor := holder(folder)) is not None:
            os.kill(supervisor, signal.SIGTERM)
        raise


def _follow(pipe: int, folder: Folder) -> None:
    """Pass on what the daemon reports until it is ready, or has ended. Raises NotStarted."""
    failure: NotStarted | None = None
    with os.fdopen(pipe, encoding="utf-8") as reports:
        for line in reports:
            report: dict[str, Any] = json.loads(line)
            if "ready" in report:
                return
            if "failed" in report:
                failure = NotStarted(report["failed"])
                failure.exit_code = report["exit_code"]
            else:
                note(report["tell"])
    if failure is not None:
        raise failure
    lines = last_lines(folder.log(layout.SUPERVISOR))
    raise NotStarted("the supervisor ended without a word", hint="\n".join(["the end of its log:", *lines]))


def _become_daemon(folder: Folder, *, keep: tuple[int, ...]) -> None:
    """Leave the terminal, its session, and every open file but `keep`; output goes to the supervisor's log."""
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(folder.log("supervisor"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor, standard in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, standard)
    most = os.sysconf("SC_OPEN_MAX")
    edges = [2, *sorted(keep), most if 0 < most < 2**31 else 65_536]
    for below, above in itertools.pairwise(edges):
        os.closerange(below + 1, above)


def _run_detached(folder: Folder, wish: Wish, lock: int, pipe: int) -> int:
    """Be the supervisor of a folder and report through `pipe` until the cluster is ready; the exit code."""
    reports = os.fdopen(pipe, "w", buffering=1, encoding="utf-8")

    def report(told: dict[str, Any]) -> None:
        if not reports.closed:
            with contextlib.suppress(BrokenPipeError):  # whoever waited has gone: the cluster goes on
                reports.write(json.dumps(told) + "\n")

    def ready() -> None:
        report({"ready": True})
        reports.close()

    try:
        _run_supervisor(folder, wish, lock, tell=lambda text: report({"tell": text}), ready=ready)
    except BerthError as error:
        report({"failed": str(error), "exit_code": error.exit_code})
        return error.exit_code
    return 0


def _run_supervisor(
    folder: Folder, wish: Wish, lock: int, *, tell: Callable[[str], None], ready: Callable[[], None]
) -> None:
    """Supervise until asked to stop.

    Raises:
        BerthError: the cluster cannot start; nothing is left running.
    """
    write_holder(lock, os.getpid())
    processes = Processes.launch(folder.path, folder.log("fork-server"))
    # Imported only now: in the meantime the fork server imports on the other core.
    from berth.runtime import logs
    from berth_cli.supervisor import supervise

    with folder.log("supervisor").open("a") as log:
        logs.configure(layout.SUPERVISOR, stream=log)
        asyncio.run(supervise(folder, wish, processes, tell=tell, ready=ready))


# --- down -------------------------------------------------------------------------------------------


@app.command("down")
@on_cluster
def down(
    target: Target,
    *,
    force: Annotated[bool, typer.Option("--force", help="Kill what does not stop within half a minute.")] = False,
) -> None:
    """Stop what `berth up` started, and wait until it is gone; data and keys stay."""
    folder = Folder(path=target.folder_meant().absolute())
    if not is_held(folder):
        note(f"nothing runs in {folder.path}")
        _print_stopped(folder, as_json=target.as_json)
        return
    supervisor = _holder_soon(folder)
    with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
        os.kill(supervisor, signal.SIGTERM)
    if not _until_released(folder):
        if not force:
            raise TimedOut(
                f"the supervisor {supervisor} has not stopped within {STOP_SECONDS:g} s",
                hint=f"`berth down --force --dir {folder.path}` kills it, and with it everything that it started",
            )
        os.kill(supervisor, signal.SIGKILL)
        _until_released(folder)
    _print_stopped(folder, as_json=target.as_json)


def _holder_soon(folder: Folder) -> int:
    """The supervisor's pid; one that has only just taken the lock says who it is in an instant."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (supervisor := holder(folder)) is None:
        if time.monotonic() > deadline:
            raise TimedOut(f"{folder.lock} is held, and nobody says by whom", hint="find it with `fuser`")
        time.sleep(_LOOK_AGAIN_SECONDS)
    return supervisor


def _until_released(folder: Folder) -> bool:
    deadline = time.monotonic() + STOP_SECONDS
    while is_held(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_AGAIN_SECONDS)
    return True


def _print_stopped(folder: Folder, *, as_json: bool) -> None:
    if as_json:
        print_json({"version": 1, "dir": str(folder.path), "stopped": True})
    else:
        print_lines(f"stopped; data and keys stay in {folder.path}")
