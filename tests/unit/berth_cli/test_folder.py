"""The folder of a cluster: one supervisor, what it tells of itself, what scripts read."""

import json
import os
from pathlib import Path

import pytest

from berth_cli.folder import (
    Folder,
    Phase,
    Progress,
    RunningProcess,
    holder,
    is_held,
    leftovers,
    read_members,
    read_progress,
    recorded_processes,
    take_lock,
    write_description,
    write_holder,
    write_members,
    write_progress,
)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(path=tmp_path / "cluster")
    folder.create()
    return folder


def test_a_folder_has_one_supervisor(folder: Folder) -> None:
    lock = take_lock(folder)
    assert lock is not None
    write_holder(lock, os.getpid())

    assert take_lock(folder) is None
    assert is_held(folder)
    assert holder(folder) == os.getpid()


def test_a_supervisor_that_is_gone_holds_nothing(folder: Folder) -> None:
    lock = take_lock(folder)
    assert lock is not None
    write_holder(lock, os.getpid())
    write_progress(folder, Progress(phase=Phase.READY, supervisor=os.getpid(), restarts={}))

    os.close(lock)

    assert not is_held(folder)
    assert holder(folder) is None
    assert read_progress(folder) is None


def test_what_the_last_supervisor_said_is_gone_with_the_new_lock(folder: Folder) -> None:
    write_progress(folder, Progress(phase=Phase.READY, supervisor=os.getpid(), restarts={}))

    lock = take_lock(folder)

    assert lock is not None
    write_holder(lock, os.getpid())
    assert read_progress(folder) is None


def test_progress_is_told_to_whoever_waits(folder: Folder) -> None:
    lock = take_lock(folder)
    assert lock is not None
    write_holder(lock, os.getpid())
    progress = Progress(phase=Phase.STARTING, supervisor=os.getpid(), restarts={"raft-1": 2})

    write_progress(folder, progress)

    assert read_progress(folder) == progress


def test_the_description_is_what_scripts_rely_on(folder: Folder) -> None:
    write_description(
        folder,
        nats_url="nats://127.0.0.1:4222",
        console_url="http://127.0.0.1:4223",
        processes=[RunningProcess(role="raft", name="raft-1", pid=4711)],
    )

    assert json.loads((folder.path / "berth.json").read_text()) == {
        "version": 1,
        "nats_url": "nats://127.0.0.1:4222",
        "console_url": "http://127.0.0.1:4223",
        "credentials": {"client": "keys/client.nk", "admin": "keys/admin.nk"},
        "processes": [{"role": "raft", "name": "raft-1", "pid": 4711}],
    }
    assert recorded_processes(folder) == [RunningProcess(role="raft", name="raft-1", pid=4711)]


def test_a_number_that_another_program_has_by_now_is_no_leftover(folder: Folder) -> None:
    write_description(
        folder,
        nats_url="nats://127.0.0.1:4222",
        console_url="http://127.0.0.1:4223",
        processes=[RunningProcess(role="raft", name="raft-1", pid=os.getpid())],
    )

    assert leftovers(folder) == []


def test_the_members_of_the_ledger_are_remembered(folder: Folder) -> None:
    assert read_members(folder) is None

    write_members(folder, ["raft-1"])

    assert read_members(folder) == ("raft-1",)


def test_nobody_else_may_look_into_the_folder(folder: Folder) -> None:
    assert folder.path.stat().st_mode & 0o777 == 0o700
