"""What `berth up` shows in the foreground: the log lines of every process, each with its name before it."""

import threading
from types import TracebackType
from typing import Self, TextIO

from berth_cli.folder import Folder
from berth_cli.log_files import Tail, prefixed

EVERY_SECONDS = 0.1
_WIDTH = 13
_COLOURS = range(31, 37)


def is_news(line: str) -> bool:
    """Whether people watching want it: the bus tells a lot about itself at every start."""
    return " [INF] " not in line


class Display:
    """Shows while its block runs. A thread of its own: a terminal that is held up holds up nothing else."""

    def __init__(self, folder: Folder, stream: TextIO) -> None:
        self._folder = folder
        self._stream = stream
        self._coloured = stream.isatty()
        self._tails: dict[str, Tail] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="display")

    def __enter__(self) -> Self:
        for tail in self._find():
            tail.skip()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._end.wait(EVERY_SECONDS):
            self._show()
        self._show()

    def _find(self) -> list[Tail]:
        """Every log file there is by now."""
        for path in sorted(self._folder.logs.glob("*.log")):
            self._tails.setdefault(path.stem, Tail(name=path.stem, path=path))
        return list(self._tails.values())

    def _show(self) -> None:
        for number, tail in enumerate(self._find()):
            colour = _COLOURS[number % len(_COLOURS)] if self._coloured else None
            for line in filter(is_news, tail.lines()):
                self._stream.write(prefixed(tail.name, line, width=_WIDTH, colour=colour) + "\n")
        self._stream.flush()
