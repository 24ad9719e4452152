"""Which nodes are alive: who was heard when, who is silent for too long, and whom silence makes lost.

Times are milliseconds UTC of this process's clock; only differences count. What must not live here:
events. The leader believes a loss only if it has heard nothing either (DESIGN section 2, "Nodes").
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from berth.ids import NodeId
from berth.messages.documents import NodeState
from berth.model.cluster import Node
from berth.model.heartbeats import MASS_LOSS_PATIENCE, node_lost_after_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """`silent` nodes take nothing new; `lost` ones, in order of their ids, are to be proposed as lost."""

    silent: frozenset[NodeId]
    lost: tuple[NodeId, ...]


@dataclass(slots=True)
class Pulse:
    """When each node was last heard. A node that this process has not known for long counts as just heard.

    Only nodes that are registered stand here: whoever calls `heard` has looked, and `forget`s those that leave.
    """

    _heard: dict[NodeId, int] = field(default_factory=dict[NodeId, int])

    @property
    def nodes(self) -> list[NodeId]:
        """Those of which this process remembers when they were heard."""
        return sorted(self._heard)

    def heard(self, node: NodeId, now_ms: int) -> None:
        self._heard[node] = now_ms

    def forget(self, node: NodeId) -> None:
        """It has left; should it come again, it counts as just heard."""
        self._heard.pop(node, None)

    def began(self, nodes: Iterable[NodeId], now_ms: int) -> None:
        """This process listens from now on: every node gets a full period, whatever was before."""
        self._heard = dict.fromkeys(nodes, now_ms)

    def silence(self, nodes: Iterable[Node], now_ms: int) -> Silence:
        """Who of the ready nodes has been silent too long.

        When that is more than a third of them, the network is the likelier cause: they take nothing new, and
        are lost only after five times that long.
        """
        known = list(nodes)
        ready = [node.id for node in known if node.state is NodeState.READY]
        for node in ready:
            self._heard.setdefault(node, now_ms)
        patience = node_lost_after_ms(len(known))
        silent = frozenset(self._silent_for(ready, patience, now_ms))
        if len(silent) * 3 > len(ready):
            patience *= MASS_LOSS_PATIENCE
        return Silence(silent=silent, lost=tuple(sorted(self._silent_for(ready, patience, now_ms))))

    def _silent_for(self, nodes: Iterable[NodeId], patience_ms: int, now_ms: int) -> Iterator[NodeId]:
        return (node for node in nodes if now_ms - self._heard[node] >= patience_ms)
