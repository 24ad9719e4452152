"""What the Ledger promises: exact fencing, doubt where there is doubt, a tail without holes across restarts."""

import asyncio
from contextlib import aclosing

import pytest

from berth.adapters.jetstream_api import JetStreamApi
from berth.errors import Halted, Unreachable
from berth.ids import Sequence
from berth.messages.envelope import MESSAGE_BYTES_MAX
from berth.ports import Appended, InDoubt, LostRace, NotStored, StoredMessage
from tests.contract.worlds import World, ledger_of, ledger_on, next_messages, read_to_end, stopped

ZERO = Sequence(0)


async def test_an_append_is_acknowledged_at_the_next_sequence(world: World) -> None:
    await world.bootstrap()
    ledger = await ledger_of(world, "raft-1")

    results = [await ledger.append(b"record", expected=Sequence(number)) for number in range(3)]

    assert results == [Appended(sequence=Sequence(number)) for number in (1, 2, 3)]
    assert await ledger.last_sequence() == 3


async def test_a_wrong_expectation_loses_the_race_and_stores_nothing(world: World) -> None:
    await world.bootstrap()
    ledger = await ledger_of(world, "raft-1")
    await ledger.append(b"first", expected=ZERO)

    behind = await ledger.append(b"zombie", expected=ZERO)
    ahead = await ledger.append(b"hasty", expected=Sequence(7))

    assert (behind, ahead) == (LostRace(), LostRace()), "I15"
    assert [message.payload for message in await read_to_end(ledger)] == [b"first"]


async def test_of_two_that_race_exactly_one_is_stored(world: World) -> None:
    await world.bootstrap()
    one, other = await ledger_of(world, "raft-1"), await ledger_of(world, "raft-2")

    for number in range(500):
        results = await asyncio.gather(
            one.append(b"one", expected=Sequence(number)), other.append(b"other", expected=Sequence(number))
        )
        assert sorted(type(result).__name__ for result in results) == ["Appended", "LostRace"]

    assert len(await read_to_end(one)) == 500


async def test_a_record_that_is_too_large_is_a_definite_no(world: World) -> None:
    await world.bootstrap()
    ledger = await ledger_of(world, "raft-1")

    for size in (MESSAGE_BYTES_MAX + 1_000, 2 * 1024 * 1024):
        assert isinstance(await ledger.append(bytes(size), expected=ZERO), NotStored)

    assert await ledger.append(b"small", expected=ZERO) == Appended(sequence=Sequence(1))


async def test_without_a_stream_nothing_is_stored_and_that_is_certain(world: World) -> None:
    ledger = await ledger_of(world, "raft-1")

    assert isinstance(await ledger.append(b"record", expected=ZERO), NotStored)
    with pytest.raises(Unreachable):
        await ledger.last_sequence()


async def test_without_a_server_nothing_is_stored_and_that_is_certain(world: World) -> None:
    await world.bootstrap()
    connection = await world.connect("raft-1", keeps_while_disconnected=False)
    ledger = await ledger_on(connection, "raft-1")
    await stopped(world, connection)

    assert isinstance(await ledger.append(b"record", expected=ZERO), NotStored)
    with pytest.raises(Unreachable):
        await ledger.read(Sequence(1))

    world.start()


async def test_an_append_that_nobody_answers_is_in_doubt_until_it_is_read_back(world: World) -> None:
    await world.bootstrap()
    ledger = await ledger_of(world, "raft-1", append_within_seconds=0.1)

    world.freeze()
    first = await ledger.append(b"record", expected=ZERO)
    world.thaw()
    again = await ledger.append(b"record", expected=ZERO)

    assert isinstance(first, InDoubt)
    # The first copy landed when the server went on, so the second lost to it: that is not "nothing was stored".
    assert isinstance(again, InDoubt)
    assert await ledger.read(Sequence(1)) == StoredMessage(sequence=Sequence(1), payload=b"record")
    assert await ledger.last_sequence() == 1
    assert await ledger.append(b"next", expected=Sequence(1)) == Appended(sequence=Sequence(2))


async def test_a_lost_race_after_doubt_about_another_sequence_is_certain(world: World) -> None:
    await world.bootstrap()
    ledger = await ledger_of(world, "raft-1", append_within_seconds=0.1)
    world.freeze()
    await ledger.append(b"record", expected=ZERO)
    world.thaw()

    assert await ledger.append(b"other", expected=Sequence(5)) == LostRace()


async def test_an_append_is_in_doubt_when_the_connection_breaks_before_its_answer(world: World) -> None:
    await world.bootstrap()
    ledger = await ledger_of(world, "raft-1")

    world.freeze()
    appending = asyncio.create_task(ledger.append(b"record", expected=ZERO))
    await asyncio.sleep(0.05)
    world.stop()

    assert isinstance(await appending, InDoubt)
    world.start()


async def test_what_is_not_there_reads_as_none(world: World) -> None:
    await world.bootstrap()
    ledger = await ledger_of(world, "raft-1")
    await ledger.append(b"record", expected=ZERO)

    assert await ledger.read(Sequence(2)) is None
    assert await ledger.read(Sequence(1)) == StoredMessage(sequence=Sequence(1), payload=b"record")


