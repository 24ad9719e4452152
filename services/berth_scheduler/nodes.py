"""Everything about nodes that reaches a scheduler: commands of agents and operators, beats, silence, drains.

Commands become errands; a sweep every half second begins those that nobody asked for: losses, outlived
tolerations, the moves of a drain.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from berth.effects import Effect, Note, Reply
from berth.ids import NodeId, RequestKey, Sequence
from berth.messages.commands import (
    AdminAnswer,
    Heartbeat,
    NodeAnswer,
    NodeLeave,
    NodeRegister,
    NodeStopped,
    Refusal,
    RefusalCode,
)
from berth.messages.documents import NodeState
from berth.messages.envelope import Record
from berth.messages.events import NodeChanged, NodeLeft, NodeLost, NodeRegistered, WakeOn
from berth.messages.node_commands import RemoveNode, SetNode
from berth.model.cluster import Allocation
from berth.model.heartbeats import heartbeat_interval_ms
from berth.model.ledger import State
from berth.model.no_execute import has_no_execute
from berth_scheduler.assumed import Assumptions
from berth_scheduler.board import Board
from berth_scheduler.drain import Move, move, to_be_moved
from berth_scheduler.errands import ErrandName, Errands, NextStep
from berth_scheduler.limits import Limits
from berth_scheduler.liveness import Pulse
from berth_scheduler.node_events import (
    Step,
    leave,
    lose,
    outlived,
    register,
    remove,
    running_on,
    set_node,
    stopped,
    tainted,
)

MOVES_PER_SWEEP = 256
"""Requests that one sweep begins to move; a drain of more takes several."""

Changes = tuple[Sequence, Sequence]
Command = NodeRegister | NodeLeave | NodeStopped | SetNode | RemoveNode


@dataclass(slots=True, kw_only=True)
class Nodes:
    """What this process knows of nodes beyond the ledger, and what it is doing about them."""

    state: State
    board: Board
    assumptions: Assumptions
    errands: Errands
    limits: Limits
    seed: str
    pulse: Pulse = field(default_factory=Pulse)
    sweep_at: int | None = None
    _unmovable: dict[RequestKey, Changes] = field(default_factory=dict[RequestKey, Changes])

    # ------------------------------------------------------------------ what is heard

    def began(self, now_ms: int) -> None:
        """This process listens from now on."""
        self.pulse.began(self.state.cluster.nodes, now_ms)
        self.sweep_at = now_ms + self.limits.sweep_ms

    def folded(self, record: Record, now_ms: int) -> None:
        """A node that has just registered counts as heard; what changed about nodes is looked at at once."""
        for transaction in record.transactions:
            for event in transaction:
                if isinstance(event.data, NodeRegistered):
                    self.pulse.heard(event.data.node, now_ms)
                elif isinstance(event.data, NodeLeft):
                    self.pulse.forget(event.data.node)
                if isinstance(event.data, NodeRegistered | NodeChanged | NodeLost):
                    self.sweep_at = now_ms

    def beat(self, heartbeat: Heartbeat, now_ms: int) -> None:
        """A sign of life. One of a node that nobody registered, or that has left, is nothing to remember."""
        if heartbeat.node in self.state.cluster.nodes:
            self.pulse.heard(heartbeat.node, now_ms)

    def command(self, command: Command, reply_to: str | None, now_ms: int) -> list[Effect]:
        """Begin what an agent or an operator wants; it is answered when it is committed."""
        step: NextStep
        match command:
            case NodeRegister(node=document):
                if document.id in self.state.cluster.nodes:
                    self.pulse.heard(document.id, now_ms)
                step = partial(register, command)
            case NodeLeave(node=node):
                step = partial(leave, node)
            case NodeStopped():
                step = partial(stopped, command)
            case SetNode(node=node) | RemoveNode(node=node) if node not in self.state.cluster.nodes:
                return [] if reply_to is None else [Reply(to=reply_to, body=_unknown(node))]
            case SetNode():
                step = partial(_set_node, command, self._deadline(command, now_ms))
            case RemoveNode():
                step = partial(remove, command)
        is_admin = isinstance(command, SetNode | RemoveNode)
        self.errands.start(_name(command), step, now_ms, reply_to=reply_to, is_admin=is_admin)
        return []

    def _deadline(self, command: SetNode, now_ms: int) -> int | None:
        """In the ledger's time, which this process's clock may lag."""
        seconds = command.deadline_seconds
        return None if seconds is None else max(self.state.at, now_ms) + seconds * 1000

    def allocations(self, node: NodeId) -> NodeAnswer:
        """What should run on `node`, as of `sequence`.

        Refused where nothing may run any more: as `not_found` where there is no such node (it never registered, or
        has left, or was removed), as `rule` where it is lost and must register again, empty.
        """
        known = self.state.cluster.nodes.get(node)
        interval = heartbeat_interval_ms(len(self.state.cluster.nodes))
        refusal: Refusal | None = None
        if known is None:
            refusal = Refusal(code=RefusalCode.NOT_FOUND, detail=f"there is no node {node} (any more)")
        elif known.state is not NodeState.READY:
            refusal = Refusal(code=RefusalCode.RULE, detail=f"{node} is lost: stop everything, then register again")
        if refusal is not None:
            return NodeAnswer(refusal=refusal, sequence=self.state.sequence, heartbeat_ms=interval)
        listed = tuple(_listed(allocation) for allocation in running_on(self.state, node))
        return NodeAnswer(sequence=self.state.sequence, heartbeat_ms=interval, allocations=listed)

    # ------------------------------------------------------------------ what nobody asks for

    def sweep(self, now_ms: int) -> list[Effect]:
        """Look at silence, taints and drains, if it is time. `board.silent` is as of now afterwards."""
        if self.sweep_at is None or now_ms < self.sweep_at:
            return []
        self.sweep_at = now_ms + self.limits.sweep_ms
        cluster = self.state.cluster
        silence = self.pulse.silence(cluster.nodes.values(), now_ms)
        notes: list[Effect] = []
        if silence.silent - self.board.silent:
            fields = {"nodes": sorted(silence.silent - self.board.silent), "silent": len(silence.silent)}
            notes.append(Note(name="nodes_silent", fields=fields))
        self.board.silent = silence.silent
        for node in silence.lost:
            self.errands.start(("lose", node), partial(lose, node), now_ms)
        for node in sorted(cluster.lost):
            self.errands.start(("outlived", node), partial(outlived, node), now_ms)
        for node in [name for name, row in cluster.nodes.items() if row.taints and has_no_execute(row)]:
            if cluster.on_node(node):
                self.errands.start(("tainted", node), partial(tainted, node), now_ms)
        self._drain(now_ms)
        return notes

    def _drain(self, now_ms: int) -> None:
        changes = self._changes()
        keys = to_be_moved(self.state, max(self.state.at, now_ms))
        self._unmovable = {key: self._unmovable[key] for key in keys if key in self._unmovable}
        begun = 0
        for key, is_due in keys.items():
            name = ("move", *key)
            if name in self.errands or key in self.assumptions:
                continue
            if self._unmovable.get(key) == changes and not is_due:
                continue
            self.errands.start(name, partial(self._move, key, name), now_ms)
            begun += 1
            if begun >= MOVES_PER_SWEEP:
                self.sweep_at = now_ms + self.limits.retry_ms
                return

    def _move(self, key: RequestKey, name: ErrandName, state: State, now_ms: int) -> Move | None:
        if key in self.assumptions:
            return None  # it is being placed or moved already
        evict = name in self.errands.evict
        self.errands.evict.discard(name)
        found = move(self.board, key, at=max(state.at, now_ms), seed=self.seed, evict=evict)
        if found is None:
            self._unmovable[key] = self._changes()
        else:
            self._unmovable.pop(key, None)
        return found

    def _changes(self) -> Changes:
        """When there was last more room: what could not be moved before is tried again after that."""
        at = self.state.changed.get
        return at((WakeOn.CAPACITY, ""), Sequence(0)), at((WakeOn.NODES, ""), Sequence(0))


def _set_node(command: SetNode, until: int | None, state: State, _now_ms: int) -> Step | None:
    return set_node(command, until, state)


def _name(command: Command) -> ErrandName:
    """What two messages that want the same thing have in common."""
    match command:
        case NodeRegister():
            return ("register", command.node.id)
        case NodeLeave():
            return ("leave", command.node)
        case NodeStopped():
            return ("stopped", command.node, command.allocations)
        case SetNode():
            return ("set", command.node, command.schedulable, command.draining, command.deadline_seconds)
        case RemoveNode():
            return ("remove", command.node, command.force)


def _unknown(node: NodeId) -> AdminAnswer:
    return AdminAnswer(refusal=Refusal(code=RefusalCode.NOT_FOUND, detail=f"no node {node}"))


def _listed(allocation: Allocation) -> dict[str, Any]:
    """An allocation as its agent reads it; `id` is what `stopped` names."""
    return {
        "id": f"{allocation.namespace}/{allocation.id}",
        "request": allocation.request,
        "state": allocation.state.value,
        "resources": allocation.charge.as_mapping(),
        "until": allocation.until,
    }
