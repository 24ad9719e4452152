"""`berth submit`, `release`, `requests`, `allocations`."""

import asyncio
from typing import Annotated, Any

import typer

from berth.client import Cluster
from berth.errors import InvalidCommand, InvalidSetting, NotFound, Problem, TimedOut
from berth.messages.decisions import Decision
from berth.messages.events import RequestStatus
from berth.messages.reasons import Reason, ReasonCode, sentence
from berth.messages.requests import Request
from berth.model.contradictions import contradiction
from berth_cli.connection import on, split_id
from berth_cli.context import Target, on_cluster
from berth_cli.documents import read_requests
from berth_cli.output import note, print_json, print_lines, table

app = typer.Typer()

CONFLICT, NOT_PLACED, TIMEOUT = 4, 5, 6
ENOUGH = (
    RequestStatus.PLACED,
    RequestStatus.REJECTED,
    RequestStatus.RELEASED,
    RequestStatus.EXPIRED,
    RequestStatus.EVICTED,
    RequestStatus.LOST,
)


@app.command("submit")
@on_cluster
def submit(
    target: Target,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="YAML or JSON, one request or a list; - is standard input.")
    ],
    wait: Annotated[float | None, typer.Option(help="Seconds to wait until all are placed or rejected.")] = None,
    if_sequence: Annotated[
        int | None,
        typer.Option("--if-sequence", metavar="N", min=0, help="Refuse as conflict what changed after N would decide."),
    ] = None,
) -> None:
    """Submit requests. Without --wait: done once the bus has stored them."""
    requests = read_requests(file)
    for request in requests:
        if (clash := contradiction(request)) is not None:
            note(f"{request.namespace}/{request.id} will wait in vain: {clash}")
    if if_sequence is not None:
        if len(requests) > 1 and wait is None:
            raise InvalidSetting("several requests after one sequence", hint="say --wait: each follows the one before")
        requests = [request.model_copy(update={"if_sequence": if_sequence}) for request in requests]
    if wait is None:
        on(target, lambda cluster: _publish(cluster, requests))
        note(f"stored {len(requests)} request{'s' if len(requests) > 1 else ''}; ask with `berth requests`")
        return
    one_by_one = if_sequence is not None
    decisions = on(target, lambda cluster: _submit(cluster, requests, wait, one_by_one=one_by_one))
    known = [decision for decision in decisions if decision is not None]
    if target.as_json:
        print_json({"version": 1, "decisions": [decision.as_mapping() for decision in known]})
    else:
        print_lines(*(line for decision in known for line in decision_lines(decision)))
    for request, decision in zip(requests, decisions, strict=True):
        if decision is None:
            note(f"{request.namespace}/{request.id}: no decision after {wait:g} s; it may still be decided")
    code = _exit_code(decisions)
    if code:
        raise typer.Exit(code)


async def _publish(cluster: Cluster, requests: list[Request]) -> None:
    await asyncio.gather(*(cluster.publish(request) for request in requests))


async def _submit(cluster: Cluster, requests: list[Request], wait: float, *, one_by_one: bool) -> list[Decision | None]:
    async def one(request: Request) -> Decision | None:
        try:
            return await cluster.submit(request, until=ENOUGH, timeout=wait)
        except TimedOut:
            return None

    if not one_by_one:
        return list(await asyncio.gather(*(one(request) for request in requests)))
    decisions: list[Decision | None] = []
    for request in requests:
        decisions.append(await one(_after(request, decisions[-1] if decisions else None)))
    return decisions


def _after(request: Request, before: Decision | None) -> Request:
    """To be decided on the state that the one before left, if that is known."""
    is_known = before is not None and before.sequence
    return request.model_copy(update={"if_sequence": before.sequence}) if before and is_known else request


def _exit_code(decisions: list[Decision | None]) -> int:
    if any(decision and _is_conflict(decision) for decision in decisions):
        return CONFLICT
    if any(decision is None for decision in decisions):
        return TIMEOUT
    if any(decision and decision.status is not RequestStatus.PLACED for decision in decisions):
        return NOT_PLACED
    return 0


