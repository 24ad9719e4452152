"""Quotas for people: limits and use as a table, the formula in numbers, who lent what to whom."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from berth_cli.output import table

Row = Mapping[str, Any]
Amounts = Mapping[str, Any]
COLUMNS = ("soft", "hard", "used", "guaranteed", "borrowed", "burst", "available")


def shown(row: Row) -> list[str]:
    """One namespace's limits and use, a line a dimension; what its explanation adds follows below."""
    lines = [_headline(row)]
    rows = [(dimension, *(_cell(row, column, dimension) for column in COLUMNS)) for dimension in _dimensions(row)]
    lines += [f"  {line}" for line in table(("", *COLUMNS), rows)]
    for dimension, formula in row.get("formula", {}).items():
        lines.append(f"  {dimension}: {formula}")
    if "levels" in row:
        lines += [f"  {line}" for line in _tree(row)]
    return lines


def _headline(row: Row) -> str:
    parts = [f"cohort {row['cohort']}"] if row.get("cohort") else []
    if not row["hard"] and not row["soft"]:
        parts.append("unlimited")
    if row.get("burst_percent"):
        parts.append(f"bursts by {row['burst_percent']} %")
    if row.get("queueing", "best_effort_fifo") != "best_effort_fifo":
        parts.append(row["queueing"])
    if row.get("stop_policy", "none") != "none":
        parts.append(row["stop_policy"])
    return ": ".join([row["namespace"], ", ".join(parts)]) if parts else str(row["namespace"])


def _dimensions(row: Row) -> list[str]:
    """What is limited or used, in the order in which it is available."""
    said = {name for column in ("hard", "soft") for name in row[column]}
    said |= {name for name, amount in row["used"].items() if amount}
    return [name for name in row["available"] if name in said] + sorted(said - set(row["available"]))


def _cell(row: Row, column: str, dimension: str) -> object:
    amounts: Amounts = row[column]
    if column in ("hard", "soft"):
        return amounts.get(dimension)
    if column == "available" and amounts.get(dimension) is None:
        return "no limit"
    return amounts.get(dimension, 0)


def _tree(row: Row) -> Iterator[str]:
    yield from _loans("borrows", "from", row["borrowed_from"])
    yield from _loans("lends", "to", row["lent_to"])
    for dimension, ends in row["grace_ends"].items():
        yield f"above soft in {dimension}: its grace ends at {ends}"
    share = row["share"]
    if share["dimension"] is not None:
        permille = "infinite, its weight is 0" if share["permille"] is None else f"{share['permille']} ‰"
        yield f"share {permille}, of {share['dimension']}"
    for level in row["levels"]:
        dimensions = sorted({*level["used"], *level["available"]})
        parts = [f"{name} {level['used'][name]} used, {level['available'][name]} available" for name in dimensions]
        yield f"cohort {level['cohort']}: {'; '.join(parts) or 'nothing is governed'}"


def _loans(verb: str, preposition: str, made: Mapping[str, Amounts]) -> Iterator[str]:
    for other, amounts in made.items():
        yield f"{verb} {spoken(amounts)} {preposition} {other}"


def spoken(amounts: Amounts) -> str:
    """`cpu_millicores 4000, gpu 1`."""
    return ", ".join(f"{dimension} {amount}" for dimension, amount in amounts.items())


def difference_lines(changes: Iterable[Row]) -> list[str]:
    """`quotas.team-a.soft.cpu_millicores: 4000 → 8000`."""
    return [f"{one['path']}: {_value(one['before'])} → {_value(one['after'])}" for one in changes]


def _value(value: object) -> str:
    return "–" if value is None else str(value)
