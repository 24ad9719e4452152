"""A continuous pull from one JetStream consumer: one standing inbox, one request outstanding, renewed in time.

The client's own `fetch` stalls and hides statuses (NATS section 4, defect 4); this loop sees every status,
misses no heartbeat and says why when it cannot go on. What to do then is its user's decision.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from berth.adapters.connection import Connection
from berth.errors import BerthError
from berth.ports import Envelope

_HEARTBEATS_MISSED_MAX = 2
_RENEWED = {404, 408}
"""Nothing came, or the request's time is over: ask again."""
_RENEWED_CONFLICTS = ("batch completed", "message size exceeds maxbytes")
HEARTBEAT = 100
WRONG_PIN = 423


@dataclass(frozen=True, slots=True, kw_only=True)
class PullSettings:
    """`batch` messages and `bytes_max` at most are under way; a request is renewed after `expires_seconds`.

    `heartbeat_seconds`: how often the server speaks when there is nothing, at most half of `expires_seconds`;
    None where a request ends often enough to tell. `buffered_max`: no new request while more messages than
    that, or more than `bytes_max` bytes, wait for the reader.
    """

    stream: str
    consumer: str
    batch: int = 256
    bytes_max: int = 8 * 1024 * 1024
    expires_seconds: float = 30.0
    heartbeat_seconds: float | None = 1.0
    buffered_max: int = 128


class PullEnded(BerthError):
    """This pull cannot go on: its consumer is gone, the connection broke, heartbeats are missing."""

    code = "pull_ended"
    retryable = True


class Pull:
    """Made by `open`. One reader calls `arrived` again and again; `close` when done."""

    def __init__(self, bus: Connection, settings: PullSettings, inbox: str) -> None:
        self._bus = bus
        self._settings = settings
        self._inbox = inbox
        self._numbers = itertools.count(1)
        self._wanted: dict[str, int] = {}
        self._messages: list[Envelope] = []
        self._bytes = 0
        self._woken = False
        self._ended: str | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._forget: list[Callable[[], None]] = []
        self.last_handle = ""
        """The acknowledgement subject of the newest message, empty before the first."""
        self.more: Callable[[], dict[str, Any]] = dict
        """Further members of each request, such as the pin's id."""
        self.on_status: Callable[[Envelope], bool] = _not_mine
        """Sees each status first; True when it dealt with it (a new request follows)."""

    @classmethod
    async def open(cls, bus: Connection, settings: PullSettings) -> "Pull":
        """Listen on an inbox that nobody used before: late messages of an older pull stay out."""
        pull = cls(bus, settings, bus.new_inbox())
        pull._forget.append(await bus.subscribe(f"{pull._inbox}.*", pull._receive))
        pull._forget.append(bus.on_connection(lost=lambda: pull.end("the connection broke")))
        if not bus.connected:
            pull.end("not connected")
        return pull

    async def arrived(self) -> list[Envelope]:
        """The messages that have arrived since the last call, in order; waits until there is one.

        Raises:
            PullEnded: what had arrived before was returned earlier.
        """
        self._request_when_low()
        while not self._messages and not self._woken:
            if self._ended is not None:
                raise PullEnded(self._ended)
            await self._something()
        self._woken = False
        messages, self._messages, self._bytes = self._messages, [], 0
        return messages

    def wake(self) -> None:
        """Let `arrived` return, with nothing if nothing has arrived."""
        self._woken = True
        self._look()

    def _look(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        for forget in self._forget:
            forget()
        self._forget.clear()
        self.end("closed")

    async def _something(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        settings = self._settings
        silence_max = (settings.heartbeat_seconds or settings.expires_seconds) * (_HEARTBEATS_MISSED_MAX + 0.5)
        try:
            async with asyncio.timeout(silence_max):
                await self._waiter
        except TimeoutError:
            self.end("heartbeats are missing")
        finally:
            self._waiter = None

    def _receive(self, envelope: Envelope) -> None:
        if envelope.status is None:
            self._messages.append(envelope)
            self._bytes += len(envelope.payload)
            self.last_handle = envelope.reply or ""
            self._count()
        else:
            self._on_status(envelope, envelope.status)
        self._look()

    def _count(self) -> None:
        """The server serves the oldest request first."""
        for number, left in self._wanted.items():
            if left > 1:
                self._wanted[number] = left - 1
            else:
                del self._wanted[number]
            break
        self._request_when_low()

    def _on_status(self, envelope: Envelope, status: int) -> None:
        if status == HEARTBEAT:
            self.on_status(envelope)
            return
        self._wanted.pop(envelope.subject.rpartition(".")[2], None)
        why = envelope.headers.get("Description", "")
        renewed = status in _RENEWED or (status == 409 and why.lower().startswith(_RENEWED_CONFLICTS))
        if self.on_status(envelope) or renewed:
            self._request_when_low()
        else:
            self.end(f"status {status} {why}".strip())

    def _request_when_low(self) -> None:
        settings = self._settings
        if self._ended is not None or len(self._messages) > settings.buffered_max or self._bytes > settings.bytes_max:
            return
        if sum(self._wanted.values()) > settings.batch // 4:
            return
        number = str(next(self._numbers))
        self._wanted[number] = settings.batch
        request = {
            "batch": settings.batch,
            "max_bytes": settings.bytes_max,
            "expires": int(settings.expires_seconds * 1e9),
            **({"idle_heartbeat": int(settings.heartbeat_seconds * 1e9)} if settings.heartbeat_seconds else {}),
            **self.more(),
        }
        self._bus.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{settings.stream}.{settings.consumer}",
            orjson.dumps(request),
            reply=f"{self._inbox}.{number}",
        )

    def end(self, why: str) -> None:
        """Let `arrived` raise PullEnded once it has returned what has come."""
        if self._ended is None:
            self._ended = why
        self._look()


def _not_mine(_status: Envelope) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What an acknowledgement subject says: `$JS.ACK.<stream>.<consumer>.<count>.<sequence>.<n>.<time>.<pending>`.

    `count`: which delivery this is, from 1. `pending`: how many more messages the stream has for the consumer.
    """

    count: int
    sequence: int
    pending: int


def delivered(handle: str) -> Delivered:
    """Read an acknowledgement subject; also the longer form with domain and account that newer servers may send."""
    tokens = handle.split(".")
    assert len(tokens) >= 9 and tokens[:2] == ["$JS", "ACK"], f"no acknowledgement subject: {handle}"
    first = 4 if len(tokens) == 9 else 6
    return Delivered(count=int(tokens[first]), sequence=int(tokens[first + 1]), pending=int(tokens[first + 4]))
