"""`berth agent`: offers this machine, one node that a file describes, or simulated nodes, until Ctrl-C."""

import asyncio
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter

from berth import subjects
from berth.adapters.users import seed_file
from berth.errors import InvalidSetting
from berth.messages.documents import NodeDocument
from berth_cli.context import ClusterAddress, Target, on_cluster
from berth_cli.output import note

app = typer.Typer()


@app.command("agent")
@on_cluster
def agent(
    target: Target,
    *,
    node: Annotated[
        str | None, typer.Option("--node", metavar="FILE", help="Offer the node described there; - is standard input.")
    ] = None,
    simulate: Annotated[int | None, typer.Option("--simulate", min=1, help="Offer so many simulated nodes.")] = None,
    runner: Annotated[
        str | None,
        typer.Option("--runner", metavar="PROGRAM", help="It starts, stops and lists what is placed here."),
    ] = None,
    leave: Annotated[bool, typer.Option("--leave", help="At the end the nodes leave the cluster for good.")] = False,
) -> None:
    """Offer this machine, or simulated ones, as nodes."""
    from berth.runtime import logs
    from berth_agent.process import nodes_of, serve
    from berth_agent.settings import AgentSettings
    from berth_cli.documents import read_as

    if node is not None and simulate is not None:
        raise InvalidSetting("--node and --simulate exclude each other", hint="give one of them, or neither")
    address = _address(target)
    settings = AgentSettings(
        user=address.user,
        nats_url=address.url,
        nkey_file=address.seed_file,
        simulate=simulate,
        runner=runner,
        leave=leave,
    )
    nodes = nodes_of(settings) if node is None else [read_as(TypeAdapter(NodeDocument), node, root="node")]
    _expect_own(address, nodes)
    style: Any = "json" if target.as_json else "text"
    logs.configure(address.user, style=style)
    names = ", ".join(one.id for one in nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
    note(f"offering {names} to {address.url}; Ctrl-C ends it")
    asyncio.run(serve(settings, nodes))


def _address(target: Target) -> ClusterAddress:
    """The cluster, signed in as an agent: with `--nkey`, else as the folder's agent for any node."""
    address = target.address("client")
    if target.nkey is not None:
        return address
    if address.folder is None:
        raise InvalidSetting("which key?", hint="--nkey names the seed file of an agent, such as keys/agent-n1.nk")
    return ClusterAddress(
        url=address.url,
        user=subjects.AGENT,
        seed_file=seed_file(address.folder / "keys", subjects.AGENT),
        folder=address.folder,
    )


def _expect_own(address: ClusterAddress, nodes: list[NodeDocument]) -> None:
    """The server would refuse every message of another's node, without a word to us."""
    own = address.user.removeprefix("agent-")
    if address.user.startswith("agent-") and [node.id for node in nodes] != [own]:
        raise InvalidSetting(
            f"the key of {address.user} is for node {own} only", hint="use the key agent.nk, which is for any node"
        )
