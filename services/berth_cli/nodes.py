"""`berth nodes list|show|cordon|uncordon|drain`."""

from typing import Annotated, Any

import typer

from berth.errors import NotFound
from berth.ids import NodeId
from berth.messages.node_commands import SetNode
from berth_cli.connection import on
from berth_cli.context import Target, on_cluster
from berth_cli.output import note, print_json, print_lines, table

app = typer.Typer()

Node = Annotated[str, typer.Argument(metavar="NODE")]


@app.command("list")
@on_cluster
def list_nodes(target: Target) -> None:
    """Every node with its state and use."""
    rows = on(target, lambda cluster: cluster.query("nodes"))
    if target.as_json:
        print_json(rows)
        return
    shown = [
        (
            row["id"],
            row["state"],
            "yes" if row["schedulable"] else "no",
            _part(row, "cpu_millicores"),
            _part(row, "ram_mb"),
            _part(row, "instances"),
            " ".join(f"{key}={value}" for key, value in sorted(row["labels"].items())),
        )
        for row in rows
    ]
    print_lines(*table(("node", "state", "schedulable", "cpu", "ram", "instances", "labels"), shown))


def _part(row: dict[str, Any], dimension: str) -> str:
    return f"{row['used'].get(dimension, 0)}/{row['capacity'].get(dimension, 0)}"


@app.command("show")
@on_cluster
def show(target: Target, node: Node) -> None:
    """One node, whole."""
    rows = on(target, lambda cluster: cluster.query("nodes", ids=(node,)))
    if not rows:
        raise NotFound(f"no node {node}", hint="`berth nodes list` lists them")
    if target.as_json:
        print_json(rows[0])
    else:
        print_lines(*(f"{name}: {value}" for name, value in rows[0].items()))


@app.command("cordon")
@on_cluster
def cordon(target: Target, node: Node) -> None:
    """Nothing new is placed there; what runs stays."""
    _set(target, SetNode(node=NodeId(node), schedulable=False), "cordoned")


@app.command("uncordon")
@on_cluster
def uncordon(target: Target, node: Node) -> None:
    """Take new work again; ends a drain."""
    _set(target, SetNode(node=NodeId(node), schedulable=True, draining=False), "uncordoned")


@app.command("drain")
@on_cluster
def drain(target: Target, node: Node) -> None:
    """Move away what runs there, and take nothing new."""
    _set(target, SetNode(node=NodeId(node), schedulable=False, draining=True), "draining")


def _set(target: Target, command: SetNode, done: str) -> None:
    answer = on(target, lambda cluster: cluster.set_node(command), role="admin")
    if target.as_json:
        print_json({"version": 1, "node": command.node, "sequence": answer.sequence})
    else:
        note(f"{command.node} {done}")
