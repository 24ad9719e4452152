"""`berth nodes list|show|cordon|uncordon|drain|remove`."""

import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from berth.client import Cluster
from berth.messages.commands import AdminAnswer
from berth.messages.node_commands import DRAIN_SECONDS_MAX
from berth_cli.connection import on
from berth_cli.context import Target, on_cluster
from berth_cli.node_lines import listed, progress, shown
from berth_cli.output import note, print_json, print_lines

app = typer.Typer()

Node = Annotated[str, typer.Argument(metavar="NODE")]
Deadline = Annotated[
    int | None,
    typer.Option(
        "--deadline",
        metavar="SECONDS",
        min=0,
        max=DRAIN_SECONDS_MAX,
        help="What has no other place by then is evicted.",
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Until nothing is on the node any more.")]
Force = Annotated[bool, typer.Option("--force", help="Evict at once what is still there.")]


@app.command("list")
@on_cluster
def list_nodes(target: Target) -> None:
    """Every node with its state and use."""
    rows = on(target, lambda cluster: cluster.query("nodes"))
    if target.as_json:
        print_json(rows)
    else:
        print_lines(*listed(rows))


@app.command("show")
@on_cluster
def show(target: Target, node: Node) -> None:
    """One node, whole; while it is drained also what is still there, and what that waits for."""
    row = on(target, lambda cluster: cluster.nodes.show(node))
    if target.as_json:
        print_json(row)
    else:
        print_lines(*shown(row))


@app.command("cordon")
@on_cluster
def cordon(target: Target, node: Node) -> None:
    """Nothing new is placed there; what runs stays."""
    _command(target, node, lambda cluster: cluster.nodes.cordon(node), "cordoned")


@app.command("uncordon")
@on_cluster
def uncordon(target: Target, node: Node) -> None:
    """Take new work again; ends a drain."""
    _command(target, node, lambda cluster: cluster.nodes.uncordon(node), "uncordoned")


@app.command("drain")
@on_cluster
def drain(target: Target, node: Node, deadline: Deadline = None, *, wait: Wait = False) -> None:
    """Move away what runs there, and take nothing new. `berth nodes uncordon` ends it."""

    def begun(cluster: Cluster) -> Awaitable[AdminAnswer]:
        return cluster.nodes.drain(node, deadline_seconds=deadline)

    async def drained(cluster: Cluster) -> tuple[AdminAnswer, dict[str, Any]]:
        answer = await begun(cluster)
        with DrainProgress(node) as seen:
            return answer, await cluster.nodes.drained(node, told=seen.tell)

    if not wait:
        _command(target, node, begun, "draining")
        return
    answer, row = on(target, drained, role="admin")
    if target.as_json:
        print_json({"version": 1, "node": node, "sequence": answer.sequence, "drain": row["drain"]})
    else:
        note(f"{node} drained: {progress(row['drain'])}")


@app.command("remove")
@on_cluster
def remove(target: Target, node: Node, *, force: Force = False) -> None:
    """Take an empty node out of the cluster for good; it comes back only when its agent is started again."""
    _command(target, node, lambda cluster: cluster.nodes.remove(node, force=force), "removed")


def _command(target: Target, node: str, act: Callable[[Cluster], Awaitable[AdminAnswer]], done: str) -> None:
    answer = on(target, act, role="admin")
    if target.as_json:
        print_json({"version": 1, "node": node, "sequence": answer.sequence})
    else:
        note(f"{node} {done}")


class DrainProgress:
    """On standard error: a bar where that is a terminal, elsewhere a line whenever something has changed."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._said = ""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True)) if sys.stderr.isatty() else None
        self._task = None if self._bar is None else self._bar.add_task(node, total=None)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, row: dict[str, Any]) -> None:
        """One more look at the node."""
        if row["drain"] is None:
            return
        words = progress(row["drain"])
        if self._bar is not None and self._task is not None:
            gone = row["drain"]["moved"] + row["drain"]["evicted"]
            self._bar.update(
                self._task, completed=gone, total=gone + row["drain"]["left"], description=f"{self._node}: {words}"
            )
        elif words != self._said:
            note(f"{self._node}: {words}")
        self._said = words
