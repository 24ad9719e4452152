"""A folder for `berth up`, seen from outside: its description, its processes, what is left of them."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.running_cluster import Done, berth
from tests.waiting import until


@dataclass(frozen=True)
class UpCluster:
    """One folder. Processes are looked up by name in `berth.json`, as scripts do."""

    folder: Path

    def up(self, *words: str) -> Done:
        """`berth up --detach` with free ports; ready, or the test fails with what it said."""
        ended = berth("up", "--detach", "--dir", str(self.folder), "--port", "0", *words)
        assert ended.code == 0, ended.err
        return ended

    def down(self) -> None:
        ended = berth("down", "--force", "--dir", str(self.folder))
        assert ended.code == 0, ended.err

    def run(self, *words: str) -> Done:
        """A command that finds the cluster through BERTH_DIR."""
        return berth(*words, environment={"BERTH_DIR": str(self.folder)})

    def json(self, *words: str, code: int = 0) -> Any:
        """What a command prints with `--json`."""
        ended = self.run(*words, "--json")
        assert ended.code == code, f"{ended.code}: {ended.err}{ended.out}"
        return ended.json

    @property
    def description(self) -> dict[str, Any]:
        return json.loads((self.folder / "berth.json").read_text())

    @property
    def pids(self) -> dict[str, int]:
        return {process["name"]: process["pid"] for process in self.description["processes"]}

    def kill(self, name: str, number: int) -> int:
        """Send a signal to the process of that name; its pid."""
        pid = self.pids[name]
        os.kill(pid, number)
        return pid

    def until_replaced(self, name: str, pid: int) -> None:
        """The process of that name is another one than `pid` by now."""
        until(lambda: self.pids.get(name, pid) != pid)

    def until_ready(self) -> None:
        until(lambda: self.run("status").code == 0)


def is_gone(pid: int) -> bool:
    """A zombie has ended: only its parent has not asked yet."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def processes_of(folder: Path) -> list[int]:
    """Every running process with the folder in its command line, whoever started it."""
    found: list[int] = []
    for process in psutil.process_iter(["cmdline"]):
        words: list[str] = process.info["cmdline"] or []
        if any(str(folder) in word for word in words) and not is_gone(process.pid):
            found.append(process.pid)
    return found
