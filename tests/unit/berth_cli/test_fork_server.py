"""The fork server with real processes: they are there, they are told of, and none outlives who started it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from berth_cli.processes import Ended, Processes, Program, StarterLost
from tests.waiting import until

pytestmark = pytest.mark.slow

SLEEP = Program(command=("/bin/sh", "-c", "echo $$ $GREETING; exec sleep 600"))


class Starter:
    """The supervisor's end, and what it was told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ended: asyncio.Queue[Ended] = asyncio.Queue()
        self.processes = Processes.launch(folder, folder / "fork-server.log")
        self.listening = asyncio.create_task(self.processes.listen(self.ended.put_nowait))

    async def start(self, name: str, program: Program) -> int:
        environment = {**os.environ, "GREETING": "hello"}
        return await self.processes.start(name, program, environment=environment, log=self.folder / f"{name}.log")


@pytest.fixture
async def starter(tmp_path: Path) -> AsyncIterator[Starter]:
    starter = Starter(tmp_path)
    yield starter
    starter.listening.cancel()
    await asyncio.gather(starter.listening, return_exceptions=True)
    starter.processes.close()


def is_gone(pid: int) -> bool:
    """A zombie has ended: only its parent has not asked yet."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def written(path: Path) -> str:
    """What stands in a file, once there is a whole line."""
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text()


async def test_a_command_runs_with_its_environment_and_writes_its_own_log(starter: Starter, tmp_path: Path) -> None:
    pid = await starter.start("sleeper", SLEEP)

    assert await asyncio.to_thread(written, tmp_path / "sleeper.log") == f"{pid} hello\n"


async def test_a_module_runs_as_a_program_with_its_name_in_the_list_of_processes(
    starter: Starter, tmp_path: Path
) -> None:
    pid = await starter.start("quota-7", Program(module="platform"))

    told = await starter.ended.get()

    assert (told.name, told.pid, told.status) == ("quota-7", pid, 0)
    assert "Linux" in (tmp_path / "quota-7.log").read_text() or sys.platform != "linux"


async def test_a_module_that_fails_leaves_its_traceback_and_its_exit_code(starter: Starter, tmp_path: Path) -> None:
    await starter.start("broken", Program(module="berth_cli.no_such_module"))

    told = await starter.ended.get()

    assert told.status == 1
    assert "No module named berth_cli.no_such_module" in (tmp_path / "broken.log").read_text()


async def test_a_signal_reaches_the_process_of_that_name(starter: Starter) -> None:
    await starter.start("one", SLEEP)
    other = await starter.start("other", SLEEP)

    starter.processes.signal("one", signal.SIGKILL)

    told = await starter.ended.get()
    assert (told.name, told.status) == ("one", -signal.SIGKILL)
    assert psutil.Process(other).is_running()


async def test_what_was_started_ends_with_the_fork_server(starter: Starter) -> None:
    pid = await starter.start("sleeper", SLEEP)
    server = psutil.Process(pid).ppid()

    os.kill(server, signal.SIGKILL)

    await asyncio.to_thread(until, lambda: is_gone(pid))
    with pytest.raises(StarterLost):
        await starter.listening


async def test_closing_ends_everything(tmp_path: Path) -> None:
    starter = Starter(tmp_path)
    pids = [await starter.start(name, SLEEP) for name in ("one", "two")]
    starter.listening.cancel()
    await asyncio.gather(starter.listening, return_exceptions=True)

    starter.processes.close()

    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_what_is_imported_before_a_fork_starts_no_thread() -> None:
    program = (
        "import importlib, os, threading; from berth_cli.fork_server import SHARED_MODULES;"
        "[importlib.import_module(module) for module in SHARED_MODULES];"
        "print(threading.active_count(), len(os.listdir('/proc/self/task')) if os.path.exists('/proc/self') else 1)"
    )

    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)

    assert told.stdout == "1 1\n"


def test_every_process_finds_its_code_imported_already() -> None:
    program = (
        "import importlib, sys; from berth_cli.fork_server import SHARED_MODULES;"
        "[importlib.import_module(module) for module in SHARED_MODULES];"
        "before = set(sys.modules);"
        "[importlib.import_module(f'berth_{role}.__main__') for role in "
        "('raft', 'quota', 'scheduler', 'reservation', 'console', 'agent')];"
        "print(sorted(name for name in set(sys.modules) - before if not name.endswith('__main__')))"
    )

    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert told.stdout == "[]\n"


SUPERVISOR = """
import asyncio, os, sys
from pathlib import Path
from berth_cli.processes import Processes, Program

async def main(folder):
    processes = Processes.launch(folder, folder / "fork-server.log")
    listening = asyncio.create_task(processes.listen(print))
    pid = await processes.start(
        "sleeper", Program(command=("/bin/sleep", "600")), environment=dict(os.environ), log=folder / "log"
    )
    print(pid, flush=True)
    await listening

asyncio.run(main(Path(sys.argv[1])))
"""


def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    pid = int(supervisor.stdout.readline())
    server = psutil.Process(pid).ppid()

    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()

    until(lambda: is_gone(pid))
    until(lambda: is_gone(server))
