"""`berth plan`: what would be decided, by the services themselves, offline or on the running cluster's state."""

import time
from typing import Annotated, Any

import typer

from berth.errors import InvalidSetting
from berth.messages.decisions import Decision
from berth.messages.documents import CLUSTER
from berth.messages.events import RequestStatus
from berth.messages.what_if import WHAT_IF
from berth.model.fragmentation import EACH_NODE
from berth_cli.connection import on
from berth_cli.context import Target, on_cluster
from berth_cli.documents import read_as, read_requests
from berth_cli.output import print_json, print_lines, table
from berth_cli.requests import NOT_PLACED, decision_lines
from berth_cli.top import usage_lines

app = typer.Typer()


@app.command("plan")
@on_cluster
def plan(
    target: Target,
    requests: Annotated[
        str | None, typer.Option("--requests", metavar="FILE", help="YAML or JSON: one request or a list; - is stdin.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="FILE", help="The cluster document to plan on, offline.")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Plan on the running cluster's state.")] = False,
    what_if: Annotated[
        str | None, typer.Option("--what-if", metavar="FILE", help="What would be different: nodes, quotas.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="With every node's reasons and score.")] = False,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", metavar="LABEL", help="With the usage afterwards for each value of a node label, or node."
        ),
    ] = None,
    seed: Annotated[str, typer.Option("--seed", help="Varies the strategy random.")] = "",
) -> None:
    """Decide requests in document order on a copy of a cluster; nothing is submitted."""
    if live == (cluster is not None):
        raise InvalidSetting("plan on what?", hint="give either --cluster FILE or --live")
    if requests is None and what_if is None:
        raise InvalidSetting("plan what?", hint="give --requests FILE, or --what-if FILE, or both")
    wanted = [] if requests is None else read_requests(requests)
    other = None if what_if is None else read_as(WHAT_IF, what_if, root="what_if")
    if cluster is not None:
        from berth_cell.plan import plan_document  # the services themselves: only this command needs them

        document = read_as(CLUSTER, cluster, root="cluster")
        now = time.time_ns() // 1_000_000
        answer = plan_document(
            document, wanted, at_ms=now, explain=explain, salt=seed, by=by or EACH_NODE, what_if=other
        ).as_mapping()
    else:
        answer = on(target, lambda running: running.plan(wanted, what_if=other, explain=explain, by=by, seed=seed))
    _show(target, answer, groups=by is not None)
    if any(decision["status"] != RequestStatus.PLACED for decision in _all(answer)):
        raise typer.Exit(NOT_PLACED)


def _all(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Every decision, those of the requests first that a what-if displaces."""
    return [*answer.get("displaced", ()), *answer["decisions"]]


def _show(target: Target, answer: dict[str, Any], *, groups: bool) -> None:
    if target.as_json:
        print_json(answer)
        return
    for decision in _all(answer):
        print_lines(*decision_lines(Decision.model_validate(decision)))
        if decision.get("nodes"):
            print_lines(*(f"  {line}" for line in node_lines(decision["nodes"])))
    for name in ("utilization", "fragmentation"):
        parts = ", ".join(f"{dimension} {100 * part:.1f} %" for dimension, part in answer[name].items())
        print_lines(f"{name} afterwards: {parts}")
    if groups:
        print_lines(*usage_lines(answer["usage"]["by"], answer["usage"]["groups"]))


def node_lines(nodes: list[dict[str, Any]]) -> list[str]:
    """Every node with its score, or why not."""
    rows = [
        (
            verdict["node"],
            verdict["score"] if verdict["feasible"] else None,
            verdict["preferred"],
            "; ".join(
                str(reason["code"]) + (f" ({reason['detail']})" if reason.get("detail") else "")
                for reason in verdict["reasons"]
            )
            or None,
        )
        for verdict in nodes
    ]
    return table(("node", "score", "preferred", "why not"), rows)
