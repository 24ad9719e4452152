"""Pages of an answer: rows in the order of their cursors, at most so many and so many bytes (DESIGN section 2)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

PAGE_BYTES_MAX = 500 * 1024
"""Of the rows; with the rest of the answer a page stays within 512 KiB."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`next`: the cursor after which the next page begins; None at the end."""

    rows: tuple[Row, ...]
    next: str | None


def page(rows: Iterable[tuple[str, Row]], *, limit: int) -> Page:
    """The first page of `rows` (cursor and row, in order); only as many are taken from it as it needs.

    A page holds at least one row, so following `next` always comes to an end.
    """
    assert limit >= 1
    taken: list[Row] = []
    size = 0
    last: str | None = None
    for cursor, row in rows:
        size += len(orjson.dumps(row)) + 1
        if taken and (len(taken) == limit or size > PAGE_BYTES_MAX):
            return Page(rows=tuple(taken), next=last)
        taken.append(row)
        last = cursor
    return Page(rows=tuple(taken), next=None)
