"""Log lines: one JSON object a line, or a short line for people; trace ids where a trace is known.

A line is an event with fields: `log.info("noun_pasttense", extra={...})`. The field `traceparent` is
written as `trace_id` and `span_id`; those of a mapping `fields` may have any name, also one that logging
uses itself. The exporter of spans may speak once a minute, no more often.
"""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from berth.runtime import traceparent

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
_TELEMETRY = ("opentelemetry", "urllib3", "requests")
QUIET_SECONDS = 60.0


def configure(process: str, *, style: str = "json", level: str = "info", stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (standard error if None), in `style` json or text."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonLines(process) if style == "json" else TextLines(process))
    handler.addFilter(OnceAMinute())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in (*_TELEMETRY, "asyncio", "nats"):
        logging.getLogger(name).setLevel(logging.WARNING)


class OnceAMinute(logging.Filter):
    """Lets one line a minute of the telemetry libraries through: a dead receiver is not our news."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_TELEMETRY):
            return True
        if record.created < self._next:
            return False
        self._next = record.created + QUIET_SECONDS
        return True


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    more = fields.pop("fields", None)
    if isinstance(more, Mapping):
        fields |= more
    context = fields.pop("traceparent", None)
    if isinstance(context, str):
        fields["trace_id"] = traceparent.trace_id(context)
        fields["span_id"] = traceparent.span_id(context)
    return fields


def _at(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonLines(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextLines(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self._process:<13} {_at(record)[11:23]} {record.levelname.lower():<7} {record.getMessage()}"
        line += _as_words(_fields(record))
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _as_words(fields: Mapping[str, Any]) -> str:
    return "".join(f" {name}={value}" for name, value in fields.items())
