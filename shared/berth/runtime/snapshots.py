"""When a process starts from a snapshot instead of the whole ledger, and when it writes one.

A snapshot is used only when the ledger holds its last record at its place: positions are (ledger_id, sequence,
hash), and a snapshot of another history, a damaged one or one of another release is left alone. An older one
serves, or the ledger from its beginning: that costs time, never truth. It is written after enough events, on a
copy of the process that reads it back and compares before anybody else may, so the process itself only forks.
"""

import asyncio
import contextlib
import logging
import time
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable

import tenacity

from berth.adapters.forking import CopyFailed, on_a_copy
from berth.errors import BerthError, CorruptRecord, Halted, Unreachable
from berth.ids import Sequence
from berth.messages.envelope import Tip, tip_of
from berth.model.ledger import State
from berth.ports import Ledger, SnapshotStore
from berth.wire import codec, snapshots
from berth.wire.snapshots import SnapshotUnusable

log = logging.getLogger(__name__)

CopyOf = Callable[[Callable[[], bytes]], Awaitable[bytes]]

LAST_WRITE_SECONDS = 4.0
"""How long a process that ends may take over its last snapshot."""
_WORTH_AT_END = 10
"""A process that ends writes one when a tenth of the usual number of events came since the last."""
_READ_AGAIN = tenacity.wait_random_exponential(multiplier=0.05, max=2)


class Snapshots:
    """Of one process. `every_events`: events between two of them (or half as many as the state has rows, if more).

    Processes that share a store differ a little in when they write, by their `user`: who comes first writes for
    all of them.
    """

    def __init__(self, store: SnapshotStore, *, user: str, every_events: int, copy: CopyOf = on_a_copy) -> None:
        assert every_events > 0
        self._store = store
        self._every = every_events
        self._later_percent = zlib.crc32(user.encode()) % 4 * 10
        self._copy = copy
        self._since = 0
        self._task: asyncio.Task[None] | None = None
        self._wanted = False
        self.newest = Sequence(0)
        """The last record of the newest snapshot that this process knows of."""

    # --- starting -------------------------------------------------------------------------------------

    async def restore(self, state: State, ledger: Ledger) -> Tip | None:
        """Put the newest usable snapshot into `state`; its last record, or None when there is none to use."""
        snapshots.schema()  # made before anything is forked
        for sequence in await self._stored():
            began = time.monotonic()
            payload = await self._store.read(sequence)
            if payload is None:
                continue
            try:
                head = snapshots.read_head(payload)
                await _expect_in(ledger, head.tip)
                snapshots.decode_into(state, payload, head)
            except SnapshotUnusable as unusable:
                log.warning("snapshot_ignored", extra={"sequence": sequence, "why": unusable.message})
                continue
            self._since, self.newest = state.events_folded, head.tip.sequence
            fields = {"sequence": sequence, "events": state.events_folded, "bytes": len(payload)}
            log.info("snapshot_restored", extra={**fields, "seconds": round(time.monotonic() - began, 3)})
            return head.tip
        return None

    async def _stored(self) -> list[Sequence]:
        try:
            return await self._store.stored()
        except (BerthError, OSError) as error:
            log.warning("snapshots_unavailable", extra={"why": str(error)})
            return []

    # --- writing --------------------------------------------------------------------------------------

    def look(self, state: State) -> None:
        """Called after folds: write one when it is time and `state` is nothing but what was folded."""
        if self._task is not None or state.tip is None or state.journal.recording:
            return
        if self._wanted:
            self._wanted = False
            self._begin(state)
            return
        rows = len(state.cluster.allocations) + len(state.queue.requests)
        wait = max(self._every, rows // 2) * (100 + self._later_percent) // 100
        if state.events_folded - self._since >= wait:
            self._task = asyncio.create_task(self._ask_whether_wanted(state.events_folded), name="look for snapshots")
            self._task.add_done_callback(self._over)

    async def _ask_whether_wanted(self, events: int) -> None:
        """Not when somebody else's snapshot is newer than what this process knew."""
        newest = max(await self._stored(), default=Sequence(0))
        if newest > self.newest:
            self.newest, self._since = newest, events
        else:
            self._wanted = True

    def _begin(self, state: State) -> None:
        self._since = state.events_folded
        copied = self._copy(lambda: snapshots.encode_verified(state))
        self._task = asyncio.create_task(self._write(state.sequence, copied), name="write a snapshot")
        self._task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            task.result()

    async def _write(self, sequence: Sequence, copied: Awaitable[bytes]) -> None:
        began = time.monotonic()
        try:
            payload = await copied
            await self._store.write(sequence, payload)
        except (CopyFailed, OSError, Unreachable) as error:
            log.error("snapshot_not_written", extra={"sequence": sequence, "why": str(error)})  # noqa: TRY400 no bug of ours
            return
        self.newest = max(self.newest, sequence)
        fields = {"sequence": sequence, "bytes": len(payload), "seconds": round(time.monotonic() - began, 3)}
        log.info("snapshot_written", extra=fields)

    async def finish(self, state: State) -> None:
        """The process ends: its last snapshot, if much came since the one before."""
        if self._task is None and state.tip is not None and not state.journal.recording:
            if (state.events_folded - self._since) * _WORTH_AT_END < self._every:
                return
            self._begin(state)
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._task, LAST_WRITE_SECONDS)


async def _expect_in(ledger: Ledger, tip: Tip) -> None:
    """Raises:
    SnapshotUnusable: the ledger does not hold the record `tip` at its place.
    """
    async for attempt in tenacity.AsyncRetrying(retry=tenacity.retry_if_exception_type(Unreachable), wait=_READ_AGAIN):
        with attempt:
            last = await ledger.last_sequence()
            if last < tip.sequence:
                raise SnapshotUnusable(f"the ledger ends at {last}, it is of {tip.sequence}")
            found = await _at(ledger, tip.sequence)
            if found != tip:
                raise SnapshotUnusable(f"the ledger holds another record at {tip.sequence}: it is of another history")


async def _at(ledger: Ledger, sequence: Sequence) -> Tip | None:
    messages = ledger.follow(Sequence(sequence - 1))
    try:
        async for arrived in messages:
            if arrived:
                return tip_of(codec.decode_record(arrived[0].payload))
    except (CorruptRecord, Halted):
        return None
    finally:
        if isinstance(messages, AsyncGenerator):
            await messages.aclose()
    return None
