"""One fenced append while the stream has no leader (RAFT section 2, step 6)."""

from collections.abc import AsyncIterator

from berth.ids import Sequence
from berth.ports import AppendResult, InDoubt, StoredMessage
from berth.sim.virtual_time import SimulatedClock, run
from berth_raft.appending import Found, Stored, store


class Leaderless:
    """A stream that answers at once, and never says what became of it."""

    server_ms = None

    def __init__(self) -> None:
        self.appends = 0

    async def append(self, payload: bytes, *, expected: Sequence) -> AppendResult:
        del payload, expected
        self.appends += 1
        return InDoubt(why="no stream takes appends now, after an attempt that is in doubt")

    async def last_sequence(self) -> Sequence:
        return Sequence(1)

    async def read(self, sequence: Sequence) -> StoredMessage | None:
        del sequence
        return None

    def follow(self, after: Sequence) -> AsyncIterator[list[StoredMessage]]:
        raise AssertionError(f"nobody follows after {after}")


def test_a_stream_that_answers_at_once_is_not_asked_as_fast_as_it_answers() -> None:
    ledger = Leaderless()

    async def story() -> Found:
        clock = SimulatedClock()
        return await store(
            ledger,
            b"record",
            expected=Sequence(1),
            monotonic_us=clock.monotonic_us,
            patience_us=600_000,
            may_go_on=lambda: True,
        )

    assert run(story()) == Found(stored=Stored.DOUBT, was_in_doubt=True, gave_up=True)
    assert ledger.appends < 65, "once in ten milliseconds"
