"""`berth top`: how full the cluster is, and how much of what is free no recent request shape can use."""

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from berth.model.fragmentation import Usage, spoken, total
from berth.resources import Resources, resources
from berth_cli.connection import on
from berth_cli.context import Target, on_cluster
from berth_cli.output import print_json, print_lines, table

app = typer.Typer()

NODE = "node"
"""What `--by` is when it is not said: each node by itself."""


@app.command("top")
@on_cluster
def top(target: Target, by: Annotated[str, typer.Option("--by", help="A node label to group by.")] = NODE) -> None:
    """How full and how fragmented the cluster is; the part in brackets is free, but no recent shape can use it."""
    told = described(on(target, lambda cluster: cluster.query("usage")), by)
    if target.as_json:
        print_json(told)
    else:
        print_lines(*lines(told))


def described(rows: Iterable[dict[str, Any]], by: str) -> dict[str, Any]:
    """The whole cluster, and each group of nodes that have the same value of the label `by`; "" are those without."""
    groups: dict[str, Usage] = {}
    for row in rows:
        value = row["id"] if by == NODE else row["labels"].get(by, "")
        groups[value] = groups.get(value, Usage()) + _usage(row)
    return {
        "version": 1,
        "by": by,
        "cluster": _row("", total(groups.values())),
        "groups": [_row(value, groups[value]) for value in sorted(groups)],
    }


def _usage(row: dict[str, Any]) -> Usage:
    return Usage(1, *(_vector(row[name]) for name in ("capacity", "used", "free", "stranded")))


def _vector(written: dict[str, Any]) -> Resources:
    """As `Resources.as_mapping` writes it."""
    return resources(
        {name: amount for name, amount in written.items() if name != "extended"} | written.get("extended", {})
    )


def _row(group: str, usage: Usage) -> dict[str, Any]:
    return {
        "group": group,
        "nodes": usage.nodes,
        "capacity": usage.capacity.as_mapping(),
        "used": usage.used.as_mapping(),
        "free": usage.free.as_mapping(),
        "stranded": usage.stranded.as_mapping(),
        "utilization": spoken(usage.utilization()),
        "fragmentation": spoken(usage.fragmentation()),
    }


def lines(told: dict[str, Any]) -> list[str]:
    """A line a group, the whole cluster last; of each dimension what is used, and in brackets what is stranded."""
    whole = told["cluster"]
    dimensions = list(whole["utilization"])
    rows = [(row["group"] or "-", row["nodes"], *_parts(row, dimensions)) for row in told["groups"]]
    return table((told["by"], "nodes", *dimensions), [*rows, ("all", whole["nodes"], *_parts(whole, dimensions))])


def _parts(row: dict[str, Any], dimensions: Iterable[str]) -> list[str]:
    return [
        f"{100 * row['utilization'].get(name, 0.0):.0f} % ({100 * row['fragmentation'].get(name, 0.0):.0f} %)"
        for name in dimensions
    ]
