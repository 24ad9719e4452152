"""What the work queue promises: each message to the one that holds the pin, again until acknowledged."""

import asyncio
from contextlib import aclosing

from berth.adapters.connection import Connection
from berth.adapters.jetstream_api import JetStreamApi
from berth.ports import QueuedMessage
from tests.contract.worlds import World, next_queued, queue_of, stopped

SUBJECT = "berth.v1.request.team-a"


async def submit(world: World, *payloads: bytes) -> Connection:
    """Publish as a client does; each is stored when this returns."""
    client = await world.connect("client")
    api = await JetStreamApi.open(client)
    for payload in payloads:
        answer = await api.store(SUBJECT, payload, headers={"traceparent": "00-ab"}, within_seconds=5)
        assert answer["stream"] == "REQUESTS"
    return client


async def test_a_request_comes_with_its_subject_headers_and_sequence(world: World) -> None:
    await world.bootstrap()
    queue, _ = await queue_of(world, "quota-1")
    await submit(world, b"one", b"two")

    async with aclosing(queue.pull()) as batches:
        one, two = await next_queued(batches, 2)

    assert (one.subject, one.payload, one.headers) == (SUBJECT, b"one", {"traceparent": "00-ab"})
    assert [(each.sequence, each.count) for each in (one, two)] == [(1, 1), (2, 1)]
    assert queue.pinned


async def test_nobody_holds_the_pin_before_a_message_arrives(world: World) -> None:
    await world.bootstrap()
    queue, _ = await queue_of(world, "quota-1")

    async with aclosing(queue.pull()) as batches:
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.1)
        assert not queue.pinned
        client = await world.connect("quota-2")
        client.publish("berth.v1.request._", b"", headers={"Nats-Msg-Id": "nudge-7"})
        nudge = await waiting

    assert queue.pinned
    assert [(message.subject, message.payload) for message in nudge] == [("berth.v1.request._", b"")]


async def test_what_is_not_acknowledged_comes_again_and_says_so(world: World) -> None:
    await world.bootstrap(ack_wait_seconds=0.3)
    queue, _ = await queue_of(world, "quota-1")
    await submit(world, b"kept", b"done")

    async with aclosing(queue.pull()) as batches:
        kept, done = await next_queued(batches, 2)
        queue.acknowledge(done.handle)
        (again,) = await next_queued(batches)
        queue.acknowledge(again.handle)

    assert (again.payload, again.sequence, again.count) == (kept.payload, kept.sequence, 2)


async def test_a_message_that_is_worked_on_is_not_delivered_again_yet(world: World) -> None:
    await world.bootstrap(ack_wait_seconds=0.6)
    queue, connection = await queue_of(world, "quota-1")
    await submit(world, b"long", b"short")

    async with aclosing(queue.pull()) as batches:
        long, _ = await next_queued(batches, 2)
        await asyncio.sleep(0.4)
        queue.in_progress(long.handle)
        await connection.flush()
        (first_again,) = await next_queued(batches)

    assert first_again.payload == b"short", "its own time was over first"


async def test_an_acknowledged_message_leaves_the_queue(world: World) -> None:
    await world.bootstrap()
    queue, connection = await queue_of(world, "quota-1")
    await submit(world, b"one")
    async with aclosing(queue.pull()) as batches:
        (message,) = await next_queued(batches)
        queue.acknowledge(message.handle)
        await connection.flush()

    init = await JetStreamApi.open(await world.connect("init"))
    state = (await init.call("STREAM.INFO.REQUESTS"))["state"]

    assert (state["messages"], state["last_seq"]) == (0, 1)


async def test_one_message_id_is_stored_once(world: World) -> None:
    await world.bootstrap()
    api = await JetStreamApi.open(await world.connect("client"))
    headers = {"Nats-Msg-Id": "submission-1"}

    first = await api.store(SUBJECT, b"one", headers=headers, within_seconds=5)
    second = await api.store(SUBJECT, b"one", headers=headers, within_seconds=5)

    assert (first["seq"], second["seq"], second["duplicate"]) == (1, 1, True)


async def test_only_the_holder_of_the_pin_gets_messages(world: World) -> None:
    await world.bootstrap()
    (active, _), (standby, _) = await queue_of(world, "quota-1"), await queue_of(world, "quota-2")
    client = await submit(world, b"0")

    async with aclosing(active.pull()) as batches, aclosing(standby.pull()) as others:
        await next_queued(batches)
        waiting = asyncio.ensure_future(anext(others))
        for number in range(1, 20):
            client.publish(SUBJECT, b"%d" % number)
        found = await next_queued(batches, 19)

        assert [message.payload for message in found] == [b"%d" % number for number in range(1, 20)]
        assert (active.pinned, standby.pinned, waiting.done()) == (True, False, False)
        waiting.cancel()
        await asyncio.wait((waiting,))


