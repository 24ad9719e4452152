"""Answers the NATS services protocol (`$SRV.PING`, `$SRV.INFO`, `$SRV.STATS`; ADR-32), so that the stock
`nats micro ls` sees Berth.

Own and thin: nats.micro would take over the handling of messages, one after another (NATS section 4,
defect 6). Here it only counts what the runner reports.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from berth.effects import Identity
from berth.errors import Overloaded
from berth.ports import Bus, Envelope
from berth.subjects import Subject

PREFIX = "$SRV"
_TYPE = "io.nats.micro.v1.{verb}_response"


@dataclass(slots=True, kw_only=True)
class Endpoint:
    """One subject that a service takes messages of, and what came of them. Times are nanoseconds."""

    subject: Subject
    pattern: str
    queue: str | None
    requests: int = 0
    errors: int = 0
    last_error: str = ""
    processing_ns: int = 0

    def handled(self, elapsed_ns: int) -> None:
        self.requests += 1
        self.processing_ns += elapsed_ns

    def failed(self, why: str) -> None:
        """Its last message was refused or its handler raised."""
        self.errors += 1
        self.last_error = why

    def info(self) -> dict[str, Any]:
        return {
            "name": self.subject.name,
            "subject": self.pattern,
            "queue_group": self.queue or "",
            "metadata": {"summary": self.subject.summary},
        }

    def stats(self) -> dict[str, Any]:
        return {
            "name": self.subject.name,
            "subject": self.pattern,
            "queue_group": self.queue or "",
            "num_requests": self.requests,
            "num_errors": self.errors,
            "last_error": self.last_error,
            "processing_time": self.processing_ns,
            "average_processing_time": self.processing_ns // max(1, self.requests),
        }


@dataclass(kw_only=True)
class ServiceApi:
    """One process's answers. `metadata` is asked anew for each answer; its values are strings, as ADR-33 wants."""

    bus: Bus
    name: str
    identity: Identity
    version: str
    description: str
    endpoints: Sequence[Endpoint]
    metadata: Callable[[], dict[str, str]]
    started_ms: int
    _end: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    @property
    def id(self) -> str:
        """This process among those of the same name; one subject token."""
        return f"{self.identity.user}-{self.identity.boot}"

    async def start(self) -> None:
        """Answer on all three levels of each verb: all services, this name, this process."""
        verbs: dict[str, Callable[[], dict[str, Any]]] = {"PING": self.ping, "INFO": self.info, "STATS": self.stats}
        for verb, answer in verbs.items():
            receive = self._answering(answer)
            for level in (verb, f"{verb}.{self.name}", f"{verb}.{self.name}.{self.id}"):
                self._end.append(await self.bus.subscribe(f"{PREFIX}.{level}", receive))

    def close(self) -> None:
        while self._end:
            self._end.pop()()

    def _answering(self, answer: Callable[[], dict[str, Any]]) -> Callable[[Envelope], None]:
        def receive(envelope: Envelope) -> None:
            if envelope.reply is None:
                return
            try:
                self.bus.publish(envelope.reply, orjson.dumps(answer()))
            except Overloaded:
                return  # who asks for statistics asks again

        return receive

    def ping(self) -> dict[str, Any]:
        return self._identity("ping")

    def info(self) -> dict[str, Any]:
        endpoints = [endpoint.info() for endpoint in self.endpoints]
        return {**self._identity("info"), "description": self.description, "endpoints": endpoints}

    def stats(self) -> dict[str, Any]:
        started = datetime.fromtimestamp(self.started_ms / 1000, UTC).isoformat().replace("+00:00", "Z")
        return {
            **self._identity("stats"),
            "started": started,
            "endpoints": [endpoint.stats() for endpoint in self.endpoints],
        }

    def _identity(self, verb: str) -> dict[str, Any]:
        return {
            "type": _TYPE.format(verb=verb),
            "name": self.name,
            "id": self.id,
            "version": self.version,
            "metadata": self.metadata(),
        }
