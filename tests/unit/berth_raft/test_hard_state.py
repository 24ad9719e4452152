"""The hard state on disk: golden bytes, torn writes, and what is forgotten never (RAFT section 2, step 0; I2, I3)."""

import os
from pathlib import Path
from random import Random

import pytest

from berth_raft.core.effects import Amnesiac, HardState
from berth_raft.hard_state import (
    SLOT_BYTES,
    FileDevice,
    HardStateInUse,
    HardStateStore,
    Slot,
    create,
    load,
)
from tests.simulation.election_disk import PowerCut, SimulatedDisk

FIRST = HardState(incarnation=1, term=0, vote=None)
SECOND = HardState(incarnation=1, term=5, vote="raft-2")
THIRD = HardState(incarnation=1, term=6, vote=None)

FIRST_LINE = b'{"format":1,"generation":1,"incarnation":1,"term":0,"vote":null,"crc":"86c3838b"}'
SECOND_LINE = b'{"format":1,"generation":2,"incarnation":1,"term":5,"vote":"raft-2","crc":"71959b26"}'


def slot_of(line: bytes) -> bytes:
    return line + b" " * (SLOT_BYTES - 1 - len(line)) + b"\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hard_state"


def loaded(path: Path) -> HardState | Amnesiac:
    store = load(path)
    if isinstance(store, Amnesiac):
        return store
    store.close()
    return store.hard_state


# ---------------------------------------------------------------- the file


def test_the_bytes_of_the_file(path: Path) -> None:
    store = create(path, FIRST)
    assert path.read_bytes() == slot_of(FIRST_LINE) * 2

    store.store(SECOND)
    assert path.read_bytes() == slot_of(SECOND_LINE) * 2

    store.close()


def test_what_was_stored_is_there_after_a_restart(path: Path) -> None:
    store = create(path, FIRST)
    for state in (SECOND, THIRD):
        store.store(state)
    store.close()

    assert loaded(path) == THIRD
    assert loaded(path) == THIRD


def test_only_the_owner_reads_it_and_nothing_else_is_left_in_the_folder(path: Path) -> None:
    create(path, FIRST).close()

    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_creating_never_forgets_what_is_there(path: Path) -> None:
    store = create(path, FIRST)
    store.store(SECOND)
    store.close()

    with pytest.raises(FileExistsError):
        create(path, FIRST)

    assert loaded(path) == SECOND
    assert list(path.parent.iterdir()) == [path]


def test_two_processes_do_not_share_a_hard_state(path: Path) -> None:
    store = create(path, FIRST)

    with pytest.raises(HardStateInUse, match="belongs to a raft node that is running"):
        load(path)

    store.close()
    assert loaded(path) == FIRST


def test_a_missing_file_makes_an_amnesiac(path: Path) -> None:
    assert loaded(path) == Amnesiac(why="there is no hard state at hard_state")


@pytest.mark.parametrize("data", [b"", b"\0" * 8192, b"{}", slot_of(FIRST_LINE)[:100]])
def test_a_file_without_a_valid_slot_makes_an_amnesiac(path: Path, data: bytes) -> None:
    path.write_bytes(data)

    assert loaded(path) == Amnesiac(why="both slots of the hard state are corrupt")


def test_a_promise_is_never_taken_back(path: Path) -> None:
    store = create(path, FIRST)
    store.store(SECOND)

    for lesser in (
        HardState(incarnation=1, term=4, vote=None),
        HardState(incarnation=1, term=5, vote=None),
        HardState(incarnation=1, term=5, vote="raft-3"),
    ):
        with pytest.raises(AssertionError, match="I2"):
            store.store(lesser)
    store.close()


