"""One span as `berth trace` prints it and the trace page shows it. Standard library only: the CLI imports this."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNKNOWN_SERVICE = "unknown_service"
"""What OpenTelemetry calls a service that did not say its name."""

STATUS_UNSET, STATUS_OK, STATUS_ERROR = "unset", "ok", "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Another span that led to this one without being its parent (a batch, a wake-up)."""

    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanEvent:
    """Something that happened inside a span. `at_us`: microseconds since 1970, UTC."""

    name: str
    at_us: int
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """`start_us`: microseconds since 1970, UTC. Ids are lower-case hex. `parent` None: a root.

    Attribute values are JSON values; `service.instance.id` of the resource stands among them.
    """

    trace_id: str
    span_id: str
    parent: str | None
    service: str
    name: str
    start_us: int
    duration_us: int
    links: tuple[Link, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    kind: str = "internal"
    status: str = STATUS_UNSET
    status_message: str = ""
    events: tuple[SpanEvent, ...] = ()

    @property
    def end_us(self) -> int:
        return self.start_us + self.duration_us

    @property
    def failed(self) -> bool:
        return self.status == STATUS_ERROR

    def as_mapping(self) -> dict[str, Any]:
        """Exactly the members that scripts rely on (DESIGN section 5, "Other shapes")."""
        return {
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "parent": self.parent,
            "links": [{"trace_id": link.trace_id, "span_id": link.span_id} for link in self.links],
            "service": self.service,
            "name": self.name,
            "start_us": self.start_us,
            "duration_us": self.duration_us,
            "attributes": self.attributes,
        }

    def as_full_mapping(self) -> dict[str, Any]:
        """Those members and what the page shows besides."""
        return {
            **self.as_mapping(),
            "kind": self.kind,
            "status": self.status,
            "status_message": self.status_message,
            "events": [
                {"name": event.name, "at_us": event.at_us, "attributes": event.attributes} for event in self.events
            ],
        }


def span_from(members: Mapping[str, Any]) -> Span:
    """The span that `as_mapping` or `as_full_mapping` wrote.

    Raises:
        KeyError: a member that scripts rely on is missing.
    """
    return Span(
        trace_id=members["trace_id"],
        span_id=members["span_id"],
        parent=members["parent"],
        service=members["service"],
        name=members["name"],
        start_us=members["start_us"],
        duration_us=members["duration_us"],
        links=tuple(Link(trace_id=link["trace_id"], span_id=link["span_id"]) for link in members["links"]),
        attributes=members["attributes"],
        kind=members.get("kind", "internal"),
        status=members.get("status", STATUS_UNSET),
        status_message=members.get("status_message", ""),
        events=tuple(
            SpanEvent(name=event["name"], at_us=event["at_us"], attributes=event["attributes"])
            for event in members.get("events", ())
        ),
    )
