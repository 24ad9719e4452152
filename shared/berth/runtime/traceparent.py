"""W3C trace context as the one string that travels: `00-<32 hex trace id>-<16 hex span id>-<2 hex flags>`.

Plain strings, because most messages are not sampled and must cost nothing. What comes from outside is
checked once, by `accepted`; everything behind it was.
"""

import re
from hashlib import blake2b

_SHAPE = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SAMPLED = frozenset("13579bdf")

HEADER = "traceparent"
EACH_HEADER = "berth-traceparents"
"""One context for each request of a batch, in order, separated by commas; empty where there is none."""


def accepted(text: str | None) -> str | None:
    """`text` if it is a trace context of version 00, else None: a wrong header is no reason to refuse a message."""
    return text if text is not None and _SHAPE.fullmatch(text) else None


def of_headers(headers: dict[str, str]) -> str | None:
    """The trace context that a message carries; names of headers are matched without case (ADR-4)."""
    if not headers:
        return None
    found = headers.get(HEADER)
    if found is None:
        found = next((value for name, value in headers.items() if name.lower() == HEADER), None)
    return accepted(found)


def each_of_headers(headers: dict[str, str]) -> tuple[str | None, ...]:
    """The trace contexts of a batch's requests; () where they have none of their own."""
    text = headers.get(EACH_HEADER)
    return () if text is None else tuple(accepted(one) for one in text.split(","))


def is_sampled(traceparent: str | None) -> bool:
    """Whether spans are wanted; the lowest bit of the flags."""
    return traceparent is not None and traceparent[-1] in _SAMPLED


def trace_id(traceparent: str) -> str:
    return traceparent[3:35]


def span_id(traceparent: str) -> str:
    return traceparent[36:52]


def written(trace: str, span: str) -> str:
    """A sampled context."""
    return f"00-{trace}-{span}-01"


def appended(traceparent: str, sequence: int) -> str:
    """The context of the append that stored, in the record `sequence`, the event that carries `traceparent`.

    The leader copies an event's bytes and cannot put its own span into them, so the append's span id is
    computed from both: whoever folds the record knows the span that it continues.
    """
    computed = blake2b(f"{traceparent[:52]} {sequence}".encode(), digest_size=8).hexdigest()
    return f"{traceparent[:36]}{computed}{traceparent[52:]}"