def test_file_and_folder_are_synced_before_a_promise_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real calls are made; only their order is written down."""
    synced: list[str] = []
    real_fsync = os.fsync

    def watched_fsync(file: int) -> None:
        real_fsync(file)
        synced.append(Path(f"/proc/self/fd/{file}").readlink().name)

    monkeypatch.setattr(os, "fsync", watched_fsync)

    store = create(path, FIRST)
    assert synced == [f".hard_state.{os.getpid()}.new", path.parent.name]
    store.store(SECOND)
    assert synced[2:] == ["hard_state"]
    store.close()
    loaded(path)
    assert synced[3:] == ["hard_state"]


def test_no_file_stays_open(path: Path) -> None:
    before = sorted(Path("/proc/self/fd").iterdir())

    create(path, FIRST).close()
    loaded(path)
    with pytest.raises(FileExistsError):
        create(path, FIRST)
    path.write_bytes(b"corrupt")
    loaded(path)

    assert sorted(Path("/proc/self/fd").iterdir()) == before


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("damaged", [0, 1])
@pytest.mark.parametrize("at", [0, 30, 60, 2_000, SLOT_BYTES - 1])
def test_one_flipped_byte_costs_nothing_once_both_slots_are_written(path: Path, damaged: int, at: int) -> None:
    store = create(path, FIRST)
    store.store(SECOND)
    store.close()
    data = bytearray(path.read_bytes())
    data[damaged * SLOT_BYTES + at] ^= 0x20
    path.write_bytes(data)

    assert loaded(path) == SECOND
    assert path.read_bytes() == slot_of(SECOND_LINE) * 2, "and loading repairs it"


def test_a_torn_write_that_was_never_reported_leaves_the_other_slot_standing(path: Path) -> None:
    for torn in range(len(SECOND_LINE) + 1):
        half = (slot_of(SECOND_LINE)[:torn] + slot_of(FIRST_LINE)[torn:])[:SLOT_BYTES]
        path.write_bytes(slot_of(FIRST_LINE) + half)

        assert loaded(path) == (SECOND if half == slot_of(SECOND_LINE) else FIRST)


def test_two_slots_of_one_generation_that_differ_make_an_amnesiac(path: Path) -> None:
    other = create(path, HardState(incarnation=1, term=3, vote="raft-1"))
    other.close()
    path.write_bytes(slot_of(FIRST_LINE) + path.read_bytes()[SLOT_BYTES:])

    assert loaded(path) == Amnesiac(why="the slots of the hard state contradict each other")


def test_a_newer_slot_that_takes_a_promise_back_makes_an_amnesiac(path: Path) -> None:
    store = create(path, HardState(incarnation=1, term=9, vote="raft-1"))
    store.close()
    path.write_bytes(path.read_bytes()[:SLOT_BYTES] + slot_of(SECOND_LINE))

    assert loaded(path) == Amnesiac(why="the newer slot of the hard state takes back a promise of the older one")


# ---------------------------------------------------------------- a disk that fails


def stored(disk: SimulatedDisk) -> HardStateStore:
    store = HardStateStore.load(disk)
    assert isinstance(store, HardStateStore)
    return store


def test_at_every_power_cut_the_last_reported_promise_is_there() -> None:
    """Syncs fail, power fails, processes die before their sync: nothing that was reported is lost."""
    for seed in range(200):
        store_through_failures(seed)


def store_through_failures(seed: int) -> None:
    random = Random(seed)
    disk = SimulatedDisk(random)
    disk.format()
    store, reported, wanted = stored(disk), FIRST, FIRST

    for term in range(1, 40):
        wanted = HardState(incarnation=1, term=term, vote=random.choice([None, "raft-1"]))
        disk.syncs_fail = random.random() < 0.3
        disk.is_cut_in_sync = random.random() < 0.3
        try:
            store.store(wanted)
            reported = wanted
        except (OSError, PowerCut):
            disk.syncs_fail = disk.is_cut_in_sync = False
            if random.random() < 0.5:
                disk.cut_power()
            store = stored(disk)
            assert store.hard_state in (reported, wanted)
            reported = store.hard_state
        on_disk = disk.on_disk()
        assert on_disk is not None
        assert reported.may_become(on_disk), f"seed {seed}: reported {reported}, on disk {on_disk}"


def test_a_failed_sync_is_reported_and_storing_again_succeeds() -> None:
    disk = SimulatedDisk(Random(1))
    disk.format()
    store = stored(disk)
    disk.syncs_fail = True
    with pytest.raises(OSError, match="disk is full"):
        store.store(SECOND)
    assert store.hard_state == FIRST

    disk.syncs_fail = False
    store.store(SECOND)

    assert disk.on_disk() == SECOND


def test_what_a_killed_process_left_in_memory_is_made_durable_before_it_is_trusted() -> None:
    disk = SimulatedDisk(Random(1))
    disk.format()
    store = stored(disk)
    disk.is_cut_in_sync = True
    with pytest.raises(PowerCut):
        store.store(SECOND)
    assert disk.on_disk() == FIRST

    assert stored(disk).hard_state == SECOND
    assert disk.on_disk() == SECOND


def test_a_disk_that_is_really_full_is_an_error() -> None:
    device = FileDevice(Path("/dev/full"))

    with pytest.raises(OSError, match="No space left"):
        HardStateStore(device, index=0, slot=Slot(generation=1, hard_state=FIRST)).store(SECOND)

    device.close()
