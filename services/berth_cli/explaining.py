"""`berth explain` and `berth trace`: why a request stands where it stands, and what happened to it."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from berth.client import Cluster
from berth.errors import InvalidCommand, NotFound, Problem
from berth.messages.decisions import Decision
from berth_cli.connection import on, split_id
from berth_cli.context import Target, on_cluster
from berth_cli.ledger import state_at
from berth_cli.output import print_json, print_lines, table
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
def explain(
    target: Target,
    name: Id,
    at: Annotated[
        int | None, typer.Option("--at", metavar="SEQ", min=1, help="As it was after this record; needs an admin key.")
    ] = None,
) -> None:
    """Why the request is where it is, why not on every other node, and the smallest change that would help."""
    answer = _explained(target, name) if at is None else asyncio.run(_explained_at(target, name, at))
    if target.as_json:
        print_json(answer)
        return
    print_lines(*decision_lines(Decision.model_validate(answer)))
    if answer.get("nodes"):
        print_lines(*(f"  {line}" for line in node_lines(answer["nodes"])))
        counts = {"feasible": answer["feasible"], **answer["counts"]}
        spoken = ", ".join(f"{count} {what}" for what, count in counts.items())
        print_lines(f"{answer['examined']} nodes: {spoken}")
    if answer.get("best"):
        print_lines(*(f"  {line}" for line in score_lines(answer["best"])))
    if answer.get("queue_position") is not None:
        ahead = ", ".join(f"{count} by {why}" for why, count in answer["ahead_because"].items())
        print_lines(f"  position {answer['queue_position']} in the queue; ahead: {ahead or 'nobody'}")
    for made in answer.get("promises", ()):
        cause = "" if made["cause"] is None else f", because of {made['cause']}"
        start = "no start any more" if made["start"] is None else f"a start by {made['start']}"
        print_lines(f"  promised at {made['sequence']}: {start}{cause}")
    if answer.get("change"):
        print_lines(f"Next: {answer['change']['sentence']}")


def _explained(target: Target, name: str) -> dict[str, Any]:
    """On the state as it is."""

    async def act(cluster: Cluster) -> dict[str, Any]:
        namespace, request = await full_id(cluster, name)
        return await cluster.explain(namespace, request)

    return on(target, act)


async def _explained_at(target: Target, name: str, sequence: int) -> dict[str, Any]:
    """On a state of the past, which is stamped into the answer as `explained_at`."""
    from berth_cell.explain import explain  # the services themselves: only this command needs them

    state = await state_at(target, sequence)
    namespace, request = split_id(name)
    keys = [key for key in state.queue.requests if key[1] == request and namespace in (None, key[0])]
    if not keys:
        raise NotFound(f"at {sequence} there is no request {name}", hint="`berth events` shows when it came")
    if len(keys) > 1:
        raise InvalidCommand([Problem(path="ID", expected=f"expected a namespace: {sorted(map('/'.join, keys))}")])
    return {**explain(state, keys[0], at_ms=state.at), "explained_at": state.sequence}


def score_lines(best: list[dict[str, Any]]) -> list[str]:
    """The best nodes: the final score, and what each scorer said with which weight."""
    names = list(dict.fromkeys(name for one in best for name in one["parts"]))
    rows = [(one["node"], one["score"], *(one["parts"].get(name, {}).get("score") for name in names)) for one in best]
    weights = {name: part["weight"] for one in best for name, part in one["parts"].items()}
    return table(("best", "score", *(f"{name} x{weights[name]}" for name in names)), rows)


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
