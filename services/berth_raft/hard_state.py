"""The hard state on disk: what this node promised, in two slots, so that a torn write never takes a promise back.

Format 1. The file has 8,192 bytes: two slots of 4,096, each within one page and one sector. A slot is one line:

    {"format":1,"generation":7,"incarnation":1,"term":5,"vote":"raft-2","crc":"39d906b3"}

then spaces, and a newline as its last byte. `vote` is null when free; `crc` is the CRC-32 of everything before
`,"crc"`, as 8 hex digits. Only exactly these bytes are valid: reading a slot and writing it again gives the same.

Writing. One slot holds what is durable; the other one is written with the next generation and synced. Only then is
the promise reported as durable, and the first slot gets a copy of it at leisure (not synced). So at every instant one
slot holds the newest reported promise, whole; and soon after each write both do, which survives the loss of either.

Reading takes the valid slot of the highest generation. An invalid slot beside a valid one is a write that was never
reported (or the copy at leisure): the valid one stands. Both invalid, a missing file, or slots that contradict each
other mean that the node is amnesiac.
"""

import fcntl
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from berth.errors import BerthError
from berth_raft.core.effects import Amnesiac, HardState

FORMAT = 1
SLOT_BYTES = 4_096
SLOTS = (0, 1)
FILE_BYTES = SLOT_BYTES * len(SLOTS)


class HardStateInUse(BerthError):
    """Two processes of one raft node would vote twice."""

    code = "hard_state_in_use"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} belongs to a raft node that is running",
            hint="stop that process first, or give this node its own directory",
        )


class Device(Protocol):
    """Where the two slots are: a file, or a simulated disk."""

    def read(self) -> bytes: ...
    def write_at(self, offset: int, data: bytes) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    generation: int
    hard_state: HardState


def encode_slot(slot: Slot) -> bytes:
    state = slot.hard_state
    body = {
        "format": FORMAT,
        "generation": slot.generation,
        "incarnation": state.incarnation,
        "term": state.term,
        "vote": state.vote,
    }
    text = json.dumps(body, separators=(",", ":"))[:-1]
    line = f'{text},"crc":"{zlib.crc32(text.encode()):08x}"}}'
    assert len(line) < SLOT_BYTES
    return line.ljust(SLOT_BYTES - 1).encode() + b"\n"


def decode_slot(data: bytes) -> Slot | None:
    """None if `data` is not exactly what `encode_slot` writes."""
    try:
        body = json.loads(data)
        slot = Slot(
            generation=body["generation"],
            hard_state=HardState(incarnation=body["incarnation"], term=body["term"], vote=body["vote"]),
        )
        is_ours = encode_slot(slot) == data
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
        return None  # what cannot be ours need not be told apart further
    return slot if is_ours else None


def newest(image: bytes) -> tuple[int, Slot] | Amnesiac:
    """Which slot of a file stands, and what it says."""
    valid = [
        (index, slot)
        for index in SLOTS
        if (slot := decode_slot(image[index * SLOT_BYTES : (index + 1) * SLOT_BYTES])) is not None
    ]
    if not valid:
        return Amnesiac(why="both slots of the hard state are corrupt")
    valid.sort(key=_generation)
    older, newer = valid[0], valid[-1]
    if older[1].generation == newer[1].generation and older[1] != newer[1]:
        return Amnesiac(why="the slots of the hard state contradict each other")
    if not older[1].hard_state.may_become(newer[1].hard_state):
        return Amnesiac(why="the newer slot of the hard state takes back a promise of the older one")
    return newer


def _generation(entry: tuple[int, Slot]) -> int:
    return entry[1].generation


