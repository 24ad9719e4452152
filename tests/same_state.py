"""Whether two states hold the same, everything that follows from what was folded included."""

# It looks into whatever there is, so the types of what it finds are not known:
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

from typing import Any

from berth.model.ledger import State
from berth.model.tables import Table
from berth.resources import NOTHING

_PASSING = frozenset(
    {
        "state.journal",
        "state.quotas.page",
        "state.quotas.at",
        "state.reservations.pages",
        "state.queue.pages",
        "state.census",
    }
)
"""Not state: made again by whoever wants it, or said anew with every transaction."""


def held(state: State) -> dict[str, Any]:
    """Every table and value of `state` by the path to it; empty rows say nothing."""
    said = {path: _rows(value) if _is_table(value) else value for path, value in _parts("state", state)}
    return {path: value for path, value in said.items() if value != {}}


def _rows(table: Any) -> dict[Any, Any]:
    return {key: row for key, row in table.items() if row not in (NOTHING, 0)}


def tables(state: State) -> dict[str, int]:
    """The path to every table, and which object it is."""
    return {path: id(value) for path, value in _parts("state", state) if _is_table(value)}


def _parts(path: str, whole: Any) -> list[tuple[str, Any]]:
    """Whatever stands in a part of the model, or in a dictionary that is no table, down to the tables."""
    found: list[tuple[str, Any]] = []
    for name, value in _members(whole).items():
        below = f"{path}.{name}"
        if below in _PASSING or name in ("_journal", "_counted"):
            continue
        if _is_dictionary(value) or _is_part(value):
            found += _parts(below, value)
        else:
            found.append((below, value))
    return found


def _members(whole: Any) -> dict[str, Any]:
    if _is_dictionary(whole):
        return whole
    return vars(whole)


def _is_part(value: object) -> bool:
    return type(value).__module__.startswith("berth.model.") and hasattr(value, "__dict__") and not _is_table(value)


def _is_dictionary(value: object) -> bool:
    return type(value) is dict


def _is_table(value: object) -> bool:
    return isinstance(value, Table)


def assert_same(one: State, other: State) -> None:
    """Raises:
    AssertionError: I12, with the place where they differ.
    """
    mine, its = held(one), held(other)
    assert mine.keys() == its.keys(), f"I12: only one of them has {mine.keys() ^ its.keys()}"
    for path, value in mine.items():
        assert value == its[path], f"I12: {path} is {value!r} and {its[path]!r}"
    assert one.digests() == other.digests()
