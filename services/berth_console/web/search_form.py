"""From the query string of /traces to a search, and back to a permalink."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from berth.errors import InvalidCommand, Problem
from berth_console.traces import TraceSearch

LIMIT_DEFAULT = 50
LIMIT_MAX = 500

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(us|µs|μs|ms|s)?")  # both micro signs
_UNIT_US = {"us": 1, "µs": 1, "μs": 1, "ms": 1_000, "s": 1_000_000, None: 1_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchForm:
    """The fields as they were written, so that the form shows them again."""

    request: str = ""
    namespace: str = ""
    service: str = ""
    min_duration: str = ""
    error: bool = False
    before: str = ""
    limit: str = ""

    def search(self) -> TraceSearch:
        """What to look for.

        Raises:
            InvalidCommand: a field that cannot be read, with what was expected.
        """
        return TraceSearch(
            request=self.request or None,
            namespace=self.namespace or None,
            service=self.service or None,
            min_duration_us=_duration_us(self.min_duration),
            error=self.error,
            before_us=_whole("before", self.before, most=2**62) if self.before else None,
            limit=_whole("limit", self.limit, most=LIMIT_MAX) if self.limit else LIMIT_DEFAULT,
        )

    def permalink(self, **changed: Any) -> str:
        """`/traces?…` with only what is said, some of it `changed`."""
        said = {
            "request": self.request,
            "namespace": self.namespace,
            "service": self.service,
            "min_duration": self.min_duration,
            "error": "1" if self.error else "",
            "before": self.before,
            "limit": self.limit,
            **changed,
        }
        query = urlencode({name: value for name, value in said.items() if value})
        return f"/traces?{query}" if query else "/traces"


def form_from(query: Mapping[str, str]) -> SearchForm:
    """The form that `query` fills; fields it does not know are ignored."""
    text = {name: query.get(name, "").strip() for name in ("request", "namespace", "service", "min_duration")}
    return SearchForm(
        **text,
        error=query.get("error", "") not in ("", "0", "false"),
        before=query.get("before", "").strip(),
        limit=query.get("limit", "").strip(),
    )


def _duration_us(written: str) -> int:
    if not written:
        return 0
    match = _DURATION.fullmatch(written)
    if match is None:
        raise InvalidCommand([Problem(path="min_duration", expected="expected a duration such as 250us, 5ms or 1.5s")])
    return int(float(match[1]) * _UNIT_US[match[2]])


def _whole(name: str, written: str, *, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", written) or not 1 <= int(written) <= most:
        raise InvalidCommand([Problem(path=name, expected=f"expected a whole number from 1 to {most}")])
    return int(written)