def _is_conflict(decision: Decision) -> bool:
    return any(reason.code is ReasonCode.CONFLICT for reason in decision.reasons)


def decision_lines(decision: Decision) -> list[str]:
    """The answer first, details indented."""
    name = f"{decision.namespace}/{decision.request}"
    if decision.status is RequestStatus.PLACED:
        places = ", ".join(f"{one.id} on {one.node}" for one in decision.allocations)
        lines = [f"{name} placed: {places}"]
        lines += [
            f"  evicted {one.namespace}/{one.allocation} on {one.node} ({one.reason})" for one in decision.evicted
        ]
        return lines
    return [f"{name} {decision.status}", *(f"  {sentence(reason)}{_where(reason)}" for reason in decision.reasons)]


def _where(reason: Reason) -> str:
    return f" on {reason.nodes} node{'s' if reason.nodes != 1 else ''}" if reason.nodes else ""


@app.command("release")
@on_cluster
def release(target: Target, name: Annotated[str, typer.Argument(metavar="ID", help="namespace/id, or id.")]) -> None:
    """Give back what a request holds, or take it out of the queue."""

    async def act(cluster: Cluster) -> str:
        namespace, request = await full_id(cluster, name)
        await cluster.release(namespace, request)
        return f"{namespace}/{request}"

    released = on(target, act)
    if target.as_json:
        print_json({"version": 1, "released": released})
    else:
        note(f"the release of {released} is stored")


async def full_id(cluster: Cluster, text: str) -> tuple[str, str]:
    """Namespace and id.

    Raises:
        NotFound: no such request. InvalidCommand: a bare id that several namespaces have.
    """
    namespace, request = split_id(text)
    rows = await cluster.query("requests", namespace=namespace, ids=(request,))
    if not rows:
        raise NotFound(f"no request {text}", hint="`berth requests` lists them")
    if len(rows) > 1:
        owners = ", ".join(f"{row['namespace']}/{request}" for row in rows)
        raise InvalidCommand([Problem(path=text, expected=f"expected namespace/id, several have that id: {owners}")])
    return rows[0]["namespace"], request


@app.command("requests")
@on_cluster
def requests(
    target: Target,
    names: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="namespace/id, or id.")] = None,
) -> None:
    """Where requests stand: all, or those named."""
    rows = on(target, lambda cluster: _rows(cluster, names or []))
    if target.as_json:
        print_json(rows)
        return
    shown = [
        (
            row["namespace"],
            row["id"],
            row["status"],
            row["attempt"],
            row["queue_position"],
            _behind(row["ahead"]),
            ", ".join(str(reason["code"]) for reason in row["reasons"]) or None,
        )
        for row in rows
    ]
    print_lines(*table(("namespace", "id", "status", "attempt", "position", "after", "reasons"), shown))


def _behind(ahead: list[dict[str, Any]]) -> str | None:
    """Who is directly before it in the queue, and why."""
    return f"{ahead[-1]['namespace']}/{ahead[-1]['id']} ({ahead[-1]['because']})" if ahead else None


async def _rows(cluster: Cluster, names: list[str]) -> list[dict[str, Any]]:
    if not names:
        return await cluster.query("requests")
    rows: list[dict[str, Any]] = []
    for name in names:
        namespace, request = split_id(name)
        found = await cluster.query("requests", namespace=namespace, ids=(request,))
        if not found:
            raise NotFound(f"no request {name}", hint="`berth requests` lists them")
        rows += found
    return rows


@app.command("allocations")
@on_cluster
def allocations(
    target: Target,
    every: Annotated[bool, typer.Option("--all", help="Also those that ended.")] = False,
) -> None:
    """What runs where."""
    rows = on(target, lambda cluster: cluster.query("allocations", everything=every))
    if target.as_json:
        print_json(rows)
        return
    shown = [(row["namespace"], row["id"], row["node"], row["state"], _spoken(row["resources"])) for row in rows]
    print_lines(*table(("namespace", "id", "node", "state", "resources"), shown))


def _spoken(resources: dict[str, Any]) -> str:
    return " ".join(f"{name}={amount}" for name, amount in resources.items() if amount)
