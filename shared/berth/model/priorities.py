"""The lowest priority that runs in each namespace: who has nobody below need not look for victims (R53)."""

from berth.ids import Namespace
from berth.model.cluster import AllocationState
from berth.model.ledger import State

Version = tuple[int, ...]


class Priorities:
    """Counted over all that is placed, once for each version of a state; between versions asking is cheap."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._version: Version | None = None
        self._lowest: dict[Namespace, int] = {}

    def is_anybody_below(self, namespace: Namespace, priority: int, *more: int) -> bool:
        """Whether something of `namespace` runs with less than `priority`. `more`: what else tells versions apart."""
        version = (self._state.sequence, *more)
        if version != self._version:
            self._version = version
            self._lowest = self._count()
        return self._lowest.get(namespace, priority) < priority

    def _count(self) -> dict[Namespace, int]:
        lowest: dict[Namespace, int] = {}
        for node in self._state.cluster.nodes:
            for one in self._state.cluster.on_node(node).values():
                if one.state is AllocationState.PLACED and one.priority < lowest.get(one.namespace, one.priority + 1):
                    lowest[one.namespace] = one.priority
        return lowest
