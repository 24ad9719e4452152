"""What the client has to do with nodes: look at one, cordon it, drain it and wait for that, remove it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from berth.errors import BerthError, NotFound, TimedOut
from berth.ids import NodeId
from berth.messages.commands import AdminAnswer
from berth.messages.node_commands import NodeCommand, RemoveNode, SetNode


class NotDraining(BerthError):
    """Waiting for the end of a drain that is not."""

    code = "not_draining"


class Cluster(Protocol):
    """As much of `berth.client.Cluster` as is needed here."""

    def query(self, what: str, *, ids: tuple[str, ...]) -> Awaitable[list[dict[str, Any]]]: ...

    def command_node(self, command: NodeCommand) -> Awaitable[AdminAnswer]: ...


class Nodes:
    """`cluster.nodes`. All but `show` and `drained` needs an admin key, and raises Refused or Unreachable."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def cordon(self, node: str) -> AdminAnswer:
        """Nothing new is placed there; what runs stays."""
        return await self._cluster.command_node(SetNode(node=NodeId(node), schedulable=False))

    async def uncordon(self, node: str) -> AdminAnswer:
        """Take new work again; ends a drain."""
        return await self._cluster.command_node(SetNode(node=NodeId(node), schedulable=True, draining=False))

    async def drain(self, node: str, *, deadline_seconds: int | None = None) -> AdminAnswer:
        """Cordon it and move away what runs there; after the deadline, if there is one, what is left is evicted.

        Answered when the drain has begun; `drained` waits for its end.
        """
        command = SetNode(node=NodeId(node), schedulable=False, draining=True, deadline_seconds=deadline_seconds)
        return await self._cluster.command_node(command)

    async def drained(
        self,
        node: str,
        *,
        timeout: float | None = None,
        every: float = 0.5,
        told: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """The node's row when nothing is on it any more. `told`: given the row each time it is asked for.

        Raises:
            NotFound: no such node, or no longer. TimedOut: still something there after `timeout` seconds.
            NotDraining: the drain has been ended before.
        """
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        while True:
            row = await self.show(node)
            if told is not None:
                told(row)
            if row["drain"] is None:
                raise NotDraining(f"{node} is not being drained (any more)", hint="`berth nodes drain` drains it")
            if not row["drain"]["left"] and not row["drain"]["releasing"]:
                return row
            if deadline is not None and asyncio.get_running_loop().time() >= deadline:
                raise TimedOut(f"{node} is not empty after {timeout:g} s", hint="`berth nodes show` says what is left")
            await asyncio.sleep(every)

    async def show(self, node: str) -> dict[str, Any]:
        """One node whole; while it is drained, `drain` has `waiting`: what is still there, and what that waits for.

        Raises:
            NotFound: no such node.
        """
        for row in await self._cluster.query("nodes", ids=(node,)):
            if row["drain"] is not None:
                found = await self._cluster.query("drain", ids=(node,))
                row["drain"]["waiting"] = found[0]["waiting"]
            return row
        raise NotFound(f"no node {node}", hint="`berth nodes list` lists them")

    async def remove(self, node: str, *, force: bool = False) -> AdminAnswer:
        """Take the node out of the cluster for good; Refused while work is on it. `force`: that is evicted at once."""
        return await self._cluster.command_node(RemoveNode(node=NodeId(node), force=force))
