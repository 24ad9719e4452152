"""A process begins with a snapshot of this ledger if there is one that it can use, and writes one now and then."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from berth.adapters.forking import CopyFailed
from berth.ids import LedgerId, Sequence
from berth.messages.envelope import Record
from berth.model.ledger import State
from berth.runtime.snapshots import Snapshots
from berth.sim.snapshots import SimulatedSnapshots, at_once
from berth.wire import snapshots as bytes_of
from tests.same_state import assert_same
from tests.unit.runtime.stage import QUOTA_SET, Running, Scripted, Stage, until

EVERY = 20
USER = "reservation-1"
"""One whose turn comes without delay; see `Snapshots`."""


class Folding(Scripted):
    """A service that does nothing but fold."""

    def replay(self, record: Record) -> None:
        self.state.fold(record)
        super().replay(record)

    def fold(self, record: Record, now_ms: int) -> list[Any]:
        self.state.fold(record)
        return super().fold(record, now_ms)


async def started(
    stage: Stage, service: Folding, store: SimulatedSnapshots, *, user: str = USER, copy: Any = at_once
) -> Running:
    kept = Snapshots(store, user=user, every_events=EVERY, copy=copy)
    running = await stage.start(service, user, snapshots=kept)
    await until(lambda: service.state.sequence == (stage.tip.sequence if stage.tip else 0))
    return running


async def appended(stage: Stage, records: int) -> None:
    for _ in range(records):
        await stage.append(QUOTA_SET)


async def with_snapshot(stage: Stage, store: SimulatedSnapshots, *, records: int = 2 * EVERY) -> Folding:
    """A service that has written one, folded a record after it, and was killed."""
    service = Folding()
    running = await started(stage, service, store)
    before = set(store.files)
    await appended(stage, records)
    await until(lambda: set(store.files) - before)
    await stage.append(QUOTA_SET)
    await until(lambda: service.state.sequence == (stage.tip.sequence if stage.tip else 0))
    running.task.cancel()
    await asyncio.gather(running.task, return_exceptions=True)
    return service


def warned(caplog: pytest.LogCaptureFixture, name: str) -> list[Any]:
    return [vars(record)["why"] for record in caplog.records if record.message == name]


async def test_a_process_that_starts_again_folds_only_what_came_after_the_snapshot(stage: Stage) -> None:
    store, again = SimulatedSnapshots(), Folding()
    before = await with_snapshot(stage, store)

    await started(stage, again, store)

    newest = max(store.files)
    assert [record.sequence for record in again.replayed] == list(range(newest + 1, before.state.sequence + 1))
    assert again.replayed, "a record came after the snapshot"
    assert_same(again.state, before.state)


async def test_a_process_that_began_with_a_snapshot_goes_on_as_every_other(stage: Stage) -> None:
    store, again, everything = SimulatedSnapshots(), Folding(), Folding()
    await with_snapshot(stage, store)

    await started(stage, again, store)
    await started(stage, everything, SimulatedSnapshots(), user="scheduler-1")
    await appended(stage, 3)
    await until(lambda: len(again.folded) == len(everything.folded) == 3)

    assert_same(again.state, everything.state)


async def test_a_damaged_snapshot_is_left_alone_and_the_one_before_it_serves(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    store, again = SimulatedSnapshots(), Folding()
    await with_snapshot(stage, store)
    await with_snapshot(stage, store)
    older, newest = sorted(store.files)
    store.files[newest] = store.files[newest][:-10]

    await started(stage, again, store)

    assert again.replayed[0].sequence == older + 1
    assert warned(caplog, "snapshot_ignored") == ["its hash is not that of its bytes"]


async def test_a_snapshot_of_another_ledger_is_left_alone_and_everything_is_folded(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    store, again = SimulatedSnapshots(), Folding()
    await appended(stage, 5)
    foreign = State()
    for record in (await _folded(stage)).replayed:
        foreign.fold(record)
    assert foreign.tip is not None
    for tip in (_other(foreign, ledger_id=LedgerId("l2")), _other(foreign, hash="1" * 64)):
        foreign.tip = tip
        store.files = {foreign.sequence: bytes_of.encode(foreign)}
        again = Folding()
        running = await started(stage, again, store)
        await running.stop()

        assert again.replayed[0].sequence == 1
    assert all("another history" in why for why in warned(caplog, "snapshot_ignored"))


def _other(state: State, **changed: Any) -> Any:
    assert state.tip is not None
    return replace(state.tip, **changed)


async def _folded(stage: Stage) -> Folding:
    service = Folding()
    running = await started(stage, service, SimulatedSnapshots())
    await running.stop()
    return service


async def test_a_snapshot_beyond_the_end_of_the_ledger_is_left_alone(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    store, again = SimulatedSnapshots(), Folding()
    folded = (await _folded(stage)).state
    folded.tip = _other(folded, sequence=Sequence(folded.sequence + 10))
    store.files = {folded.sequence: bytes_of.encode(folded)}

    await started(stage, again, store)

    assert again.replayed[0].sequence == 1
    assert warned(caplog, "snapshot_ignored") == ["the ledger ends at 2, it is of 12"]


async def test_one_of_the_processes_that_share_a_store_writes_for_all(stage: Stage) -> None:
    store = SimulatedSnapshots(kept=100)
    for user in ("reservation-1", "scheduler-1", "scheduler-2"):
        await started(stage, Folding(), store, user=user)

    await appended(stage, 4 * EVERY)
    await until(lambda: len(store.files) >= 3)
    await asyncio.sleep(5)

    assert len(store.files) <= 4


async def test_a_state_that_somebody_is_trying_something_on_is_not_written(stage: Stage) -> None:
    store, service = SimulatedSnapshots(), Folding()
    await started(stage, service, store)
    mark = service.state.journal.begin()

    await appended(stage, 3 * EVERY)
    await until(lambda: len(service.folded) >= 3 * EVERY)
    await asyncio.sleep(1)
    assert not store.files
    service.state.journal.undo(mark)


async def test_a_copy_that_fails_is_an_error_in_the_log_and_nothing_else(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(_: Callable[[], bytes]) -> Awaitable[bytes]:
        async def fail() -> bytes:
            raise CopyFailed("killed")

        return fail()

    store, service = SimulatedSnapshots(), Folding()
    await started(stage, service, store, copy=failing)
    with caplog.at_level(logging.ERROR):
        await appended(stage, 2 * EVERY)
        await until(lambda: warned(caplog, "snapshot_not_written"))
    await stage.append(QUOTA_SET)
    await until(lambda: service.state.sequence == (stage.tip.sequence if stage.tip else 0))

    assert not store.files


async def test_a_process_that_ends_leaves_a_snapshot_when_much_came_since_the_last(stage: Stage) -> None:
    store = SimulatedSnapshots()
    running = await started(stage, Folding(), store)
    await appended(stage, EVERY // 2)

    await running.stop()

    assert list(store.files) == [stage.tip.sequence if stage.tip else 0]
