"""`berth reservation create|list|show|cancel`."""

from typing import Annotated, Any

import typer

from berth.errors import NotFound
from berth.messages.documents import RESERVATION, time_text
from berth_cli.connection import on, split_id
from berth_cli.context import Target, on_cluster
from berth_cli.documents import read_as
from berth_cli.output import note, print_json, print_lines, table

app = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="RESERVATION")]


@app.command("create")
@on_cluster
def create(
    target: Target, file: Annotated[str, typer.Argument(metavar="FILE", help="One reservation; - is stdin.")]
) -> None:
    """Book capacity for a window; answered when it is held, or why it cannot be."""
    document = read_as(RESERVATION, file, root="reservation")
    answer = on(target, lambda cluster: cluster.reserve(document))
    if target.as_json:
        print_json(answer.reservation)
    elif answer.reservation is not None:
        print_lines(_line(answer.reservation))


def _line(row: dict[str, Any]) -> str:
    nodes = ", ".join(_where(one) for one in row["nodes"]) or "no node"
    return f"{row['namespace']}/{row['id']} {row['state']} on {nodes}, {_time(row['start'])} to {_time(row['end'])}"


def _where(node: Any) -> str:
    return f"{node['count']} × {node['node']}" if isinstance(node, dict) else str(node)


def _time(value: Any) -> str:
    return time_text(value) if isinstance(value, int) else str(value)


@app.command("list")
@on_cluster
def list_reservations(target: Target) -> None:
    """Every reservation that is known."""
    rows = on(target, lambda cluster: cluster.query("reservations"))
    if target.as_json:
        print_json(rows)
        return
    shown = [
        (
            row["namespace"],
            row["id"],
            row["state"],
            _time(row["start"]),
            _time(row["end"]),
            ", ".join(_where(one) for one in row["nodes"]),
            row["priority"],
        )
        for row in rows
    ]
    print_lines(*table(("namespace", "id", "state", "start", "end", "nodes", "priority"), shown))


@app.command("show")
@on_cluster
def show(target: Target, name: Name) -> None:
    """One reservation and its use."""
    row = _find(target, name)
    if target.as_json:
        print_json(row)
    else:
        print_lines(*(f"{field}: {value}" for field, value in row.items()))


@app.command("cancel")
@on_cluster
def cancel(target: Target, name: Name) -> None:
    """End it: a held one is cancelled, an active one is released unless it is in use."""
    row = _find(target, name)
    answer = on(target, lambda cluster: cluster.cancel_reservation(row["namespace"], row["id"]))
    if target.as_json:
        print_json(answer.reservation)
    else:
        note(f"cancelled {row['namespace']}/{row['id']}")


def _find(target: Target, name: str) -> dict[str, Any]:
    _, identity = split_id(name)
    rows = on(target, lambda cluster: cluster.query("reservations", ids=(identity,)))
    if not rows:
        raise NotFound(f"no reservation {name}", hint="`berth reservation list` lists them")
    return rows[0]
