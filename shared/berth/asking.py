"""Question and answer over one connection: every answer comes to one inbox, under the token of its question."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from berth.adapters.connection import Connection
from berth.errors import Unreachable
from berth.ports import Envelope
from berth.subjects import Subject
from berth.wire import codec

M = TypeVar("M", bound=BaseModel)

ACK_SECONDS = 2.0
STORED_WITHIN_SECONDS = 20.0
NO_RESPONDERS = 503


class Asking:
    """Whoever asks here is answered or gets an error; nothing waits for ever."""

    def __init__(self, bus: Connection) -> None:
        self._bus = bus
        self._answers: dict[str, Callable[[Envelope], None]] = {}

    async def open(self) -> None:
        await self._bus.subscribe(f"{self._bus.inbox}.*", self._answered)

    async def command(
        self, subject: Subject, body: BaseModel, kind: type[M], *, seconds: float = 5.0, **tokens: str
    ) -> M:
        """Ask and decode the answer; asked again while nobody is there (every command is idempotent)."""
        payload = codec.encode(body)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unreachable),
            wait=wait_exponential_jitter(multiplier=0.05, max=0.5, jitter=0.05),
            stop=stop_after_delay(seconds),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                reply = await self.request(subject.of(**tokens), payload, seconds=seconds)
                return codec.decode(kind, reply.payload)
        raise AssertionError("tenacity ends with an answer or an error")

    async def request(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, seconds: float
    ) -> Envelope:
        """Raises Unreachable: nobody is there, or nobody answered in time."""
        token = secrets.token_hex(8)
        answered: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()

        def receive(envelope: Envelope) -> None:
            if not answered.done():
                answered.set_result(envelope)

        self._answers[token] = receive
        try:
            self._bus.publish(subject, payload, headers=headers, reply=f"{self._bus.inbox}.{token}")
            async with asyncio.timeout(seconds):
                reply = await answered
        except TimeoutError:
            raise Unreachable(f"nobody answered {subject} within {seconds:g} s", hint="try `berth status`") from None
        finally:
            del self._answers[token]
        if reply.status == NO_RESPONDERS:
            raise Unreachable(f"nobody serves {subject}", hint="try `berth status`")
        return reply

    async def gather(self, subject: str, payload: bytes, *, seconds: float, enough: int) -> list[bytes]:
        """The answers of everybody who answers within `seconds`, at most `enough`."""
        token = secrets.token_hex(8)
        found: list[bytes] = []
        complete = asyncio.Event()

        def receive(envelope: Envelope) -> None:
            if envelope.status is None:
                found.append(envelope.payload)
            if envelope.status is not None or len(found) >= enough:
                complete.set()

        self._answers[token] = receive
        try:
            self._bus.publish(subject, payload, reply=f"{self._bus.inbox}.{token}")
            with contextlib.suppress(TimeoutError):  # who has not answered by now is not counted
                async with asyncio.timeout(seconds):
                    await complete.wait()
        finally:
            del self._answers[token]
        return found

    def _answered(self, envelope: Envelope) -> None:
        receive = self._answers.get(envelope.subject.rpartition(".")[2])
        if receive is not None:
            receive(envelope)

    async def stored(self, subject: str, payload: bytes, headers: dict[str, str] | None, submission: str) -> None:
        """Publish to a stream and wait for its acknowledgement; retried under one id, so it is stored once."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unreachable),
            wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05),
            stop=stop_after_delay(STORED_WITHIN_SECONDS),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                sent = {**(headers or {}), "Nats-Msg-Id": submission}
                reply = await self.request(subject, payload, headers=sent, seconds=ACK_SECONDS)
                acknowledgement: Any = orjson.loads(reply.payload or b"{}")
                if "error" in acknowledgement:
                    raise Unreachable(f"the stream refused: {acknowledgement['error'].get('description')}")
