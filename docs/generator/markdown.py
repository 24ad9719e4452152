"""What every page of docs/reference is made of: a heading, tables, the first sentence of a docstring."""

import inspect
import re

MADE_BY = "<!-- Made by `make docs`; edit the code instead. -->"


def page(title: str, introduction: str, lines: list[str]) -> str:
    return "\n".join([f"# {title}", "", MADE_BY, "", introduction, "", *lines, ""])


def table(*rows: tuple[str, ...]) -> list[str]:
    """The first row is the heading."""
    cells = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return [f"| {cells[0]} |", "|" + "---|" * len(rows[0]), *(f"| {row} |" for row in cells[1:])]


def first_sentence(thing: object) -> str:
    """Of a docstring, in one line; empty where the class has none of its own."""
    text = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    return one_line(re.split(r"\n\n|(?<=\.)\s", text)[0])


def one_line(text: str) -> str:
    return " ".join(text.split())
