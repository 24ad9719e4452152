"""What agents, operators and silence make of nodes, as transactions. Pure: each is the next step on a view.

Whose node or whose command it is comes first, so that the rest, (state, now), is what an errand asks for.
None means that the view already shows what was wanted, so asking twice does no harm. `now_ms`: UTC.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from berth.ids import AllocationKey, NodeId
from berth.messages.commands import NodeRegister, NodeStopped, Refusal, RefusalCode
from berth.messages.documents import NodeDocument, NodeState
from berth.messages.events import (
    Event,
    How,
    NodeChanged,
    NodeLeft,
    NodeLost,
    NodeRegistered,
    Transaction,
)
from berth.messages.node_commands import RemoveNode, SetNode
from berth.messages.reasons import ReasonCode
from berth.model.cluster import Allocation, AllocationState, Node
from berth.model.event_rules import lost_toleration_seconds
from berth.model.ledger import State
from berth.model.no_execute import leaves_at
from berth.resources import DEFAULT_INSTANCES, Resources
from berth_scheduler.departure import Cause, departures, packed

NAMED_MAX = 3
"""Allocations that a refusal names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The next transaction towards what was wanted; `last`: then it is done."""

    transaction: Transaction
    last: bool


def running_on(state: State, node: NodeId) -> list[Allocation]:
    """What the ledger says consumes on `node`, by allocation key; nothing that is only assumed."""
    known = state.cluster.allocations
    return [known[key] for key in sorted(state.cluster.on_node(node)) if key in known]


# --- agents ---------------------------------------------------------------------------------------------------


def register(command: NodeRegister, state: State, now_ms: int) -> Step | None:
    """The node is there, as it describes itself. One that was lost returns empty; one that was not keeps its work."""
    document = command.node
    registered = node_registered(document)
    known = state.cluster.nodes.get(document.id)
    if known is None:
        events = [Event(registered)]
        if not document.schedulable:
            events.append(Event(NodeChanged(node=document.id, schedulable=False)))
        return Step(transaction=tuple(events), last=True)
    if known.state is NodeState.READY:
        return None if _is_as(known, registered) else Step(transaction=(Event(registered),), last=True)
    cause = Cause(how=How.LOST, reason=ReasonCode.LOST_WITH_NODE, at=now_ms)
    groups = departures(state, running_on(state, document.id), cause)
    return _whole_at_last(packed(groups), (Event(registered),))


def node_registered(document: NodeDocument) -> NodeRegistered:
    """The event of a node's document; a capacity that does not say how many instances takes 110."""
    capacity = document.capacity.vector
    if document.capacity.instances is None:
        capacity = capacity + Resources(instances=DEFAULT_INSTANCES)
    return NodeRegistered(
        node=document.id,
        capacity=capacity,
        reserved=document.reserved.vector,
        labels=document.labels,
        taints=document.taints,
    )


def _is_as(node: Node, registered: NodeRegistered) -> bool:
    return (
        node.capacity == registered.capacity
        and node.reserved == registered.reserved
        and dict(node.labels) == registered.labels
        and node.taints == registered.taints
    )


def leave(node: NodeId, state: State, now_ms: int) -> Step | None:
    """The node goes for good: what still runs there is evicted and waits again, then the node is gone."""
    known = state.cluster.nodes.get(node)
    if known is None:
        return None
    left = (Event(NodeLeft(node=node)),)
    running = running_on(state, node)
    if not running:
        return Step(transaction=left, last=True)
    if known.state is NodeState.LOST:
        groups = departures(state, running, Cause(how=How.LOST, reason=ReasonCode.LOST_WITH_NODE, at=now_ms))
        return _whole_at_last(packed(groups), left)
    at_once = known.drain is not None and known.drain.until is None
    draining = () if at_once else (Event(NodeChanged(node=node, draining=True)),)
    cause = Cause(how=How.EVICTED, reason=ReasonCode.DRAINED, at=now_ms, graceful=False)
    return _whole_at_last(packed(departures(state, running, cause), first=draining), left)


def _whole_at_last(parts: list[Transaction], end: Transaction) -> Step:
    """The first part; with the last one comes the end."""
    if len(parts) <= 1:
        return Step(transaction=(*(parts[0] if parts else ()), *end), last=True)
    return Step(transaction=parts[0], last=False)


def stopped(command: NodeStopped, state: State, now_ms: int) -> Step | None:
    """Releasing allocations that the agent has stopped end now; others it names are left alone."""
    known = state.cluster.allocations
    ending = [
        allocation
        for name in command.allocations
        if (allocation := known.get(_key(name))) is not None
        and allocation.node == command.node
        and allocation.state is AllocationState.RELEASING
    ]
    cause = Cause(how=How.RELEASED, reason=ReasonCode.RELEASED, at=now_ms)
    parts = packed(departures(state, ending, cause)) if ending else []
    return Step(transaction=parts[0], last=len(parts) == 1) if parts else None


