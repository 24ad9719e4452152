"""Requests that differ in nothing but their id are read once: the others are copies under another name.

Most requests of a namespace are alike, and every process reads each of them. What follows from the shape (its
charge, its body but for the id) is found once too, and shared. A document's bytes say whether it is alike, so
`1` and `1.0` are told apart; what is not alike is validated in full.
"""

from typing import Any, cast

import orjson

from berth.ids import RequestId, is_name
from berth.messages.requests import Request

SHAPES_MAX = 4_096
"""Shapes that are remembered; when there are more, remembering begins again."""


class Alike:
    """Requests in one spelling, one of each shape."""

    def __init__(self) -> None:
        self._shapes: dict[bytes, Request] = {}

    def known(self, document: Any) -> Request | None:
        """The request that `document` (parsed JSON) writes, where an earlier one was alike."""
        name, shape = _parts(document)
        found = self._shapes.get(shape)
        return None if found is None else found.renamed(name)

    def all_known(self, documents: Any) -> list[Request] | None:
        """The requests that a list of documents writes, where each is alike an earlier one; else None."""
        if type(documents) is not list:
            return None
        found: list[Request] = []
        for document in cast("list[Any]", documents):
            request = self.known(document)
            if request is None:
                return None
            found.append(request)
        return found

    def remember(self, document: Any, request: Request) -> None:
        """`request` was read from `document`."""
        _, shape = _parts(document)
        if not shape:
            return
        if len(self._shapes) >= SHAPES_MAX:
            self._shapes.clear()
        self._shapes[shape] = request.prepared()

    def remember_all(self, documents: list[Any], requests: list[Request]) -> None:
        """Each request was read from the document at its place."""
        for document, request in zip(documents, requests, strict=True):
            self.remember(document, request)


def _parts(document: Any) -> tuple[RequestId, bytes]:
    """Its id and the bytes of the rest; nothing of either where the id is no name."""
    if type(document) is dict:
        members = cast("dict[str, Any]", document).copy()
        name = members.pop("id", None)
        if type(name) is str and is_name(name):
            return RequestId(name), orjson.dumps(members)
    return RequestId(""), b""
