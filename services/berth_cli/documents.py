"""Documents that people write, YAML or JSON, to what the language calls them; problems name file and path.

JSON is read as JSON: the YAML reader is slow. Both end as JSON text, so there is one strict reader.
"""

import sys
from pathlib import Path
from typing import Any, TypeVar

import orjson
from pydantic import TypeAdapter

from berth.errors import InvalidCommand, Problem
from berth.messages.requests import REQUEST_BYTES_MAX, REQUEST_LIST, Request
from berth.messages.validation import parse
from berth.wire.codec import strict_json

T = TypeVar("T")

STDIN = "-"
DOCUMENT_BYTES_MAX = 64 * 1024 * 1024


def read_document(file: str) -> bytes:
    """The document in `file` (`-`: standard input) as JSON text.

    Raises:
        InvalidCommand: no such file, or neither YAML nor JSON; one problem a line with its place.
    """
    name = "standard input" if file == STDIN else file
    try:
        raw = sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
    except OSError as error:
        raise InvalidCommand([Problem(path=name, expected=f"cannot be read: {error.strerror}")]) from None
    if len(raw) > DOCUMENT_BYTES_MAX:
        raise InvalidCommand([Problem(path=name, expected=f"expected at most {DOCUMENT_BYTES_MAX} bytes")])
    if raw.lstrip()[:1] in (b"{", b"["):
        return _json(raw, name)
    return _yaml(raw, name)


def _json(raw: bytes, name: str) -> bytes:
    try:
        strict_json(raw)
    except ValueError as error:
        if raw.lstrip()[:1] == b"[" or b'"' in raw[:100]:
            raise InvalidCommand([Problem(path=name, expected=f"is not JSON: {error}")]) from None
        return _yaml(raw, name)  # a flow mapping such as {a: b} is YAML
    return raw


def _yaml(raw: bytes, name: str) -> bytes:
    import yaml  # slow to import and needed by few commands

    try:
        value: Any = yaml.load(raw, Loader=_strict_loader())  # noqa: S506 - derived from the safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise InvalidCommand([Problem(path=place, expected=f"is not YAML: {error.problem}")]) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidCommand([Problem(path=name, expected=f"is not YAML: {error}".split("\n")[0])]) from None
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise InvalidCommand([Problem(path=name, expected=f"has a value that JSON cannot say: {error}")]) from None


def _strict_loader() -> Any:
    """The safe loader, refusing a key that stands twice in one mapping."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class StrictLoader(base):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    problem = "expected a name as key, found a list or mapping"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
                seen.add(key.value)
            mapping: Any = base.construct_mapping(self, node, deep=deep)
            return mapping

    return StrictLoader


def read_as(adapter: TypeAdapter[T], file: str, *, root: str) -> T:
    """The document in `file`, validated strictly; paths of problems begin with `root`.

    Raises:
        InvalidCommand: as `read_document`, or what does not fit, one problem a line.
    """
    return parse(adapter, read_document(file), root=root)


def read_requests(file: str) -> list[Request]:
    """One request or a list of them, each id once in its namespace, each at most 64 KiB.

    Raises:
        InvalidCommand: as `read_as`.
    """
    body = read_document(file)
    if body.lstrip()[:1] == b"{":
        body = b"[" + body + b"]"
    requests = parse(REQUEST_LIST, body, root="requests")
    if not requests:
        raise InvalidCommand([Problem(path="requests", expected="expected at least one request")])
    found: list[Problem] = []
    first: dict[object, int] = {}
    for place, request in enumerate(requests):
        if first.setdefault(request.key, place) != place:
            expected = f"expected each once, requests[{first[request.key]}] has {request.id!r} already"
            found.append(Problem(path=f"requests[{place}].id", expected=expected))
        size = len(orjson.dumps(request.document()))
        if size > REQUEST_BYTES_MAX:
            found.append(
                Problem(
                    path=f"requests[{place}]", expected=f"expected at most {REQUEST_BYTES_MAX} bytes, it has {size}"
                )
            )
    if found:
        raise InvalidCommand(found)
    return requests
