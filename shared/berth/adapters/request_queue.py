"""The work queue REQUESTS through its pinned consumer: who holds the pin is the active quota service.

DESIGN section 2, "Active quota service"; ADR-42. Every quota service pulls; JetStream serves the one with
the pin. The pin is lost when no pull comes from it for PIN_TIMEOUT_SECONDS, so requests are short-lived.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

from berth import subjects
from berth.adapters.connection import Connection, headers_size
from berth.adapters.jetstream_api import JetStreamApi, refusal_in
from berth.adapters.pull import WRONG_PIN, Pull, PullEnded, PullSettings, delivered
from berth.errors import Unreachable
from berth.ports import Envelope, QueuedMessage

log = logging.getLogger(__name__)

STREAM = subjects.REQUESTS_STREAM.name
PIN_HEADER = "Nats-Pin-Id"
REASON_HEADER = "Berth-Reason"
ORIGINAL_HEADER = "Berth-Original-"
REASON_LENGTH_MAX = 1_000

_PULL_SECONDS = subjects.PIN_TIMEOUT_SECONDS / 2
_STORE_SECONDS = 2.0
_RETRY_SECONDS_MIN = 0.05
_RETRY_SECONDS_MAX = 1.0


class JetStreamQueue:
    """The RequestQueue port on the consumer that `streams.create_request_consumer` makes."""

    def __init__(self, bus: Connection, api: JetStreamApi, *, batch: int = 64) -> None:
        self._bus = bus
        self._api = api
        self._pin: str | None = None
        self._settings = PullSettings(
            stream=STREAM,
            consumer=subjects.QUOTA_CONSUMER,
            batch=batch,
            expires_seconds=_PULL_SECONDS,
            heartbeat_seconds=None,
            # Asking on keeps the pin although the reader is busy; one that is busy for long loses it.
            buffered_max=4 * batch,
        )

    @classmethod
    async def open(cls, bus: Connection) -> "JetStreamQueue":
        return cls(bus, await JetStreamApi.open(bus))

    def close(self) -> None:
        self._api.close()

    @property
    def pinned(self) -> bool:
        """Whether this process holds the pin as far as it knows: it received messages and was not refused since."""
        return self._pin is not None

    async def pull(self) -> AsyncGenerator[list[QueuedMessage], None]:
        """Batches as they arrive; never ends. An empty batch: the pin was lost, look at `pinned`."""
        attempts = 0
        while True:
            await self._bus.until_connected()
            pull = await Pull.open(self._bus, self._settings)
            pull.more = self._members
            pull.on_status = lambda status, pull=pull: self._lost_pin(pull, status)
            try:
                while True:
                    batch = [self._queued(envelope) for envelope in await pull.arrived()]
                    attempts = 0
                    yield batch
            except PullEnded as ended:
                attempts = min(attempts + 1, 10)
                log.info("request_pull_renewed", extra={"why": ended.message, "attempt": attempts})
            finally:
                pull.close()
            await asyncio.sleep(min(_RETRY_SECONDS_MAX, _RETRY_SECONDS_MIN * 2**attempts))

    def acknowledge(self, handle: str) -> None:
        """The message needs no other delivery. If this is lost, it comes again."""
        self._bus.publish(handle, b"+ACK")

    def in_progress(self, handle: str) -> None:
        """The message is still being worked on: `ack_wait` starts again."""
        self._bus.publish(handle, b"+WPI")

    async def dead_letter(self, message: QueuedMessage, reason: str) -> None:
        """Store the message with `reason` and its headers in DEADLETTER, then acknowledge it.

        Storing twice after a crash between the two is avoided by the message id, which is the stream's sequence.
        What would be too large with its new headers is cut.

        Raises:
            Unreachable, TimedOut: it may not be stored; it is not acknowledged and comes again.
        """
        subject = subjects.DEADLETTER.of(stream=STREAM)
        headers = _dead_letter_headers(message, reason)
        payload = message.payload[: self._bus.payload_max - headers_size(headers)]
        answer = await self._api.store(subject, payload, headers=headers, within_seconds=_STORE_SECONDS)
        if (refusal := refusal_in(answer)) is not None:
            raise Unreachable(f"{subject}: {refusal}")
        self.acknowledge(message.handle)

    def _members(self) -> dict[str, Any]:
        return {"group": subjects.PIN_GROUP} | ({"id": self._pin} if self._pin is not None else {})

    def _lost_pin(self, pull: Pull, status: Envelope) -> bool:
        if status.status != WRONG_PIN:
            return False
        if self._pin is not None:
            log.info("pin_lost", extra={"stream": STREAM})
            self._pin = None
            pull.wake()
        return True

    def _queued(self, envelope: Envelope) -> QueuedMessage:
        pin = envelope.headers.get(PIN_HEADER)
        if pin is not None and pin != self._pin:
            log.info("pin_gained", extra={"stream": STREAM})
            self._pin = pin
        handle = envelope.reply or ""
        at = delivered(handle)
        return QueuedMessage(
            subject=envelope.subject,
            payload=envelope.payload,
            headers={name: value for name, value in envelope.headers.items() if name != PIN_HEADER},
            sequence=at.sequence,
            count=at.count,
            handle=handle,
        )


def _dead_letter_headers(message: QueuedMessage, reason: str) -> dict[str, str]:
    """The message's own headers; those that JetStream would obey are kept under another name."""
    kept = {
        f"{ORIGINAL_HEADER}{name}" if name.lower().startswith("nats-") else name: value
        for name, value in message.headers.items()
    }
    return {
        **kept,
        f"{ORIGINAL_HEADER}Subject": message.subject,
        REASON_HEADER: reason[:REASON_LENGTH_MAX],
        "Nats-Msg-Id": f"{STREAM}-{message.sequence}",
    }
