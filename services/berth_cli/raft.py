"""`berth raft status|transfer|recover`."""

import asyncio
import contextlib
from typing import Annotated

import typer

from berth.client import Cluster
from berth.errors import TimedOut
from berth_cli.connection import on
from berth_cli.context import Target, on_cluster
from berth_cli.output import note, print_json, print_lines, table

app = typer.Typer()

NEW_LEADER_WITHIN_S = 3.0


@app.command("status")
@on_cluster
def status(target: Target) -> None:
    """Who leads, at which term and sequence, and what each member says of itself."""
    found = on(target, lambda cluster: cluster.raft.status())
    if target.as_json:
        print_json(found)
        return
    leader = found["leader"] or "nobody"
    print_lines(f"{leader} leads at term {found['term']}, sequence {found['sequence']} ({found['hash'][:12]})")
    columns = ("id", "role", "term", "mirror_sequence", "last_step_down")
    print_lines(*table(columns, [[member[name] for name in columns] for member in found["members"]]))


@app.command("recover")
@on_cluster
def recover(target: Target) -> None:
    """After all raft nodes have lost their votes (hard state): let them elect again, above the ledger's term."""

    async def act(cluster: Cluster) -> tuple[list[str], str | None]:
        nodes = await cluster.raft.recover()
        with contextlib.suppress(TimeoutError):  # then nobody leads yet, which is what is told
            async with asyncio.timeout(NEW_LEADER_WITHIN_S):
                while (leader := await cluster.raft.leader()) is None:  # noqa: ASYNC110 - nobody tells, so ask
                    await asyncio.sleep(0.05)
                return nodes, leader
        return nodes, None

    nodes, leader = on(target, act, role="admin")
    if target.as_json:
        print_json({"version": 1, "nodes": nodes, "leader": leader})
    else:
        note(f"{', '.join(nodes) or 'nobody'} votes again; {leader or 'nobody'} leads")


@app.command("transfer")
@on_cluster
def transfer(
    target: Target,
    to: Annotated[str | None, typer.Option("--to", help="A member such as raft-2; else the best.")] = None,
) -> None:
    """Hand the leadership over without a gap."""

    async def act(cluster: Cluster) -> str:
        before = await cluster.raft.leader()
        if before is not None and before == to:
            return before
        await cluster.transfer_leadership(to)
        try:
            async with asyncio.timeout(NEW_LEADER_WITHIN_S):
                while (now := await cluster.raft.leader()) in (None, before):  # noqa: ASYNC110 - nobody tells, so ask
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise TimedOut(f"{before} still leads", hint="`berth raft status` shows who follows") from None
        return str(now)

    leader = on(target, act, role="admin")
    if target.as_json:
        print_json({"version": 1, "leader": leader})
    else:
        note(f"{leader} leads")
