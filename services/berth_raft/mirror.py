"""The mirror of a running raft node: what is added is written behind, and durable before it is counted.

At level `quorum` a record is committed when a majority of mirrors has it durably; at level `ledger` the mirror is
written without waiting for the disk, and still helps when the stream is lost (RAFT sections 0 and 2).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from berth.ids import Sequence
from berth.ports import StoredMessage
from berth_raft.core.messages import Tip

log = logging.getLogger(__name__)

AGAIN_S = 0.5


class MirrorStore(Protocol):
    """Where a mirror is kept: a file, or a simulated disk."""

    def records(self) -> Iterable[StoredMessage]:
        """What is there, verified; empty when it had to be given up as corrupt."""
        ...

    def read(self, sequence: Sequence) -> bytes | None:
        """The record at `sequence`, or None."""
        ...

    def cut(self, first: Sequence) -> None:
        """Forget the records from `first` on, durably."""
        ...

    async def append(self, messages: list[StoredMessage], *, sync: bool) -> None:
        """Returns when they are written, with `sync` durably.

        Raises:
            OSError: they are not.
        """
        ...


class Mirror:
    """`reached` is called with each tip that the disk has; `failed` while it refuses, until `reached` is called."""

    def __init__(self, store: MirrorStore, *, reached: Callable[[Tip], None], failed: Callable[[str], None]) -> None:
        self.store = store
        self.is_durable = False
        """Whether it waits for the disk: at level `quorum`."""
        self.tip = Tip(barrier_term=0, sequence=0)
        """How far the disk has it."""
        self._reached = reached
        self._failed = failed
        self._waiting: list[tuple[StoredMessage, Tip]] = []
        self._wake = asyncio.Event()

    def add(self, message: StoredMessage, tip: Tip) -> None:
        """The next valid record, and the tip that it makes."""
        self._waiting.append((message, tip))
        self._wake.set()

    def has(self, tip: Tip) -> None:
        """The disk had everything up to `tip` when this process started."""
        self.tip = tip

    async def run(self) -> None:
        """Write until cancelled; what the disk refuses is tried again."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = list(self._waiting)
                try:
                    await self.store.append([message for message, _ in batch], sync=self.is_durable)
                except OSError as error:
                    log.exception("mirror_not_written", extra={"runbook": "raft-disk.md"})
                    self._failed(f"the mirror cannot be written: {error}")
                    await asyncio.sleep(AGAIN_S)
                    continue
                del self._waiting[: len(batch)]
                self.tip = batch[-1][1]
                self._reached(self.tip)
