"""`berth status`: what runs, who leads, what is ready."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from berth import subjects
from berth.adapters.nats_bus import BusSettings, NatsBus
from berth.errors import Unreachable
from berth_cli import layout
from berth_cli.context import ClusterAddress, Target, on_cluster
from berth_cli.folder import Folder, Progress, RunningProcess, is_held, read_progress, recorded_processes
from berth_cli.output import print_json, print_lines, table
from berth_cli.service_states import ServiceState, service_states

app = typer.Typer()

NOT_READY = 1
_CONNECT_SECONDS = 2.0
_ANSWERS_SECONDS = 0.5
_ANY = 1_000


SILENT = (layout.SUPERVISOR, layout.NATS, subjects.AGENT)
"""Roles that do not answer `$SRV`: that they run is all there is to know here."""


@app.command("status")
@on_cluster
def status(target: Target) -> None:
    """What runs, who leads, what is ready. Exit code 1 while something is not ready, 7 when nothing answers."""
    address = target.address("admin")
    folder = None if address.folder is None else Folder(path=address.folder.absolute())
    recorded = recorded_processes(folder) if folder is not None and is_held(folder) else []
    try:
        states = asyncio.run(_ask(address, sum(process.role not in SILENT for process in recorded)))
    except Unreachable:
        if not recorded:
            raise
        states = {}
    told = {
        "version": 1,
        "nats_url": address.url,
        "console_url": address.console_url,
        **described(recorded, states, None if folder is None else read_progress(folder)),
    }
    if target.as_json:
        print_json(told)
    else:
        _print(told)
    if not told["ready"]:
        raise typer.Exit(NOT_READY)


async def _ask(address: ClusterAddress, wanted: int) -> dict[str, ServiceState]:
    settings = BusSettings(
        url=address.url,
        user=address.user,
        seed_file=address.seed_file,
        connect_within_seconds=_CONNECT_SECONDS,
    )
    bus = await NatsBus.connect(settings, lost=lambda _: None)
    try:
        return await service_states(bus, wanted=wanted or _ANY, within_seconds=_ANSWERS_SECONDS)
    finally:
        await bus.close()


def described(
    recorded: Sequence[RunningProcess], states: Mapping[str, ServiceState], progress: Progress | None
) -> dict[str, Any]:
    """Leader, readiness and each process, from what the folder says runs and what answered."""
    rows = [_row(process, states.get(process.name), progress) for process in recorded]
    known = {process.name for process in recorded}
    rows += [_answered(state) for name, state in sorted(states.items()) if name not in known]
    leader = next((state.user for state in states.values() if state.leads), None)
    active = next((state.user for state in states.values() if state.active), None)
    return {
        "ready": leader is not None and all(row["ready"] for row in rows),
        "leader": leader,
        "active_quota": active,
        "phase": None if progress is None else progress.phase.value,
        "processes": rows,
    }


def _row(process: RunningProcess, state: ServiceState | None, progress: Progress | None) -> dict[str, Any]:
    silent = process.role in SILENT
    return {
        "role": process.role,
        "name": process.name,
        "pid": process.pid,
        "ready": silent or (state is not None and state.ready),
        "active": None if state is None else state.active,
        "sequence": None if state is None else state.sequence,
        "restarts": 0 if progress is None else progress.restarts.get(process.name, 0),
    }


def _answered(state: ServiceState) -> dict[str, Any]:
    """A process that answers and that no folder tells of."""
    role = state.service.removeprefix("berth-")
    return {
        "role": role,
        "name": state.user,
        "pid": None,
        "ready": state.ready,
        "active": state.active,
        "sequence": state.sequence,
        "restarts": None,
    }


_SPOKEN: Mapping[tuple[str, object], str] = {
    ("ready", True): "yes",
    ("active", True): "active",
    ("active", False): "standby",
}


def _print(told: dict[str, Any]) -> None:
    waiting = [row["name"] for row in told["processes"] if not row["ready"]]
    if told["ready"]:
        quota = f", {told['active_quota']} is the active quota service" if told["active_quota"] else ""
        print_lines(f"ready: {told['leader']} leads{quota}, {len(told['processes'])} processes")
    elif waiting:
        print_lines(f"not ready: waiting for {', '.join(waiting)}")
    else:
        print_lines("not ready: there is no leader")
    print_lines(f"  bus      {told['nats_url']}")
    if told["console_url"]:
        print_lines(f"  console  {told['console_url']}")
    columns = ("role", "name", "pid", "ready", "active", "sequence", "restarts")
    rows = [[_SPOKEN.get((name, row[name]), row[name]) for name in columns] for row in told["processes"]]
    print_lines(*table(columns, rows))
