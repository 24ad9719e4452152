"""How values are written on the pages."""

import re
from hashlib import blake2b
from typing import Any

import orjson

from berth.messages.documents import time_text
from berth_console.waterfall import duration_text

VALUE_CHARACTERS_MAX = 2_000

SERVICES = ("client", "quota", "scheduler", "raft", "reservation", "console", "agent", "cli")
"""Berth's own, each with its colour in the style sheet (`service-0` …)."""

COLOURS = 12


def colour_of(service: str) -> int:
    """The number of a service's colour, the same on every page; a stranger gets one of the rest by its name."""
    name = re.sub(r"-[0-9]+$", "", service.removeprefix("berth-"))
    if name in SERVICES:
        return SERVICES.index(name)
    return len(SERVICES) + blake2b(service.encode(errors="replace")).digest()[0] % (COLOURS - len(SERVICES))


def time_us(microseconds: int) -> str:
    """RFC 3339 to the millisecond; a time that no calendar has is written as its number."""
    try:
        return time_text(microseconds // 1000)
    except (OverflowError, ValueError, OSError):
        return f"{microseconds} µs"


def value_text(value: Any) -> str:
    """An attribute's value; a very long one is cut."""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    if len(text) <= VALUE_CHARACTERS_MAX:
        return text
    return f"{text[:VALUE_CHARACTERS_MAX]}… ({len(text)} characters; the JSON has all)"


FILTERS: dict[str, Any] = {
    "colour": colour_of,
    "duration": duration_text,
    "time_ms": time_text,
    "time_us": time_us,
    "value": value_text,
}
