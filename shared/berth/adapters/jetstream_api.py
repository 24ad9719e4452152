"""JetStream's request/reply interface, as much as Berth uses: JSON in, JSON or a typed error out."""

from dataclasses import dataclass
from typing import Any

import orjson

from berth.adapters.connection import Connection
from berth.adapters.replies import Replies
from berth.errors import BerthError, TimedOut, Unreachable

ANSWER_WITHIN_SECONDS = 2.0

STREAM_EXISTS_OTHERWISE = 10058
STREAM_NOT_FOUND = 10059
MESSAGE_NOT_FOUND = 10037
CONSUMER_NOT_FOUND = 10014


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRefusal:
    """What JetStream says no with. `number`: its err_code, which alone tells errors apart."""

    number: int
    status: int
    description: str

    def __str__(self) -> str:
        return f"{self.description} ({self.number})"


class ApiRefused(BerthError):
    """JetStream answered with an error."""

    code = "jetstream_refused"

    def __init__(self, subject: str, refusal: ApiRefusal) -> None:
        super().__init__(f"{subject}: {refusal}")
        self.refusal = refusal


class JetStreamApi:
    """One connection's questions to JetStream. Whoever waits gets Unreachable at once when the connection breaks."""

    def __init__(self, bus: Connection, replies: Replies) -> None:
        self.bus = bus
        self._replies = replies
        self._forget = bus.on_connection(lost=self._on_lost)

    @classmethod
    async def open(cls, bus: Connection) -> "JetStreamApi":
        return cls(bus, await Replies.open(bus, bus.new_inbox()))

    async def call(self, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask `$JS.API.<name>`.

        Raises:
            Unreachable: nobody answered (a stream without leader, JetStream down, no permission).
            ApiRefused: JetStream said no.
        """
        if not self.bus.connected:
            raise Unreachable("not connected")
        subject = f"$JS.API.{name}"
        payload = b"" if body is None else orjson.dumps(body)
        try:
            answer = await self._replies.ask(subject, payload, within_seconds=ANSWER_WITHIN_SECONDS)
        except TimedOut as error:
            raise Unreachable(error.message) from None
        found: dict[str, Any] = orjson.loads(answer.payload)
        if (refusal := refusal_in(found)) is not None:
            raise ApiRefused(subject, refusal)
        return found

    async def store(
        self, subject: str, payload: bytes, *, headers: dict[str, str], within_seconds: float
    ) -> dict[str, Any]:
        """Publish on a stream's subject and return its acknowledgement, or its refusal under `error`.

        Raises:
            NobodyThere: no stream has the subject now. Unreachable, TimedOut: nobody knows.
            Overloaded, InvalidCommand: nothing was sent.
        """
        answer = await self._replies.ask(subject, payload, within_seconds=within_seconds, headers=headers)
        return orjson.loads(answer.payload)

    def close(self) -> None:
        self._forget()
        self._replies.close()

    def _on_lost(self) -> None:
        self._replies.fail("the connection broke")


def refusal_in(answer: dict[str, Any]) -> ApiRefusal | None:
    """The error that an answer of JetStream holds, or None."""
    error = answer.get("error")
    if not isinstance(error, dict):
        return None
    members: dict[str, Any] = error  # pyright: ignore[reportUnknownVariableType] parsed JSON
    return ApiRefusal(
        number=int(members.get("err_code", 0)),
        status=int(members.get("code", 0)),
        description=str(members.get("description", "")),
    )
