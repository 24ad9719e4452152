"""`berth top`: how full the cluster is, and how much of what is free no recent request shape can use."""

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from berth.model.fragmentation import EACH_NODE, Usage, group_of, grouped, total, usage_row
from berth.resources import Resources, resources
from berth_cli.connection import on
from berth_cli.context import Target, on_cluster
from berth_cli.output import print_json, print_lines, table

app = typer.Typer()


@app.command("top")
@on_cluster
def top(target: Target, by: Annotated[str, typer.Option("--by", help="A node label to group by.")] = EACH_NODE) -> None:
    """How full and how fragmented the cluster is; the part in brackets is free, but no recent shape can use it."""
    told = described(on(target, lambda cluster: cluster.query("usage")), by)
    if target.as_json:
        print_json(told)
    else:
        print_lines(*lines(told))


def described(rows: Iterable[dict[str, Any]], by: str) -> dict[str, Any]:
    """The whole cluster, and each group of nodes that have the same value of the label `by`; "" are those without."""
    usages = [(group_of(row["labels"], row["id"], by), _usage(row)) for row in rows]
    return {
        "version": 1,
        "by": by,
        "cluster": usage_row("", total(usage for _, usage in usages)),
        "groups": [usage_row(name, usage) for name, usage in grouped(usages).items()],
    }


def _usage(row: dict[str, Any]) -> Usage:
    return Usage(1, *(_vector(row[name]) for name in ("capacity", "used", "free", "stranded")))


def _vector(written: dict[str, Any]) -> Resources:
    """As `Resources.as_mapping` writes it."""
    return resources(
        {name: amount for name, amount in written.items() if name != "extended"} | written.get("extended", {})
    )


def lines(told: dict[str, Any]) -> list[str]:
    """A line a group, the whole cluster last."""
    return usage_lines(told["by"], [*told["groups"], {**told["cluster"], "group": "all"}])


def usage_lines(by: str, rows: list[dict[str, Any]]) -> list[str]:
    """A line a row: of each dimension what is used, and in brackets what of the rest is stranded."""
    dimensions = list(dict.fromkeys(name for row in rows for name in row["utilization"]))
    shown = [(row["group"] or "-", row["nodes"], *_parts(row, dimensions)) for row in rows]
    return table((by, "nodes", *dimensions), shown)


def _parts(row: dict[str, Any], dimensions: Iterable[str]) -> list[str]:
    return [
        f"{100 * row['utilization'].get(name, 0.0):.0f} % ({100 * row['fragmentation'].get(name, 0.0):.0f} %)"
        for name in dimensions
    ]
