"""Which nodes this raft node has heard: the leader's only check outside `check` (DESIGN section 2, "Nodes")."""

from collections.abc import Collection

from berth.ids import NodeId
from berth.model.heartbeats import node_lost_after_ms


class Hearing:
    """When each node was last heard. Times are milliseconds of a monotonic clock."""

    def __init__(self, now_ms: int) -> None:
        self._since = now_ms
        self._heard: dict[NodeId, int] = {}

    def start(self, now_ms: int) -> None:
        """Nothing before `now_ms` counts: what was missed while not listening says nothing."""
        self._since = now_ms

    def heard(self, node: NodeId, now_ms: int, *, known: Collection[NodeId]) -> None:
        """A sign of life. Only nodes that are registered (`known`) are remembered: never more than there are."""
        if node not in known:
            return
        self._heard[node] = now_ms
        if len(self._heard) > len(known):  # somebody has left since
            self._heard = {name: at for name, at in self._heard.items() if name in known}

    def __len__(self) -> int:
        """How many nodes are remembered."""
        return len(self._heard)

    def may_be_lost(self, node: NodeId, *, nodes: int, now_ms: int) -> bool:
        """Whether this node has listened for as long as it takes and heard nothing of `node`."""
        patience = node_lost_after_ms(nodes)
        return now_ms - max(self._since, self._heard.get(node, self._since)) >= patience
