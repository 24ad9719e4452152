"""The follower: one history in order, whatever else is in the stream; when it asks anew, and when it gives up."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import pytest

from berth.errors import Halted, Unreachable
from berth.ids import LedgerId, Sequence, Term
from berth.messages.commands import Committed
from berth.messages.envelope import NO_HASH, Record
from berth.messages.events import Event, LeaderElected, LedgerCreated
from berth.ports import AppendResult, NotStored, StoredMessage
from berth.runtime.follower import BEHIND_SECONDS, Batch, Follower, OtherHistory
from berth.wire import codec

LEDGER_ID = LedgerId("l1")


class Tape:
    """A ledger that plays what a test put on it. `breaks`: how often following breaks off after what there
    is; `then` is what the ledger holds from then on.
    """

    def __init__(self, *payloads: bytes, breaks: int = 0, then: list[bytes] | None = None) -> None:
        self.payloads = list(payloads)
        self.breaks = breaks
        self.then = then
        self.followed: list[Sequence] = []
        self.more = asyncio.Event()

    async def append(self, payload: bytes, *, expected: Sequence) -> AppendResult:
        del payload, expected
        return NotStored(why="a tape")

    @property
    def server_ms(self) -> int | None:
        return None

    async def last_sequence(self) -> Sequence:
        return Sequence(len(self.payloads))

    async def read(self, sequence: Sequence) -> StoredMessage | None:
        return StoredMessage(sequence=sequence, payload=self.payloads[sequence - 1])

    async def follow(self, after: Sequence) -> AsyncIterator[list[StoredMessage]]:
        self.followed.append(after)
        if after > len(self.payloads):
            raise Halted(sequence=after, why="the stream is shorter")
        at = int(after)
        while True:
            yield [
                StoredMessage(sequence=Sequence(number), payload=payload)
                for number, payload in enumerate(self.payloads[at:], at + 1)
            ]
            at = len(self.payloads)
            if self.breaks:
                self.breaks -= 1
                self.payloads = self.payloads if self.then is None else self.then
                raise Unreachable("broke off")
            await self.more.wait()
            self.more.clear()


def a_history(length: int, *, ledger: LedgerId = LEDGER_ID) -> list[bytes]:
    """LedgerCreated, then barriers."""
    payloads: list[bytes] = []
    previous = NO_HASH
    for sequence in range(1, length + 1):
        term = sequence - 1
        head = codec.RecordHead(
            ledger_id=ledger,
            sequence=Sequence(sequence),
            term=Term(term),
            leader="raft-1" if term else "",
            barrier=Sequence(sequence if term else 0),
            at=1_000,
            prev_hash=previous,
        )
        elected = LeaderElected(term=Term(term), leader="raft-1", prev_term=Term(max(0, term - 1)))
        created = LedgerCreated(ledger_id=ledger, members=("raft-1",), level="ledger")
        event = codec.encode_event(Event(elected if term else created))
        payload, previous = codec.encode_record(head, [[event]])
        payloads.append(payload)
    return payloads


async def records_of(follower: Follower, count: int) -> list[Record]:
    """The first `count` records."""
    found: list[Record] = []
    async for batch in follower.batches():
        found += batch.records
        if len(found) >= count:
            return found
    raise AssertionError("following never ends")


async def following(follower: Follower, until: Callable[[list[Batch]], bool]) -> list[Batch]:
    batches: list[Batch] = []
    async for batch in follower.batches():
        batches.append(batch)
        if until(batches):
            break
    return batches


async def test_it_has_caught_up_when_it_read_what_was_there_at_its_start() -> None:
    batches = await following(Follower(Tape(*a_history(5))), lambda found: found[-1].caught_up)

    assert [len(batch.records) for batch in batches] == [5]


async def test_an_empty_ledger_is_caught_up_with_at_once() -> None:
    batches = await following(Follower(Tape()), lambda found: found[-1].caught_up)

    assert batches == [Batch(records=(), caught_up=True)]


async def test_foreign_messages_are_left_out_and_counted() -> None:
    own, other = a_history(3), a_history(3, ledger=LedgerId("l2"))
    follower = Follower(Tape(other[1], *own))

    assert [record.sequence for record in await records_of(follower, 0)] == []
    assert follower.foreign == 4  # a foreign first message: nothing after it has its place any more


async def test_a_record_in_another_place_is_foreign() -> None:
    first, second, third = a_history(3)
    follower = Follower(Tape(first, second, b"{}", third))

    records = await records_of(follower, 2)

    assert [record.sequence for record in records] == [1, 2]
    assert follower.foreign == 2


async def test_it_goes_on_where_it_was_when_the_ledger_breaks_off() -> None:
    tape = Tape(*a_history(2), breaks=1, then=a_history(4))

    records = await records_of(Follower(tape), 4)

    assert [record.sequence for record in records] == [1, 2, 3, 4]
    assert tape.followed == [0, 2]


async def test_silence_is_no_reason_to_ask_anew_until_something_newer_is_announced() -> None:
    tape = Tape(*a_history(2))
    follower = Follower(tape)
    reading = asyncio.create_task(records_of(follower, 3))
    await asyncio.sleep(BEHIND_SECONDS * 3)
    asked_in_silence = list(tape.followed)

    tape.payloads = a_history(3)  # nobody sets `more`: the tail is stuck
    follower.compare(committed_of(codec.decode_record(tape.payloads[2])))
    records = await reading

    assert asked_in_silence == [0]
    assert tape.followed == [0, 2]
    assert [record.sequence for record in records] == [1, 2, 3]


async def test_what_is_announced_while_nobody_waits_for_it_counts_when_somebody_does() -> None:
    tape = Tape(*a_history(2))
    follower = Follower(tape)
    batches = follower.batches()
    await anext(batches)

    tape.payloads = a_history(3)  # nobody sets `more`: the tail is stuck
    follower.compare(committed_of(codec.decode_record(tape.payloads[2])))
    later = [batch async for batch in until_sequence(batches, 3)]

    assert tape.followed == [0, 2]
    assert [record.sequence for batch in later for record in batch.records] == [3]


async def until_sequence(batches: AsyncGenerator[Batch], last: int) -> AsyncGenerator[Batch]:
    async for batch in batches:
        yield batch
        if any(record.sequence == last for record in batch.records):
            return


async def test_a_stream_that_became_shorter_is_another_history() -> None:
    tape = Tape(*a_history(3), breaks=1, then=a_history(2))

    with pytest.raises(OtherHistory, match="ends at 2, 3 was read"):
        await records_of(Follower(tape), 9)


async def test_a_stream_that_is_found_shorter_while_it_is_followed_is_another_history() -> None:
    tape = Tape(*a_history(3))
    follower = Follower(tape)
    await records_of(follower, 3)
    tape.payloads = a_history(2)

    with pytest.raises(OtherHistory):
        await records_of(follower, 9)


async def test_another_ledger_s_leader_is_another_history() -> None:
    follower = Follower(Tape(*a_history(3)))
    (*_, last) = await records_of(follower, 3)

    with pytest.raises(OtherHistory, match="leads ledger l2"):
        follower.compare(committed_of(last).model_copy(update={"ledger_id": "l2"}))


def committed_of(record: Record) -> Committed:
    return Committed(
        ledger_id=record.ledger_id, term=record.term, sequence=record.sequence, hash=record.hash, leader=record.leader
    )
