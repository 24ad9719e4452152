"""The folder of one cluster of `berth up`: what lies where, who holds it, what `berth.json` says.

Whoever holds `up.lock` is the supervisor; the kernel releases it when that process ends, however it ends.
`up.json` says how far the supervisor is; both are for other `berth up` and `berth down` of the same folder.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from berth_cli.context import FOLDER_FILE

MODE_OF_FOLDER = 0o700


class Phase(StrEnum):
    """How far a supervisor is. A folder whose lock nobody holds has none, whatever `up.json` says."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What `up.json` says. `problem` is told when it failed; `restarts` counts by process name."""

    phase: Phase
    supervisor: int
    problem: str = ""
    restarts: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProcess:
    """One process as `berth.json` lists it."""

    role: str
    name: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Every path of a cluster's folder."""

    path: Path

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def users(self) -> Path:
        return self.path / "users.json"

    @property
    def server_configuration(self) -> Path:
        return self.path / "nats"

    @property
    def store(self) -> Path:
        return self.path / "jetstream"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def lock(self) -> Path:
        return self.path / "up.lock"

    @property
    def progress(self) -> Path:
        return self.path / "up.json"

    @property
    def members(self) -> Path:
        return self.path / "members.json"

    @property
    def first_record(self) -> Path:
        """The ledger's first record, byte for byte."""
        return self.path / "first-record.json"

    @property
    def description(self) -> Path:
        return self.path / FOLDER_FILE

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def data(self, name: str) -> Path:
        """Where the process `name` keeps its files."""
        return self.path / "data" / name

    def create(self) -> None:
        for path in (self.path, self.logs):
            path.mkdir(mode=MODE_OF_FOLDER, parents=True, exist_ok=True)


def replace_file(path: Path, text: str) -> None:
    """Write `path` whole or not at all: a reader sees the old text or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)


# --- the lock ---------------------------------------------------------------------------------------


def take_lock(folder: Folder) -> int | None:
    """Become this folder's supervisor: the descriptor that holds the lock, or None when somebody holds it.

    It is not inherited by programs that are started; a fork of this process holds it too. What the last
    supervisor said of itself is gone.
    """
    descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    folder.progress.unlink(missing_ok=True)
    return descriptor


def is_held(folder: Folder) -> bool:
    """Whether a supervisor runs on the folder."""
    if not folder.lock.exists():
        return False
    descriptor = os.open(folder.lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def write_holder(descriptor: int, pid: int) -> None:
    """Say in the lock file who holds it."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{pid}\n".encode(), 0)


def holder(folder: Folder) -> int | None:
    """The supervisor's pid, while one runs and has said so."""
    if not is_held(folder):
        return None
    told = folder.lock.read_text().strip()
    return int(told) if told.isdigit() else None


# --- up.json and berth.json -------------------------------------------------------------------------


def write_progress(folder: Folder, progress: Progress) -> None:
    replace_file(folder.progress, json.dumps({"version": 1, **asdict(progress)}) + "\n")


def read_progress(folder: Folder) -> Progress | None:
    """What the supervisor that holds the folder now said last; None when it has said nothing yet."""
    try:
        told: dict[str, Any] = json.loads(folder.progress.read_text())
    except FileNotFoundError:
        return None
    if told["supervisor"] != holder(folder):
        return None
    return Progress(
        phase=Phase(told["phase"]),
        supervisor=told["supervisor"],
        problem=told["problem"],
        restarts=told["restarts"],
    )


def write_description(folder: Folder, *, nats_url: str, console_url: str, processes: Iterable[RunningProcess]) -> None:
    """Write `berth.json` (DESIGN section 5): paths in it are relative to the folder."""
    told = {
        "version": 1,
        "nats_url": nats_url,
        "console_url": console_url,
        "credentials": {"client": "keys/client.nk", "admin": "keys/admin.nk"},
        "processes": [asdict(process) for process in processes],
    }
    replace_file(folder.description, json.dumps(told, indent=2) + "\n")


def read_description(folder: Folder) -> dict[str, Any] | None:
    """`berth.json` as it is, or None."""
    try:
        return json.loads(folder.description.read_text())
    except FileNotFoundError:
        return None


def leftovers(folder: Folder) -> list[RunningProcess]:
    """Processes of the folder's last supervisor that still run although it is gone; the kernel is killing them.

    A number that another program has by now does not count: ours have the folder in their command line.
    """
    import psutil

    found: list[RunningProcess] = []
    for process in recorded_processes(folder):
        with contextlib.suppress(psutil.Error):
            if any(str(folder.path) in word for word in psutil.Process(process.pid).cmdline()):
                found.append(process)
    return found


def recorded_processes(folder: Folder) -> list[RunningProcess]:
    """The processes that `berth.json` names; they may be gone."""
    told = read_description(folder)
    return [] if told is None else [RunningProcess(**process) for process in told["processes"]]


# --- the raft nodes ---------------------------------------------------------------------------------


def write_members(folder: Folder, members: Sequence[str]) -> None:
    """Remember for which raft nodes this folder's ledger was created."""
    replace_file(folder.members, json.dumps(list(members)) + "\n")


def read_members(folder: Folder) -> tuple[str, ...] | None:
    """The raft nodes of this folder's ledger; None while there is none."""
    try:
        return tuple(json.loads(folder.members.read_text()))
    except FileNotFoundError:
        return None