def _key(name: str) -> AllocationKey:
    """Agents name allocations `namespace/id`, as they were told."""
    namespace, _, allocation = name.partition("/")
    return (namespace, allocation)  # pyright: ignore[reportReturnType] names from outside, only looked up


# --- operators --------------------------------------------------------------------------------------------------


def set_node(command: SetNode, until: int | None, state: State) -> Step | None:
    """Cordon, uncordon, start or stop a drain: only what is not so already. `until`: the drain's deadline."""
    node = state.cluster.nodes.get(command.node)
    if node is None:
        return None
    schedulable = None if command.schedulable == node.schedulable else command.schedulable
    is_so = command.draining == node.draining and (node.drain is None or node.drain.until == until)
    draining = None if is_so else command.draining
    if schedulable is None and draining is None:
        return None
    drain_until = until if draining else None
    changed = NodeChanged(node=node.id, schedulable=schedulable, draining=draining, drain_until=drain_until)
    return Step(transaction=(Event(changed),), last=True)


def remove(command: RemoveNode, state: State, now_ms: int) -> Step | Refusal | None:
    """The node goes for good. With work on it only if the operator insists; that is then evicted at once."""
    node = state.cluster.nodes.get(command.node)
    if node is None or command.force:
        return leave(command.node, state, now_ms)
    running = running_on(state, node.id)
    if running:
        return Refusal(code=RefusalCode.RULE, detail=_still_there(node, running))
    return Step(transaction=(Event(NodeLeft(node=node.id)),), last=True)


def _still_there(node: Node, running: list[Allocation]) -> str:
    named = ", ".join(f"{one.namespace}/{one.id}" for one in running[:NAMED_MAX])
    more = f" and {len(running) - NAMED_MAX} more" if len(running) > NAMED_MAX else ""
    if node.state is NodeState.LOST:
        return f"{node.id} is lost, and {named}{more} wait for it; force its removal to give them up"
    advice = "wait until its drain is done" if node.draining else "drain it first"
    return f"{node.id} still has {named}{more}: {advice}, or force its removal, which evicts them at once"


# --- silence ------------------------------------------------------------------------------------------------------


def lose(node: NodeId, state: State, now_ms: int) -> Step | None:
    """The node is lost, and in the same transaction what does not tolerate that (as much as fits a record)."""
    known = state.cluster.nodes.get(node)
    if known is None or known.state is NodeState.LOST:
        return None
    return Step(transaction=_lost(state, _at_once(state, node), now_ms, first=(Event(NodeLost(node=node)),)), last=True)


def outlived(node: NodeId, state: State, now_ms: int) -> Step | None:
    """What runs on a lost node and has outlived its toleration of the taint `berth/lost` becomes lost."""
    known = state.cluster.nodes.get(node)
    if known is None or known.lost_at is None:
        return None
    due = [
        allocation
        for allocation in running_on(state, node)
        if (patience := _patience(state, allocation)) is not None and now_ms >= known.lost_at + patience * 1000
    ]
    return Step(transaction=_lost(state, due, now_ms), last=True) if due else None


def tainted(node: NodeId, state: State, now_ms: int) -> Step | None:
    """What has outlived a `no_execute` taint of the node is evicted, as much as fits a record (R26, R27)."""
    known = state.cluster.nodes.get(node)
    if known is None or known.state is not NodeState.READY:
        return None
    leaving = [one for one in running_on(state, node) if _must_leave(state, known, one, now_ms)]
    cause = Cause(how=How.EVICTED, reason=ReasonCode.TAINTED, at=now_ms)
    parts = packed(departures(state, leaving, cause)) if leaving else []
    return Step(transaction=parts[0], last=len(parts) == 1) if parts else None


def _must_leave(state: State, node: Node, allocation: Allocation, now_ms: int) -> bool:
    if allocation.state is not AllocationState.PLACED:
        return False
    due = leaves_at(node, state.queue.requests[allocation.request_key].request, allocation)
    return due is not None and now_ms >= due


def _at_once(state: State, node: NodeId) -> list[Allocation]:
    return [allocation for allocation in running_on(state, node) if _patience(state, allocation) == 0]


def _patience(state: State, allocation: Allocation) -> int | None:
    return lost_toleration_seconds(state.queue.requests[allocation.request_key].request)


def _lost(state: State, leaving: Iterable[Allocation], now_ms: int, first: Transaction = ()) -> Transaction:
    cause = Cause(how=How.LOST, reason=ReasonCode.LOST_WITH_NODE, at=now_ms)
    return packed(departures(state, leaving, cause), first=first)[0]
