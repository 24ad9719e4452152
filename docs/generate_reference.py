"""Writes docs/reference from the code. `make docs` runs it.

A test fails when what is stored differs from what this makes, so the reference is never older than the code.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from docs.generator.asyncapi import asyncapi
from docs.generator.commands import commands
from docs.generator.documents import documents
from docs.generator.messages import events, reasons, subject_tree
from docs.generator.rules import rules
from docs.generator.settings import settings
from docs.generator.telemetry import telemetry_page

FOLDER = Path(__file__).parent / "reference"

PAGES: dict[str, Callable[[], str]] = {
    "asyncapi.json": asyncapi,
    "commands.md": commands,
    "documents.md": documents,
    "events.md": events,
    "reasons.md": reasons,
    "rules.md": rules,
    "settings.md": settings,
    "subjects.md": subject_tree,
    "telemetry.md": telemetry_page,
}


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make())
        print(f"wrote {(FOLDER / name).relative_to(Path.cwd())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
