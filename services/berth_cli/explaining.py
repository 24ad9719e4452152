"""`berth explain` and `berth trace`: why a request stands where it stands, and what happened to it."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from berth.client import Cluster
from berth.errors import NotFound
from berth.messages.decisions import Decision
from berth_cli.connection import on
from berth_cli.context import Target, on_cluster
from berth_cli.output import print_json, print_lines
from berth_cli.planning import node_lines
from berth_cli.requests import decision_lines, full_id
from berth_console.spans import span_from
from berth_console.waterfall import text_waterfall

app = typer.Typer()

TRACE_WITHIN_S = 10.0
"""Spans leave every service by itself, a little after the work: a trace asked for at once is waited for this long."""

NO_SPAN_WITHIN_S = 5.0
"""The same while not one span is there: the request may not have been sampled."""

TRACE_ID = re.compile(r"[0-9a-f]{32}")
Id = Annotated[str, typer.Argument(metavar="ID", help="namespace/id, or id.")]


@app.command("explain")
@on_cluster
def explain(target: Target, name: Id) -> None:
    """Why the request is where it is, and why not on every other node."""

    async def act(cluster: Cluster) -> dict[str, Any]:
        namespace, request = await full_id(cluster, name)
        return (await cluster.query("explain", namespace=namespace, ids=(request,)))[0]

    answer = on(target, act)
    if target.as_json:
        print_json(answer)
        return
    print_lines(*decision_lines(Decision.model_validate(answer)))
    if answer.get("nodes"):
        print_lines(*(f"  {line}" for line in node_lines(answer["nodes"])))
    if answer.get("change"):
        print_lines(f"Next: {answer['change']['sentence']}")


@app.command("trace")
@on_cluster
def trace(target: Target, name: Id) -> None:
    """The request's way through all services, as one trace. A trace id does as well."""

    async def act(cluster: Cluster) -> list[dict[str, Any]]:
        if TRACE_ID.fullmatch(name):
            return await cluster.query("trace", ids=(name,))
        namespace, request = await full_id(cluster, name)
        spans = await arrived(lambda: cluster.query("trace", namespace=namespace, ids=(request,)))
        if not spans:
            raise NotFound(
                f"no trace of {namespace}/{request}", hint="it was not sampled, or is older than what the console keeps"
            )
        return spans

    spans = on(target, act)
    if target.as_json:
        print_json(spans)
        return
    print_lines(*text_waterfall([span_from(span) for span in spans]))


async def arrived(read: Callable[[], Awaitable[list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """The spans of a trace once no service's are missing any more, or as far as they came in time."""
    asked = time.time()
    while True:
        spans = await read()
        waited = time.time() - asked
        if is_whole(spans) or waited > (TRACE_WITHIN_S if spans else NO_SPAN_WITHIN_S):
            return spans
        if spans and asked - max(span["start_us"] for span in spans) / 1e6 > TRACE_WITHIN_S:
            return spans
        await asyncio.sleep(0.1)


def is_whole(spans: list[dict[str, Any]]) -> bool:
    """Whether the trace reaches the ledger and the parent of every span is there."""
    known = {span["span_id"] for span in spans}
    appended = any(span["name"].startswith("append") for span in spans)
    return appended and all(span["parent"] is None or span["parent"] in known for span in spans)
