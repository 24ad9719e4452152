"""What the Bus promises: at most once, in order, one of a queue group, 503 when nobody is there."""

import asyncio
from collections.abc import Callable

import pytest

from berth.adapters.replies import NobodyThere, Replies
from berth.errors import InvalidCommand, Overloaded
from berth.ports import Envelope
from tests.contract.worlds import World, stopped

SUBJECT = "berth.v1.evaluate"


class Heard:
    """Keeps what a subscription received, and lets a test wait for it."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self._more = asyncio.Event()

    def __call__(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope)
        self._more.set()

    @property
    def payloads(self) -> list[bytes]:
        return [envelope.payload for envelope in self.envelopes]

    async def until(self, count: int) -> None:
        while len(self.envelopes) < count:
            self._more.clear()
            await self._more.wait()


async def test_a_message_reaches_its_listener_whole(world: World) -> None:
    sender, receiver, heard = await world.connect("quota-1"), await world.connect("scheduler-1"), Heard()
    await receiver.subscribe(SUBJECT, heard, queue="scheduler")

    sender.publish(SUBJECT, b"\x00body", headers={"traceparent": "00-ab", "Nats-Msg-Id": "é"}, reply="_INBOX_quota-1.7")
    await heard.until(1)

    assert heard.envelopes == [
        Envelope(
            subject=SUBJECT,
            payload=b"\x00body",
            headers={"traceparent": "00-ab", "Nats-Msg-Id": "é"},
            reply="_INBOX_quota-1.7",
        )
    ]


async def test_messages_of_one_sender_arrive_in_order(world: World) -> None:
    sender, receiver, heard = await world.connect("quota-1"), await world.connect("scheduler-1"), Heard()
    await receiver.subscribe(SUBJECT, heard, queue="scheduler")

    for number in range(300):
        sender.publish(SUBJECT, b"%d" % number)
    await heard.until(300)

    assert heard.payloads == [b"%d" % number for number in range(300)]


async def test_each_message_goes_to_one_member_of_a_queue_group(world: World) -> None:
    sender, heard = await world.connect("quota-1"), Heard()
    by_member = [0, 0]

    def member(number: int) -> Callable[[Envelope], None]:
        def receive(envelope: Envelope) -> None:
            by_member[number] += 1
            heard(envelope)

        return receive

    await (await world.connect("scheduler-1")).subscribe(SUBJECT, member(0), queue="scheduler")
    await (await world.connect("scheduler-2")).subscribe(SUBJECT, member(1), queue="scheduler")

    for number in range(100):
        sender.publish(SUBJECT, b"%d" % number)
    await heard.until(100)

    assert sorted(heard.payloads, key=int) == [b"%d" % number for number in range(100)]
    assert min(by_member) > 0


async def test_every_listener_without_a_group_hears_it_through_its_own_pattern(world: World) -> None:
    agent, node, raft = await world.connect("agent"), Heard(), Heard()
    await (await world.connect("scheduler-1")).subscribe("berth.v1.node.*.heartbeat", node)
    await (await world.connect("raft-1")).subscribe("berth.v1.node.*.heartbeat", raft)

    agent.publish("berth.v1.node.n1.heartbeat", b"1")
    agent.publish("berth.v1.node.n1.leave", b"2")
    agent.publish("berth.v1.node.n2.heartbeat", b"3")
    await node.until(2)
    await raft.until(2)

    assert node.payloads == raft.payloads == [b"1", b"3"]


async def test_a_question_to_nobody_is_answered_by_the_server_with_503(world: World) -> None:
    bus, heard = await world.connect("quota-1"), Heard()
    await bus.subscribe(f"{bus.inbox}.*", heard)

    bus.publish(SUBJECT, b"anybody?", reply=f"{bus.inbox}.token-1")
    await heard.until(1)

    assert heard.envelopes[0].status == 503
    assert heard.envelopes[0].payload == b""
    assert heard.envelopes[0].subject == f"{bus.inbox}.token-1"


async def test_an_answer_comes_back_under_the_token_of_its_question(world: World) -> None:
    asker, answerer = await world.connect("quota-1"), await world.connect("scheduler-1")

    def answer(envelope: Envelope) -> None:
        assert envelope.reply is not None
        answerer.publish(envelope.reply, b"re: " + envelope.payload)

    await answerer.subscribe(SUBJECT, answer, queue="scheduler")
    replies = await Replies.open(asker, asker.new_inbox())

    one, other = await asyncio.gather(
        replies.ask(SUBJECT, b"one", within_seconds=5), replies.ask(SUBJECT, b"other", within_seconds=5)
    )

    assert (one.payload, other.payload) == (b"re: one", b"re: other")
    assert one.status is None


async def test_whoever_asks_learns_that_nobody_is_there(world: World) -> None:
    asker = await world.connect("quota-1")
    replies = await Replies.open(asker, asker.new_inbox())

    with pytest.raises(NobodyThere):
        await replies.ask(SUBJECT, b"", within_seconds=5)


async def test_an_ended_subscription_hears_nothing_more(world: World) -> None:
    sender, receiver, ended, live = await world.connect("quota-1"), await world.connect("scheduler-1"), Heard(), Heard()
    end = await receiver.subscribe(SUBJECT, ended, queue="scheduler")
    end()
    await receiver.subscribe(SUBJECT, live, queue="scheduler")

    for _ in range(20):
        sender.publish(SUBJECT, b"")
    await live.until(20)

    assert ended.envelopes == []


async def test_a_message_with_headers_that_is_too_large_is_refused_here_and_harms_nothing(world: World) -> None:
    sender, receiver, heard = await world.connect("quota-1"), await world.connect("scheduler-1"), Heard()
    await receiver.subscribe(SUBJECT, heard, queue="scheduler")

    with pytest.raises(InvalidCommand, match="at most 1048576 bytes"):
        sender.publish(SUBJECT, bytes(sender.payload_max - 10), headers={"traceparent": "00-ab"})
    sender.publish(SUBJECT, b"small")
    await heard.until(1)

    assert heard.payloads == [b"small"]
    assert sender.connected


async def test_the_largest_message_that_is_allowed_arrives(world: World) -> None:
    sender, receiver, heard = await world.connect("quota-1"), await world.connect("scheduler-1"), Heard()
    await receiver.subscribe(SUBJECT, heard, queue="scheduler")

    framed = len(b"NATS/1.0\r\na: cd\r\n\r\n")
    sender.publish(SUBJECT, bytes(sender.payload_max), headers={})
    sender.publish(SUBJECT, bytes(sender.payload_max - framed), headers={"a": "cd"})
    await heard.until(2)

    assert [len(payload) for payload in heard.payloads] == [sender.payload_max, sender.payload_max - framed]


async def test_subscriptions_and_waiting_messages_survive_a_restart_of_the_server(world: World) -> None:
    sender, receiver, heard = await world.connect("quota-1"), await world.connect("scheduler-1"), Heard()
    await receiver.subscribe(SUBJECT, heard, queue="scheduler")
    breaks: list[str] = []
    sender.on_connection(lost=lambda: breaks.append("lost"), regained=lambda: breaks.append("regained"))

    await stopped(world, sender, receiver)
    sender.publish(SUBJECT, b"written while nobody was there")
    world.start()
    await asyncio.gather(sender.until_connected(), receiver.until_connected())
    await receiver.flush()
    sender.publish(SUBJECT, b"written afterwards")
    await heard.until(1)
    while heard.payloads[-1] != b"written afterwards":
        await heard.until(len(heard.envelopes) + 1)

    assert breaks == ["lost", "regained"]
    # At most once: whether the first is heard depends on who came back first.
    assert heard.payloads in ([b"written while nobody was there", b"written afterwards"], [b"written afterwards"])


async def test_a_connection_that_must_not_speak_late_drops_what_it_cannot_send(world: World) -> None:
    sender = await world.connect("quota-1", keeps_while_disconnected=False)
    receiver, heard = await world.connect("scheduler-1"), Heard()
    await receiver.subscribe(SUBJECT, heard, queue="scheduler")

    await stopped(world, sender, receiver)
    sender.publish(SUBJECT, b"too late")
    world.start()
    await asyncio.gather(sender.until_connected(), receiver.until_connected())
    await receiver.flush()
    sender.publish(SUBJECT, b"in time")
    await heard.until(1)

    assert heard.payloads == [b"in time"]


async def test_a_full_outbound_queue_says_so_and_takes_nothing(world: World) -> None:
    sender = await world.connect("quota-1")
    await stopped(world, sender)

    for _ in range(16):
        sender.publish(SUBJECT, bytes(1_000_000))
    sender.publish(SUBJECT, bytes(500_000))
    with pytest.raises(Overloaded):
        sender.publish(SUBJECT, bytes(1_000_000))
    sender.publish(SUBJECT, b"what is small still has room")

    world.start()
    await sender.until_connected()
