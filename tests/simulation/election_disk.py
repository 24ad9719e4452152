"""A disk that keeps only what was synced: what a power cut leaves of the rest is chosen by the seed."""

from random import Random

from berth_raft.core.effects import HardState
from berth_raft.hard_state import FILE_BYTES, SLOTS, HardStateStore, Slot, encode_slot, newest


class PowerCut(Exception):
    """The process ended inside a sync; nothing after it ran."""


class SimulatedDisk:
    """A `Device` for `HardStateStore`. Written bytes are seen at once, as through a page cache, and are durable only
    after `sync`.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._durable = bytearray(FILE_BYTES)
        self._cached = bytearray(FILE_BYTES)
        self._unsynced: list[tuple[int, bytes]] = []
        self._on_disk: HardState | None = None
        self.syncs_fail = False
        self.is_cut_in_sync = False

    def format(self) -> None:
        """As `hard_state.create` leaves it."""
        first = Slot(generation=1, hard_state=HardState(incarnation=1, term=0, vote=None))
        self.write_at(0, encode_slot(first) * len(SLOTS))
        self.sync()

    def wipe(self) -> None:
        self._unsynced.clear()
        self._durable[:] = bytes(FILE_BYTES)
        self._cached[:] = bytes(FILE_BYTES)
        self._on_disk = None

    def read(self) -> bytes:
        return bytes(self._cached)

    def write_at(self, offset: int, data: bytes) -> None:
        self._cached[offset : offset + len(data)] = data
        self._unsynced.append((offset, data))

    def sync(self) -> None:
        if self.is_cut_in_sync:
            self.is_cut_in_sync = False
            raise PowerCut
        if self.syncs_fail:
            # After a failed fsync a kernel may call the pages clean without having written them.
            self._flush_some()
            raise OSError("simulated: the disk is full")
        for offset, data in self._unsynced:
            self._durable[offset : offset + len(data)] = data
        self._unsynced.clear()
        self._on_disk = None

    def close(self) -> None:
        return

    def cut_power(self) -> None:
        """What was not synced is there, or not, or torn."""
        self._flush_some()
        self._cached[:] = self._durable

    def _flush_some(self) -> None:
        for offset, data in self._unsynced:
            written = data[: self._random.choice([0, self._random.randint(1, len(data)), len(data)])]
            self._durable[offset : offset + len(written)] = written
        self._unsynced.clear()
        self._on_disk = None

    def on_disk(self) -> HardState | None:
        """What a power cut at this instant would leave at least; None if that is nothing."""
        if self._on_disk is None:
            found = newest(bytes(self._durable))
            self._on_disk = found[1].hard_state if isinstance(found, tuple) else None
        return self._on_disk


def store_until_cut(store: HardStateStore, disk: SimulatedDisk, hard_state: HardState) -> None:
    """The process ends after the bytes were written and before they were synced."""
    disk.is_cut_in_sync = True
    try:
        store.store(hard_state)
    except PowerCut:
        return
    disk.is_cut_in_sync = False
