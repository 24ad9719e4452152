"""Snapshots on a simulated disk, and copies of a process that need no fork."""

import asyncio
from collections.abc import Awaitable, Callable

from berth.ids import Sequence


class SimulatedSnapshots:
    """The SnapshotStore port; what is written here outlives the process that wrote it."""

    def __init__(self, *, kept: int = 2) -> None:
        self.files: dict[Sequence, bytes] = {}
        self.reads = 0
        self._kept = kept

    async def stored(self) -> list[Sequence]:
        return sorted(self.files, reverse=True)

    async def read(self, sequence: Sequence) -> bytes | None:
        self.reads += 1
        return self.files.get(sequence)

    async def write(self, sequence: Sequence, payload: bytes) -> None:
        self.files[sequence] = payload
        for old in sorted(self.files, reverse=True)[self._kept :]:
            del self.files[old]


def at_once(compute: Callable[[], bytes]) -> Awaitable[bytes]:
    """As `berth.adapters.forking.on_a_copy`: the state is taken now, the bytes are there a moment later."""
    made = compute()

    async def later() -> bytes:
        await asyncio.sleep(0.05)
        return made

    return later()
