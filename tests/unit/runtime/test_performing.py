"""Effects leave in the order of the third law, whatever the bus and the streams do meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import orjson

from berth import subjects
from berth.adapters.replies import Replies
from berth.effects import Acknowledge, DeadLetter, Delivery, Identity, InProgress, Propose, Publish, Reply
from berth.errors import Overloaded, TimedOut
from berth.ids import Namespace, RequestId, Sequence
from berth.messages.commands import AdminAnswer, Proposal
from berth.messages.decisions import Decision
from berth.messages.events import RequestStatus
from berth.ports import Envelope, QueuedMessage
from berth.runtime.performing import Performer
from tests.unit.runtime.stage import QUOTA_SET

DELIVERY = Delivery(stream="REQUESTS", stream_sequence=7, count=1, handle="ack.7")
MESSAGE = QueuedMessage(
    subject="berth.v1.request.team-a", payload=b"[]", headers={}, sequence=7, count=1, handle="ack.7"
)
PROPOSE = Propose(proposal=Proposal(id="p1", transactions=(QUOTA_SET,), view_sequence=Sequence(1)))
REPLY = Reply(to="inbox.1", body=AdminAnswer())
DECISION = Publish(
    subject=subjects.DECISION,
    body=Decision(namespace=Namespace("team-a"), request=RequestId("web"), status=RequestStatus.PLACED),
    tokens={"namespace": "team-a", "request": "web"},
)
NUDGE = Publish(subject=subjects.REQUEST, body=None, tokens={"namespace": "_"}, message_id="nudge-7")


@dataclass
class Outlet:
    """A bus and a work queue that write down what leaves. `full`: how often publishing meets a full queue;
    `failing`: how often a stream says no to what is to be stored.
    """

    left: list[str] = field(default_factory=list[str])
    headers: list[dict[str, str] | None] = field(default_factory=list[dict[str, str] | None])
    full: int = 0
    failing: int = 0
    pinned: bool = True
    answers: Callable[[Envelope], None] | None = None

    def publish(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, reply: str | None = None
    ) -> None:
        del payload
        if self.full:
            self.full -= 1
            raise Overloaded("full")
        self.left.append(subject)
        self.headers.append(headers)
        if reply is not None and subject.startswith("berth.v1.request") and self.answers is not None:
            found = {"error": {"code": 503}} if self.failing else {"stream": "REQUESTS", "seq": 1}
            self.failing = max(0, self.failing - 1)
            answer = Envelope(subject=reply, payload=orjson.dumps(found), headers={})
            asyncio.get_running_loop().call_later(0.1, self.answers, answer)

    async def subscribe(
        self, pattern: str, receive: Callable[[Envelope], None], *, queue: str | None = None
    ) -> Callable[[], None]:
        del pattern, queue
        self.answers = receive
        return lambda: None

    async def pull(self) -> AsyncIterator[list[QueuedMessage]]:
        yield []

    def acknowledge(self, handle: str) -> None:
        self.left.append(handle)

    def in_progress(self, handle: str) -> None:
        self.left.append(f"progress {handle}")

    async def dead_letter(self, message: QueuedMessage, reason: str) -> None:
        if self.failing:
            self.failing -= 1
            raise TimedOut("nobody knows")
        self.left.append(f"dead {message.sequence}: {reason}")


async def a_performer(outlet: Outlet) -> Performer:
    replies = await Replies.open(outlet, "_INBOX_quota-1.stored")
    return Performer(outlet, replies, outlet, identity=Identity(user="quota-1", boot="b1"), role="quota")


async def test_what_changes_state_leaves_first_and_acknowledgements_last() -> None:
    outlet = Outlet()
    performer = await a_performer(outlet)

    acknowledge = Acknowledge(delivery=DELIVERY)
    await performer.perform([acknowledge, InProgress(delivery=DELIVERY), REPLY, DECISION, PROPOSE])

    assert outlet.left == [
        "berth.v1.commit.quota",
        "berth.v1.decision.team-a.web",
        "inbox.1",
        "progress ack.7",
        "ack.7",
    ]


async def test_nothing_is_answered_or_acknowledged_before_a_stream_has_what_goes_first() -> None:
    outlet = Outlet(failing=2)
    performer = await a_performer(outlet)

    await performer.perform([Acknowledge(delivery=DELIVERY), REPLY, NUDGE])
    at_once = list(outlet.left)
    await performer.finish(60)

    assert at_once == []
    assert outlet.left == ["berth.v1.request._"] * 3 + ["inbox.1", "ack.7"]
    assert {tuple((headers or {}).items()) for headers in outlet.headers[:3]} == {(("Nats-Msg-Id", "nudge-7"),)}


async def test_a_full_outbound_queue_is_waited_for() -> None:
    outlet = Outlet(full=5)
    performer = await a_performer(outlet)

    await performer.perform([DECISION, REPLY])

    assert outlet.left == ["berth.v1.decision.team-a.web", "inbox.1"]


async def test_a_dead_letter_is_tried_until_it_is_stored() -> None:
    outlet = Outlet(failing=3)
    performer = await a_performer(outlet)
    performer.hold(MESSAGE)

    await performer.perform([DeadLetter(delivery=DELIVERY, reason="no list")])
    await performer.finish(60)

    assert outlet.left == ["dead 7: no list"]


async def test_a_dead_letter_that_is_never_stored_is_not_acknowledged() -> None:
    outlet = Outlet(failing=1_000)
    performer = await a_performer(outlet)
    performer.hold(MESSAGE)

    await performer.perform([DeadLetter(delivery=DELIVERY, reason="no list")])
    await performer.finish(600)

    assert outlet.left == []


async def test_only_a_sampled_context_travels_in_a_header() -> None:
    outlet = Outlet()
    performer = await a_performer(outlet)
    sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    await performer.perform([Reply(to="a", body=AdminAnswer(), traceparent=sampled)])
    await performer.perform([Reply(to="b", body=AdminAnswer(), traceparent=sampled[:-1] + "0")])

    assert outlet.headers == [{"traceparent": sampled}, None]
