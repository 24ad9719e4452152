"""All nodes, the messages on their way, and every command."""

import json
from collections.abc import Callable
from typing import cast

from berth_raft.core.effects import HardState, Role
from berth_raft.core.settings import InvalidRaftSetting, RaftSettings
from tests.raft_driver.commands import Command, Refused, node_id, node_ids, only, tip_of, types_of, whole, yes
from tests.raft_driver.nodes import TICK_MS, TICK_US, TYPES, Json, Node, OnWire, new_node, shown

TICKS_MAX = 1_000_000
"""In one command: more is a slip, and would keep whoever waits for the answer."""


class World:
    """All nodes, and the messages on their way."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._wire: list[OnWire] = []
        self._commands: dict[str, Callable[[Command], list[OnWire]]] = {
            "reset": self._reset,
            "add": self._add,
            "campaign": self._campaign,
            "tick": self._tick,
            "timeout": self._timeout,
            "leader_gone": self._leader_gone,
            "transfer": self._transfer,
            "propose": self._propose,
            "voters": self._voters,
            "process": self._process,
            "deliver": self._deliver,
            "restart": self._restart,
            "state": self._state,
        }

    def answer(self, line: str) -> Json:
        try:
            command: object = json.loads(line)
        except ValueError as error:
            return {"error": f"expected one JSON object, found {line!r}: {error}"}
        try:
            messages = self._carried_out(command)
        except (Refused, InvalidRaftSetting) as refusal:
            return {"error": str(refusal)}
        nodes = [self._nodes[name] for name in sorted(self._nodes, key=int)]
        return {"nodes": [shown(node) for node in nodes], "messages": [message.shown() for message in messages]}

    def _carried_out(self, command: object) -> list[OnWire]:
        if not isinstance(command, dict):
            raise Refused(f'expected an object such as {{"do": "state"}}, found {command!r}')
        command = cast("Command", command)
        what = command.get("do")
        if not isinstance(what, str) or what not in self._commands:
            raise Refused(f"do: expected one of {', '.join(self._commands)}, found {what!r}")
        return self._commands[what](command)

    # ---------------------------------------------------------------- the world

    def _reset(self, command: Command) -> list[OnWire]:
        only(command)
        self._nodes.clear()
        self._wire.clear()
        return []

    def _state(self, command: Command) -> list[OnWire]:
        only(command)
        return list(self._wire)

    def _add(self, command: Command) -> list[OnWire]:
        """Followers of nobody with this term and tip, and no vote."""
        only(
            command,
            "ids voters observers tip term pre_vote check_quorum election_ticks heartbeat_ticks",
        )
        ids = node_ids(command, "ids")
        taken = [name for name in ids if name in self._nodes]
        if taken or len(set(ids)) < len(ids):
            raise Refused(f"ids: expected each new node once, found {', '.join(taken or ids)}")
        shortest = whole(command, "election_ticks", default=3)
        settings = RaftSettings(
            members=node_ids(command, "voters", default=ids),
            observers=node_ids(command, "observers", default=()),
            election_timeout_min_ms=shortest * TICK_MS,
            election_timeout_max_ms=2 * shortest * TICK_MS,
            heartbeat_ms=whole(command, "heartbeat_ticks", default=1) * TICK_MS,
            pre_vote=yes(command, "pre_vote"),
            check_quorum=yes(command, "check_quorum"),
        )
        for name in ids:
            settings.check_membership(name)
        tip = tip_of(command)
        persisted = HardState(incarnation=1, term=whole(command, "term", default=0), vote=None)
        self._nodes |= {name: new_node(name, settings, persisted, tip) for name in ids}
        return []

    def _process(self, command: Command) -> list[OnWire]:
        node = self._node(only(command, "id"))
        sent = [OnWire(sender=node.core.node_id, to=send.to, message=send.message) for send in node.perform()]
        self._wire += sent
        return sent

    def _deliver(self, command: Command) -> list[OnWire]:
        node = self._node(only(command, "id types drop keep"))
        types = types_of(command)
        taken = [one for one in self._wire if one.to == node.core.node_id and TYPES[type(one.message)] in types]
        is_dropped, is_kept = yes(command, "drop", default=False), yes(command, "keep", default=False)
        if is_dropped and is_kept:
            raise Refused("drop, keep: expected one of them at most; what is thrown away does not stay")
        if not is_kept:
            gone = {id(one) for one in taken}
            self._wire = [one for one in self._wire if id(one) not in gone]
        for one in () if is_dropped else taken:
            node.effects += node.core.step(node.now_us, one.sender, one.message)
        return taken

    # ---------------------------------------------------------------- one node

    def _tick(self, command: Command) -> list[OnWire]:
        node = self._node(only(command, "id times"))
        for _ in range(whole(command, "times", default=1, most=TICKS_MAX)):
            node.now_us += TICK_US
            node.effects += node.core.tick(node.now_us)
        return []

    def _campaign(self, command: Command) -> list[OnWire]:
        """The election timeout ends now; a leader and an observer have none."""
        node = self._node(only(command, "id"))
        if node.core.role is not Role.LEADER and node.core.is_voter:
            node.core.timer.pull_forward(node.now_us)
            node.effects += node.core.tick(node.now_us)
        return []

    def _timeout(self, command: Command) -> list[OnWire]:
        node = self._node(only(command, "id ticks"))
        node.core.timer.set_timeout(whole(command, "ticks"))
        return []

    def _leader_gone(self, command: Command) -> list[OnWire]:
        node = self._node(only(command, "id"))
        node.effects += node.core.leader_gone(node.now_us)
        return []

    def _transfer(self, command: Command) -> list[OnWire]:
        node = self._node(only(command, "id to"))
        node.effects += node.core.transfer(node.now_us, to=node_id(command, "to"))
        return []

    def _propose(self, command: Command) -> list[OnWire]:
        node = self._node(only(command, "id"))
        if node.core.role is not Role.LEADER:
            raise Refused(f"id: expected a leader, found a {node.core.role}")
        node.append()
        return []

    def _voters(self, command: Command) -> list[OnWire]:
        """The node has read this membership change; whom else it knows, itself included, it takes for an observer."""
        node = self._node(only(command, "id voters"))
        voters = node_ids(command, "voters")
        known = (*node.core.settings.members, *node.core.settings.observers)
        observers = tuple(name for name in known if name not in voters)
        node.effects += node.core.reconfigure(node.now_us, members=voters, observers=observers)
        return []

    def _restart(self, command: Command) -> list[OnWire]:
        """A crash: what was not performed, and not persisted, is lost."""
        self._node(only(command, "id")).restart()
        return []

    def _node(self, command: Command) -> Node:
        name = node_id(command, "id")
        if name not in self._nodes:
            raise Refused(
                f"id: expected one of {', '.join(sorted(self._nodes, key=int)) or 'nobody yet'}, found {name}"
            )
        return self._nodes[name]
