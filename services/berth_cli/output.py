"""What commands print: JSON for scripts, aligned columns for people; results on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Iterable, Sequence


def print_json(value: object) -> None:
    """One JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_json_line(value: object) -> None:
    """One JSON object a line, for `--follow`."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_lines(*lines: str) -> None:
    """Results for people."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def note(*lines: str) -> None:
    """Progress and remarks, which are no results."""
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of left-aligned columns under `head`; a cell that is None is shown as `-`."""
    cells = [[str(title).upper() for title in head]]
    cells += [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