async def test_an_idle_holder_keeps_its_pin(world: World) -> None:
    await world.bootstrap()
    (active, _), (standby, _) = await queue_of(world, "quota-1"), await queue_of(world, "quota-2")
    client = await submit(world, b"first")

    async with aclosing(active.pull()) as batches, aclosing(standby.pull()) as others:
        await next_queued(batches)
        next_of_active, next_of_standby = asyncio.ensure_future(anext(batches)), asyncio.ensure_future(anext(others))
        await asyncio.sleep(2.5)  # longer than the pin lives without a pull
        client.publish(SUBJECT, b"second")

        assert [message.payload for message in await next_of_active] == [b"second"]
        next_of_standby.cancel()
        await asyncio.wait((next_of_standby,))


async def test_the_standby_takes_over_when_the_holder_dies(world: World) -> None:
    await world.bootstrap(ack_wait_seconds=1.0)
    (active, connection), (standby, _) = await queue_of(world, "quota-1"), await queue_of(world, "quota-2")
    client = await submit(world, b"in hand when it died")

    async with aclosing(standby.pull()) as others:
        async with aclosing(active.pull()) as batches:
            (in_hand,) = await next_queued(batches)
        await world.leave(connection)
        client.publish(SUBJECT, b"afterwards")
        async with asyncio.timeout(3.0):  # the promise of DESIGN section 3: a timeout of 2 s
            found = await next_queued(others, 2)

    assert standby.pinned
    assert sorted((message.payload, message.count) for message in found) == [
        (b"afterwards", 1),
        (in_hand.payload, 2),
    ]


async def test_a_holder_whose_pin_is_taken_learns_it_with_an_empty_batch(world: World) -> None:
    await world.bootstrap()
    (active, _), (standby, _) = await queue_of(world, "quota-1"), await queue_of(world, "quota-2")
    client = await submit(world, b"first")

    async with aclosing(active.pull()) as batches, aclosing(standby.pull()) as others:
        await next_queued(batches)
        next_of_active, next_of_standby = asyncio.ensure_future(anext(batches)), asyncio.ensure_future(anext(others))
        await asyncio.sleep(0.1)
        await world.unpin()
        client.publish(SUBJECT, b"second")

        assert [message.payload for message in await next_of_standby] == [b"second"]
        assert await next_of_active == []
        assert (active.pinned, standby.pinned) == (False, True)


async def test_pulling_goes_on_across_a_kill_of_the_server(world: World) -> None:
    await world.bootstrap(ack_wait_seconds=0.5)
    queue, connection = await queue_of(world, "quota-1")
    client = await submit(world, b"unacknowledged")

    async with aclosing(queue.pull()) as batches:
        await next_queued(batches)
        await stopped(world, connection, client)
        world.start()
        await asyncio.gather(connection.until_connected(), client.until_connected())
        client.publish(SUBJECT, b"new")
        found = {message.payload for message in await next_queued(batches, 2)}

    assert found == {b"unacknowledged", b"new"}


async def test_a_dead_letter_is_stored_with_its_reason_and_leaves_the_queue(world: World) -> None:
    await world.bootstrap()
    queue, connection = await queue_of(world, "quota-1")
    client = await world.connect("client")
    client.publish(SUBJECT, b"poison", headers={"Nats-Msg-Id": "s-1", "traceparent": "00-ab"})

    async with aclosing(queue.pull()) as batches:
        (poison,) = await next_queued(batches)
        await queue.dead_letter(poison, "not JSON")
        await queue.dead_letter(poison, "not JSON")  # after a crash between storing and acknowledging
        await connection.flush()

    init = await JetStreamApi.open(await world.connect("init"))
    letters = (await init.call("STREAM.INFO.DEADLETTER"))["state"]
    waiting = (await init.call("STREAM.INFO.REQUESTS"))["state"]
    assert (letters["messages"], waiting["messages"]) == (1, 0)


async def test_a_dead_letter_that_would_be_too_large_with_its_headers_is_cut(world: World) -> None:
    await world.bootstrap()
    queue, connection = await queue_of(world, "quota-1")
    huge = QueuedMessage(
        subject=SUBJECT,
        payload=bytes(connection.payload_max),
        headers={},
        sequence=1,
        count=1,
        handle="$JS.ACK.REQUESTS.quota.1.1.1.0.0",
    )

    await queue.dead_letter(huge, "x" * 5_000)

    init = await JetStreamApi.open(await world.connect("init"))
    assert (await init.call("STREAM.INFO.DEADLETTER"))["state"]["messages"] == 1