async def test_a_follower_reads_everything_and_then_what_arrives(world: World) -> None:
    await world.bootstrap()
    leader, reader = await ledger_of(world, "raft-1"), await ledger_of(world, "quota-1")
    for number in range(600):
        await leader.append(b"%d" % number, expected=Sequence(number))

    async with aclosing(reader.follow(ZERO)) as batches:
        old = await next_messages(batches, 600)
        assert await anext(batches) == [], "caught up"
        await leader.append(b"600", expected=Sequence(600))
        new = await next_messages(batches, 1)

    assert [message.payload for message in old + new] == [b"%d" % number for number in range(601)]
    assert [message.sequence for message in old + new] == list(range(1, 602))


async def test_a_follower_that_pauses_misses_nothing(world: World) -> None:
    await world.bootstrap()
    stranger, reader = await world.connect("init"), await ledger_of(world, "quota-1")

    async with aclosing(reader.follow(ZERO)) as batches:
        assert await anext(batches) == []
        for number in range(2_000):
            stranger.publish("berth.v1.ledger", b"%d" % number)
        await stranger.flush()
        await asyncio.sleep(0.2)  # more arrives meanwhile than one pull asks for
        found = await next_messages(batches, 2_000)

    assert [message.payload for message in found] == [b"%d" % number for number in range(2_000)]


async def test_a_follower_of_an_empty_ledger_is_caught_up_at_once(world: World) -> None:
    await world.bootstrap()
    reader = await ledger_of(world, "quota-1")

    async with aclosing(reader.follow(ZERO)) as batches:
        assert await anext(batches) == []


async def test_a_follower_begins_after_what_it_knows(world: World) -> None:
    await world.bootstrap()
    leader, reader = await ledger_of(world, "raft-1"), await ledger_of(world, "quota-1")
    for number in range(5):
        await leader.append(b"%d" % number, expected=Sequence(number))

    assert [message.sequence for message in await read_to_end(reader, after=3)] == [4, 5]
    assert await read_to_end(reader, after=5) == []


async def test_two_readers_each_get_everything(world: World) -> None:
    await world.bootstrap()
    leader = await ledger_of(world, "raft-1")
    readers = [await ledger_of(world, user) for user in ("quota-1", "scheduler-1", "raft-2")]
    for number in range(20):
        await leader.append(b"%d" % number, expected=Sequence(number))

    for found in await asyncio.gather(*(read_to_end(reader) for reader in readers)):
        assert [message.sequence for message in found] == list(range(1, 21))


async def test_a_foreign_message_is_handed_on_as_it_is_stored(world: World) -> None:
    await world.bootstrap()
    ledger = await ledger_of(world, "raft-1")
    stranger = await world.connect("init")

    stranger.publish("berth.v1.ledger", b"\xff not a record", headers={"x": "y"})
    await stranger.flush()

    assert await read_to_end(ledger) == [StoredMessage(sequence=Sequence(1), payload=b"\xff not a record")]


async def test_a_follower_goes_on_across_a_kill_of_the_server(world: World) -> None:
    await world.bootstrap()
    connection = await world.connect("raft-1", keeps_while_disconnected=False)
    leader, reader = await ledger_on(connection, "raft-1"), await ledger_of(world, "quota-1")
    await leader.append(b"before", expected=ZERO)

    async with aclosing(reader.follow(ZERO)) as batches:
        found = await next_messages(batches, 1)
        for last in (1, 2):
            await stopped(world, connection)
            world.start()
            await connection.until_connected()
            await leader.append(b"after %d" % last, expected=Sequence(last))
            found += await next_messages(batches, 1)

    assert [(message.sequence, message.payload) for message in found] == [
        (1, b"before"),
        (2, b"after 1"),
        (3, b"after 2"),
    ]


async def test_a_follower_goes_on_when_its_consumer_is_gone(world: World) -> None:
    await world.bootstrap()
    leader, reader = await ledger_of(world, "raft-1"), await ledger_of(world, "quota-1")
    janitor = await JetStreamApi.open(await world.connect("quota-1"))
    await leader.append(b"before", expected=ZERO)

    async with aclosing(reader.follow(ZERO)) as batches:
        found = await next_messages(batches, 1)
        await janitor.call("CONSUMER.DELETE.LEDGER.quota-1")
        await leader.append(b"after", expected=Sequence(1))
        found += await next_messages(batches, 1)

    assert [message.payload for message in found] == [b"before", b"after"]


async def test_a_ledger_shorter_than_what_was_read_halts_the_follower(world: World) -> None:
    """I20, for a process that has read it."""
    await world.bootstrap()
    leader, reader = await ledger_of(world, "raft-1"), await ledger_of(world, "quota-1")
    await leader.append(b"record", expected=ZERO)

    with pytest.raises(Halted, match="ends at 1 now"):
        await read_to_end(reader, after=9)


async def test_several_command_lines_of_one_user_follow_at_the_same_time(world: World) -> None:
    await world.bootstrap()
    leader = await ledger_of(world, "raft-1")
    for number in range(10):
        await leader.append(b"%d" % number, expected=Sequence(number))
    readers = [await ledger_of(world, "admin", shared_user=True) for _ in range(3)]

    for found in await asyncio.gather(*(read_to_end(reader) for reader in readers)):
        assert [message.sequence for message in found] == list(range(1, 11))
