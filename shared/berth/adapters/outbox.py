"""What waits to be sent on one connection: bounded in bytes, written in order by one task.

So publishing costs its caller neither a task nor an await (PERFORMANCE section 1).
"""

import asyncio
import contextlib
import logging
from collections import deque
from dataclasses import dataclass

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from berth.errors import Overloaded

log = logging.getLogger(__name__)

_FRAME_BYTES = 64
"""What a subject, a reply and the frame of a queued message weigh beside it, roughly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One message. `size`: bytes of payload and headers."""

    subject: str
    payload: bytes
    headers: dict[str, str] | None
    reply: str
    size: int

    @property
    def weight(self) -> int:
        return self.size + _FRAME_BYTES


class Outbox:
    """`up` is set while there is a connection. `keeps`: what cannot be sent waits for the next one; else it is
    dropped.
    """

    def __init__(self, client: Client, *, up: asyncio.Event, keeps: bool, bytes_max: int) -> None:
        self._client = client
        self._up = up
        self._keeps = keeps
        self._bytes_max = bytes_max
        self._items: deque[Outgoing | Subscription | asyncio.Future[None]] = deque()
        self._bytes = 0
        self._queued = asyncio.Event()

    def put(self, message: Outgoing) -> None:
        """Take it for sending.

        Raises:
            Overloaded: there is no room; nothing was taken.
        """
        if not self._keeps and not self._up.is_set():
            return
        if self._bytes + message.weight > self._bytes_max:
            raise Overloaded(
                f"{self._bytes} bytes wait to be sent to {message.subject} and others",
                hint="the bus is slow or gone; try again later",
            )
        self._bytes += message.weight
        self._put(message)

    def end(self, subscription: Subscription) -> None:
        """Tell the server, after what is queued, that nobody listens there any more."""
        self._put(subscription)

    async def written(self) -> None:
        """Return when everything put before has been handed to the client, or dropped."""
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(reached)
        await reached

    async def run(self) -> None:
        """Write everything in order; never ends."""
        while True:
            await self._queued.wait()
            self._queued.clear()
            while self._items:
                match self._items.popleft():
                    case Outgoing() as message:
                        await self._send(message)
                    case Subscription() as subscription:
                        with contextlib.suppress(nats.errors.Error):  # it ended with the connection
                            await subscription.unsubscribe()
                    case reached:
                        if not reached.done():
                            reached.set_result(None)

    def _put(self, item: Outgoing | Subscription | asyncio.Future[None]) -> None:
        self._items.append(item)
        self._queued.set()

    async def _send(self, message: Outgoing) -> None:
        if not self._up.is_set():
            if not self._keeps:
                self._bytes -= message.weight
                return
            await self._up.wait()
        self._bytes -= message.weight
        try:
            await self._client.publish(message.subject, message.payload, message.reply, message.headers)
        except nats.errors.Error as error:  # at most once: the connection broke just now, or a subject is malformed
            log.warning("message_dropped", extra={"subject": message.subject, "why": repr(error)})
