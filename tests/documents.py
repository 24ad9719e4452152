"""The fenced blocks of README and guide, as tests read them.

What follows the language on a block's first line says what the block is:

    sh                     runs on a cluster of `berth up`; a `text` or `json` block behind it is its output
    sh not run: WHY        does not run; the `berth` commands in it are checked all the same
    yaml FILE, python FILE the contents of that file
    yaml part of a request fields of a request document
    python                 runs on the same cluster, with `await`; the blocks of a page share their names
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

FENCE = re.compile(r"^```(?P<info>.*)$")
NOT_RUN = "not run: "
PART_OF_A_REQUEST = "part of a request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """`about`: what stands behind the language; `line`: where the block begins."""

    page: Path
    line: int
    language: str
    about: str
    text: str

    @property
    def is_run(self) -> bool:
        return self.language == "sh" and not self.about.startswith(NOT_RUN)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages(repository: Path) -> list[Path]:
    """README and the guide, relative to the repository."""
    return [
        Path("README.md"),
        *sorted(path.relative_to(repository) for path in (repository / "docs/guide").glob("*.md")),
    ]


def blocks(repository: Path, page: Path) -> list[Block]:
    """In order of the page."""
    found: list[Block] = []
    began, info = 0, ""
    lines = (repository / page).read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        fence = FENCE.match(line)
        if fence is None:
            continue
        if not began:
            began, info = number, fence["info"]
            continue
        language, _, about = info.partition(" ")
        text = "\n".join(lines[began : number - 1]) + "\n"
        found.append(Block(page=page, line=began, language=language, about=about, text=text))
        began = 0
    assert not began, f"{page}:{began} is never closed"
    return found


def every_block(repository: Path) -> list[Block]:
    return [block for page in pages(repository) for block in blocks(repository, page)]


def with_outputs(found: list[Block]) -> Iterator[tuple[Block, Block | None]]:
    """Each block, with the `text` or `json` block that shows what it prints."""
    for block, after in zip(found, [*found[1:], None], strict=True):
        is_output = after is not None and after.language in ("text", "json") and block.language == "sh"
        yield block, after if is_output else None


# --- what is shown and what comes out ---------------------------------------------------------------------------

NUMBERS = re.compile(r"\d[\w.:-]*")
DRAWN = re.compile(r"[▏▎▍▌▋▊▉█]")
EXACT = "exit code"


def unlike(shown: str, printed: str) -> str | None:
    """The first line of `shown` that is not in `printed`, in order; numbers, widths and bars may differ."""
    lines = iter(printed.splitlines())
    for line in shown.splitlines():
        if not any(_plain(line) in _plain(candidate) for candidate in lines):
            return line
    return None


def _plain(line: str) -> str:
    spaced = " ".join(DRAWN.sub(" ", line).split())
    return spaced if spaced.startswith(EXACT) else NUMBERS.sub("#", spaced)


DATA_KEYS = frozenset(
    {
        "ahead_because",
        "attributes",
        "available",
        "borrowed",
        "borrowed_from",
        "burst",
        "capacity",
        "data",
        "extended",
        "formula",
        "grace_ends",
        "guaranteed",
        "hard",
        "keys",
        "labels",
        "lent_to",
        "soft",
        "used",
    }
)
"""Members whose own keys are data: dimensions, labels, names."""


def misshapen(shown: Any, found: Any, path: str = "$") -> str | None:
    """Where `found` has another shape than `shown`; None when it has the same.

    The shape is the members of objects and the types of values. Null fits anything. Each element of a list must
    have the shape of one of those that are shown.
    """
    if shown is None or found is None:
        return None
    if isinstance(shown, dict) and isinstance(found, dict):
        return _misshapen_object(cast("dict[str, Any]", shown), cast("dict[str, Any]", found), path)
    if isinstance(shown, list) and isinstance(found, list):
        return _misshapen_list(cast("list[Any]", shown), cast("list[Any]", found), path)
    same = _kind(cast("object", shown)) == _kind(cast("object", found))
    return None if same else f"{path} is {found!r}, the page shows {shown!r}"


def _kind(value: object) -> str:
    """A float that is whole is written like an integer."""
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def _misshapen_object(shown: dict[str, Any], found: dict[str, Any], path: str) -> str | None:
    if path.rpartition(".")[2] in DATA_KEYS:
        return None
    if shown.keys() != found.keys():
        missing, more = sorted(shown.keys() - found.keys()), sorted(found.keys() - shown.keys())
        return f"{path} lacks {missing} and has {more} more"
    return next((why for key in shown if (why := misshapen(shown[key], found[key], f"{path}.{key}"))), None)


def _misshapen_list(shown: list[Any], found: list[Any], path: str) -> str | None:
    for place, element in enumerate(found):
        whys = [misshapen(one, element, f"{path}[{place}]") for one in shown]
        if whys and all(whys):
            return whys[0]
    return None
