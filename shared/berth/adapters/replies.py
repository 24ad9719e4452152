"""Questions and their answers over any Bus: one standing reply subscription per process, tokens tell them apart."""

import asyncio
import itertools
from collections.abc import Callable

from berth.errors import TimedOut, Unreachable
from berth.ports import Bus, Envelope

NO_RESPONDERS = 503


class Replies:
    """Made by `open`. `ask` waits for one answer; whoever wants several subscribes to `prefix` itself."""

    def __init__(self, bus: Bus, prefix: str) -> None:
        self._bus = bus
        self._prefix = prefix
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Envelope]] = {}
        self._end: Callable[[], None] | None = None

    @classmethod
    async def open(cls, bus: Bus, prefix: str) -> "Replies":
        """Listen on `<prefix>.*`, where `prefix` begins with the user's own `_INBOX_<user>`."""
        replies = cls(bus, prefix)
        replies._end = await bus.subscribe(f"{prefix}.*", replies._receive)
        return replies

    async def ask(
        self, subject: str, payload: bytes, *, within_seconds: float, headers: dict[str, str] | None = None
    ) -> Envelope:
        """Publish and return the first answer.

        Raises:
            Unreachable: nobody listens there (503), or the connection broke before an answer came.
            TimedOut: no answer within the time.
            Overloaded, InvalidCommand: as `Bus.publish`; nothing was sent.
        """
        token = str(next(self._numbers))
        answer: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        self._waiting[token] = answer
        try:
            self._bus.publish(subject, payload, headers=headers, reply=f"{self._prefix}.{token}")
            async with asyncio.timeout(within_seconds):
                found = await answer
        except TimeoutError:
            raise TimedOut(f"no answer on {subject} within {within_seconds:g} s") from None
        finally:
            del self._waiting[token]
        if found.status == NO_RESPONDERS:
            raise NobodyThere(f"nobody answers on {subject}")
        return found

    def fail(self, why: str) -> None:
        """Whoever waits for an answer gets Unreachable now: the connection is gone and answers with it."""
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(Unreachable(why))

    def close(self) -> None:
        if self._end is not None:
            self._end()
        self.fail("closed")

    def _receive(self, envelope: Envelope) -> None:
        answer = self._waiting.get(envelope.subject.rpartition(".")[2])
        if answer is not None and not answer.done():
            answer.set_result(envelope)


class NobodyThere(Unreachable):
    """The server itself said that nobody listens (503): what was sent reached nobody."""
