"""`berth reservation create|list|show|extend|shrink|skip|cancel`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from berth.client import Refused
from berth.errors import InvalidCommand, NotFound, Problem
from berth.messages.documents import RESERVATION, time_text
from berth_cli.connection import on, split_id
from berth_cli.context import Target, on_cluster
from berth_cli.documents import read_as
from berth_cli.output import note, print_json, print_lines, table
from berth_cli.timeline import FILLS, Bar, timeline

app = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="RESERVATION")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="The new end, as 2026-01-01T11:00:00Z.")]
By = Annotated[int | None, typer.Option("--by", metavar="SECONDS", help="How much later, or earlier, it ends.")]
Count = Annotated[int | None, typer.Option("--count", min=1, help="How many units it has from now on.")]


@app.command("create")
@on_cluster
def create(
    target: Target, file: Annotated[str, typer.Argument(metavar="FILE", help="One reservation; - is stdin.")]
) -> None:
    """Book capacity for a window; answered when it is held, or why it cannot be and what would work."""
    document = read_as(RESERVATION, file, root="reservation")
    try:
        answer = on(target, lambda cluster: cluster.reserve(document))
    except Refused as error:
        if target.as_json:
            print_json({"refused": _refusal(error)})
        raise
    _tell(target, answer.reservation)


def _refusal(error: Refused) -> dict[str, Any]:
    start = error.refusal.earliest_start
    return {
        "code": error.code,
        "detail": error.refusal.detail,
        "earliest_start": None if start is None else time_text(start),
        "in_the_way": list(error.refusal.in_the_way),
    }


def _tell(target: Target, row: dict[str, Any] | None) -> None:
    if target.as_json:
        print_json(row)
    elif row is not None:
        print_lines(_line(row))


def _line(row: dict[str, Any]) -> str:
    nodes = ", ".join(_where(one) for one in row["held"]) or "no node"
    missing = f" ({row['missing']} units missing: {_because(row)})" if row["missing"] else ""
    window = f"{row['start']} to {row['end']}"
    return f"{row['namespace']}/{row['id']} {row['state']} on {nodes}{missing}, {window}"


def _because(row: dict[str, Any]) -> str:
    because = row["because"]
    if because is None:
        return "no room"
    names = " ".join(because["names"])
    return f"{because['cause']} {names}".strip()


def _where(one: dict[str, Any]) -> str:
    return str(one["node"]) if one["count"] == 1 else f"{one['node']} x{one['count']}"


@app.command("list")
@on_cluster
def list_reservations(
    target: Target,
    everything: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
) -> None:
    """Every reservation that is not over, and when."""
    rows = on(target, lambda cluster: cluster.query("reservations", everything=everything))
    if target.as_json:
        print_json(rows)
        return
    shown = [
        (
            row["namespace"],
            row["id"],
            row["state"],
            row["start"],
            row["end"],
            ", ".join(_where(one) for one in row["held"]),
            f"{row['missing']} ({_because(row)})" if row["missing"] else 0,
            row["priority"],
        )
        for row in rows
    ]
    print_lines(*table(("namespace", "id", "state", "start", "end", "nodes", "missing", "priority"), shown))
    bars = timeline([_bar(row) for row in rows if row["state"] in FILLS], datetime.now(UTC))
    print_lines(*(["", *bars] if bars else []))


def _bar(row: dict[str, Any]) -> Bar:
    return Bar(name=row["id"], state=row["state"], start=_moment(row["start"]), end=_moment(row["end"]))


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@app.command("show")
@on_cluster
def show(target: Target, name: Name) -> None:
    """One reservation and its use: used, free, and what is charged to its namespace."""
    row = _find(target, name)
    if target.as_json:
        print_json(row)
    else:
        print_lines(*(f"{field}: {value}" for field, value in row.items()))


@app.command("extend")
@on_cluster
def extend(target: Target, name: Name, until: Until = None, by: By = None, count: Count = None) -> None:
    """A later end, more units, or both; refused with how far it may go."""
    row = _find(target, name)
    end = _new_end(row, until, by, 1)
    answer = on(target, lambda cluster: cluster.extend_reservation(row["namespace"], row["id"], end=end, count=count))
    _tell(target, answer.reservation)


@app.command("shrink")
@on_cluster
def shrink(target: Target, name: Name, until: Until = None, by: By = None, count: Count = None) -> None:
    """An earlier end, fewer units, or both; never less than what is drawn."""
    row = _find(target, name)
    end = _new_end(row, until, by, -1)
    answer = on(target, lambda cluster: cluster.shrink_reservation(row["namespace"], row["id"], end=end, count=count))
    _tell(target, answer.reservation)


def _new_end(row: dict[str, Any], until: str | None, by: int | None, direction: int) -> datetime | None:
    """As a moment, so that sending it again changes nothing more."""
    if until is None:
        return None if by is None else _moment(row["end"]) + timedelta(seconds=direction * by)
    try:
        moment = _moment(until)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidCommand(
            [Problem(path="--until", expected=f"expected a time such as {row['end']}, found {until!r}")]
        )
    return moment


@app.command("skip")
@on_cluster
def skip(target: Target, name: Name) -> None:
    """Leave out the coming occurrence of a series; the one after it is booked instead."""
    row = _find(target, name)
    answer = on(target, lambda cluster: cluster.skip_reservation(row["namespace"], row["id"]))
    if target.as_json:
        print_json(answer.reservation)
        return
    following = answer.reservation["next"] if answer.reservation else None
    note(f"skipped {row['namespace']}/{row['id']}; next comes {following or 'none'}")


@app.command("cancel")
@on_cluster
def cancel(
    target: Target,
    name: Name,
    evict: Annotated[bool, typer.Option("--evict", help="Also while work draws on it: that is evicted.")] = False,
) -> None:
    """End it, and its series: a held one is cancelled, an active one is released unless it is in use."""
    row = _find(target, name)
    answer = on(target, lambda cluster: cluster.cancel_reservation(row["namespace"], row["id"], evict=evict))
    if target.as_json:
        print_json(answer.reservation)
    else:
        note(f"cancelled {row['namespace']}/{row['id']}")


def _find(target: Target, name: str) -> dict[str, Any]:
    """The reservation of that name; of a series its open one, if the one that has its name is over."""
    _, identity = split_id(name)
    rows = on(target, lambda cluster: cluster.query("reservations", ids=(identity,)))
    if not rows:
        raise NotFound(f"no reservation {name}", hint="`berth reservation list` lists them")
    following = rows[0]["next"]
    return rows[0] if following is None else _find(target, following)
