"""A real cluster of `berth up` in a folder of its own, and the command line as a person uses it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

T = TypeVar("T")

COMMAND_WITHIN_S = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out, f"it printed nothing and ended with {self.code}: {self.err}"
        return json.loads(self.out)


def berth(*words: str, stdin: str = "", environment: dict[str, str] | None = None) -> Done:
    """Run one command line."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BERTH_", "OTEL_"))}
    done = subprocess.run(
        [sys.executable, "-m", "berth_cli.main", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_WITHIN_S,
        env={**clean, **(environment or {})},
        check=False,
    )
    return Done(code=done.returncode, out=done.stdout, err=done.stderr)


class RunningCluster:
    """Started on construction; `stop` leaves nothing behind."""

    def __init__(self, folder: Path, *, nodes: int = 16) -> None:
        self.folder = folder
        self.nodes = nodes
        self.up()

    def up(self) -> None:
        done = berth("up", "--detach", "--dir", str(self.folder), "--port", "0", "--nodes", str(self.nodes))
        assert done.code == 0, done.err

    def stop(self) -> None:
        done = berth("down", "--dir", str(self.folder))
        assert done.code == 0, done.err

    def run(self, *words: str, stdin: str = "") -> Done:
        return berth(*words, "--dir", str(self.folder), stdin=stdin)

    def submit(self, *requests: dict[str, Any], wait: float = 10) -> Done:
        documents = json.dumps(list(requests))
        return self.run("submit", "-", "--wait", str(wait), "--json", stdin=documents)

    def decision(self, request: dict[str, Any], *, wait: float = 10) -> dict[str, Any]:
        return self.submit(request, wait=wait).json["decisions"][0]

    def described(self) -> dict[str, Any]:
        return orjson.loads((self.folder / "berth.json").read_bytes())

    def pid_of(self, name: str) -> int:
        return next(one["pid"] for one in self.described()["processes"] if one["name"] == name)

    def kill(self, name: str) -> None:
        os.kill(self.pid_of(name), signal.SIGKILL)

    def leader(self) -> str:
        status = self.run("raft", "status", "--json").json
        assert status["leader"] is not None, status
        return str(status["leader"])

    def audit(self) -> dict[str, Any]:
        """The audit; a cluster that lost or doubled anything, or broke a rule, shows it here."""
        return self.run("audit", "--json").json


def eventually(ask: Callable[[], T], holds: Callable[[T], bool], *, within_s: float = 20) -> T:
    """Ask until it holds."""
    deadline = time.monotonic() + within_s
    while True:
        found = ask()
        if holds(found):
            return found
        assert time.monotonic() < deadline, f"it never came true; the last answer was {found!r}"
        time.sleep(0.1)


def a_request(name: str, *, namespace: str = "team-a", cores: float = 0.1, **more: Any) -> dict[str, Any]:
    return {"id": name, "namespace": namespace, "resources": {"cpu_cores": cores, "ram_mb": 64}, **more}