class HardStateStore:
    """The promises of one node. `store` blocks for one fsync: call it off the event loop, one call at a time."""

    def __init__(self, device: Device, *, index: int, slot: Slot) -> None:
        self._device = device
        self._durable_index = index
        self._durable = slot
        self._generation = slot.generation

    @classmethod
    def load(cls, device: Device) -> Self | Amnesiac:
        """What the device holds, made durable once more.

        Bytes that were read may still be in memory only, left there by a process that died before its fsync. So the
        slot is written again, in place and with the same bytes, before anything is said that depends on it.
        """
        found = newest(device.read())
        if isinstance(found, Amnesiac):
            return found
        index, slot = found
        device.write_at(index * SLOT_BYTES, encode_slot(slot))
        device.sync()
        store = cls(device, index=index, slot=slot)
        store._copy_at_leisure()
        return store

    @property
    def hard_state(self) -> HardState:
        """The newest promise that is durable."""
        return self._durable.hard_state

    def store(self, hard_state: HardState) -> None:
        """Returns when `hard_state` is durable.

        Raises:
            OSError: it may or may not be; the state before it stands. Storing may be tried again.
        """
        assert self._durable.hard_state.may_become(hard_state), "I2: a promise is never taken back"
        if hard_state == self._durable.hard_state:
            return
        self._generation += 1  # also after a failure: what that left behind must be older than this
        slot = Slot(generation=self._generation, hard_state=hard_state)
        index = 1 - self._durable_index
        self._device.write_at(index * SLOT_BYTES, encode_slot(slot))
        self._device.sync()
        self._durable_index, self._durable = index, slot
        self._copy_at_leisure()

    def close(self) -> None:
        self._device.close()

    def _copy_at_leisure(self) -> None:
        self._device.write_at((1 - self._durable_index) * SLOT_BYTES, encode_slot(self._durable))


class FileDevice:
    """A file of the node's own directory, locked as long as it is open."""

    def __init__(self, path: Path) -> None:
        """Raises:
        FileNotFoundError: there is no hard state.
        HardStateInUse: another process has it.
        """
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise HardStateInUse(path) from error

    def read(self) -> bytes:
        return os.pread(self._file, FILE_BYTES, 0)

    def write_at(self, offset: int, data: bytes) -> None:
        written = os.pwrite(self._file, data, offset)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes of the hard state were written: is the disk full?")

    def sync(self) -> None:
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


def create(path: Path, hard_state: HardState) -> HardStateStore:
    """The first hard state of a node, durable with its name in the directory, readable by its owner only.

    Call it when the node has never voted: in a new cluster, or under a new incarnation after rejoining.

    Raises:
        FileExistsError: there is one; forgetting it is a decision for a person.
    """
    slot = Slot(generation=1, hard_state=hard_state)
    unnamed = path.with_name(f".{path.name}.{os.getpid()}.new")
    file = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, encode_slot(slot) * len(SLOTS))
        os.fsync(file)
        os.link(unnamed, path)  # unlike a rename, a link never replaces a file
    finally:
        os.close(file)
        unnamed.unlink()
    _sync_directory(path.parent)
    return HardStateStore(FileDevice(path), index=0, slot=slot)


def load(path: Path) -> HardStateStore | Amnesiac:
    """The hard state at `path`, or that there is none to trust.

    Raises:
        HardStateInUse: another process has it.
        OSError: the disk does not answer, which is no reason to forget anything.
    """
    try:
        device = FileDevice(path)
    except FileNotFoundError:
        return Amnesiac(why=f"there is no hard state at {path.name}")
    store = HardStateStore.load(device)
    if isinstance(store, Amnesiac):
        device.close()
    return store


class KeptPromises:
    """The hard state of a node as its shell keeps it. Where it is lost, nothing is promised until `store` creates it
    anew, under another incarnation; what was corrupt stays beside it.
    """

    def __init__(self, path: Path) -> None:
        """Raises:
        HardStateInUse: another process has it.
        OSError: the disk does not answer.
        """
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._found = load(path)

    @property
    def hard_state(self) -> HardState | Amnesiac:
        return self._found if isinstance(self._found, Amnesiac) else self._found.hard_state

    def store(self, hard_state: HardState) -> None:
        """Returns when it is durable.

        Raises:
            OSError: it may or may not be.
        """
        if not isinstance(self._found, Amnesiac):
            self._found.store(hard_state)
            return
        if self._path.exists():
            self._path.rename(self._path.with_suffix(f".before-{hard_state.incarnation}"))
        self._found = create(self._path, hard_state)


def _sync_directory(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
