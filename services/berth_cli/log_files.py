"""The log files of a cluster's processes: kept small, shown with a prefix, quoted when something went wrong.

Each process writes its own file, so that none ever waits for the supervisor; the supervisor only reads.
"""

import contextlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BYTES_MAX = 16 * 1024 * 1024
"""What a file may have before it is moved to `<name>.log.1`; so each process keeps at most twice that."""

_SHOWN_BYTES_MAX = 256 * 1024
_KNOWN = ("at", "level", "process", "logger", "event", "exception", "color_message")


def bound(path: Path) -> None:
    """Keep the file small. It is emptied in place, since its writer goes on appending to it; lines that are
    written between copy and emptying are lost.
    """
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > BYTES_MAX:
            shutil.copyfile(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)


def last_lines(path: Path, count: int = 12) -> list[str]:
    """The end of a log, as people read it; empty when there is none."""
    try:
        with path.open(errors="replace") as file:
            return [as_text(line.rstrip("\n")) for line in deque(file, maxlen=count)]
    except FileNotFoundError:
        return []


def as_text(line: str) -> str:
    """A line of a log for people: one JSON object as time, level, event and fields; anything else as it is."""
    if not line.startswith("{"):
        return line
    try:
        told: dict[str, Any] = json.loads(line)
        head = f"{told['at'][11:23]} {told['level']:<7} {told['event']}"
    except (ValueError, KeyError, TypeError):
        return line
    fields = "".join(f" {name}={_value(value)}" for name, value in told.items() if name not in _KNOWN)
    exception = f"\n{told['exception']}" if "exception" in told else ""
    return head + fields + exception


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(slots=True, kw_only=True)
class Tail:
    """What one process has written since it was asked last. `offset`: how far it was read."""

    name: str
    path: Path
    offset: int = 0
    _unfinished: bytes = field(default=b"")

    def skip(self) -> None:
        """Leave out what is there already: it is of an earlier life."""
        with contextlib.suppress(FileNotFoundError):
            self.offset = self.path.stat().st_size

    def lines(self) -> Iterator[str]:
        """New whole lines, for people. Of more than 256 KiB at once only the end is shown."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return
        if size < self.offset:
            self.offset, self._unfinished = 0, b""
        if size == self.offset:
            return
        with self.path.open("rb") as file:
            file.seek(max(self.offset, size - _SHOWN_BYTES_MAX))
            read = file.read(size - file.tell())
        self.offset = size
        *whole, self._unfinished = (self._unfinished + read).split(b"\n")
        for line in whole:
            yield as_text(line.decode(errors="replace"))


def prefixed(name: str, text: str, *, width: int, colour: int | None = None) -> str:
    """`text` with the name of its process before each line, coloured on a terminal (an ANSI colour 31-36)."""
    label = f"{name:<{width}} |"
    if colour is not None:
        label = f"\x1b[{colour}m{label}\x1b[0m"
    return "\n".join(f"{label} {line}" for line in text.split("\n"))
