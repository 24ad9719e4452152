"""What happens to whole nodes and links: one disturbance after the other, until the world is told to calm down."""

from collections.abc import Callable

from tests.simulation.election_world import BARRIER_US, MS, Node, World


class Disturber:
    """Draws which kinds of disturbance this world knows, then lets them happen at random intervals."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._random = world.random
        self._is_over = False
        self._wiped = 0
        every: list[Callable[[], None]] = [
            self._split,
            self._isolate,
            self._cut_one_way,
            self._leave_a_bridge,
            world.heal,
            world.heal,
            self._kill,
            self._cut_power,
            self._restart_all,
            self._pause,
            self._transfer,
            self._transfer_to_everybody,
            self._transfer_to_everybody,
            self._tell_leader_gone,
            self._lose_eligibility,
            self._slow_the_ledger,
            self._wipe,
        ]
        chosen = [disturb for disturb in every if self._random.random() < 0.6]
        self._kinds = chosen + self._random.choices(chosen, k=5) if chosen else []
        self._mean_us = self._random.choice([50 * MS, 200 * MS, 600 * MS])
        self._next()

    def stop(self) -> None:
        self._is_over = True
        for node in self.world.nodes.values():
            node.barrier_takes_us = BARRIER_US
        self.world.end_all_faults()

    def _next(self) -> None:
        self.world.after(int(self._random.expovariate(1 / self._mean_us)), self._happen)

    def _happen(self) -> None:
        if self._is_over or not self._kinds:
            return
        kind = self._random.choice(self._kinds)
        self.world.note(kind.__name__)
        kind()
        self._next()

    def _node(self) -> Node:
        """Any; the leader more often, since that is where elections begin."""
        nodes = list(self.world.nodes.values())
        leaders = [node for node in nodes if node.core is not None and node.core.leader == node.name]
        return self._random.choice(leaders if leaders and self._random.random() < 0.4 else nodes)

    def _split(self) -> None:
        side = {name: self._random.random() < 0.5 for name in self.world.nodes}
        for sender, senders_side in side.items():
            for to, its_side in side.items():
                self.world.cut[sender, to] = senders_side != its_side

    def _isolate(self) -> None:
        self.world.isolate(self._node().name)

    def _cut_one_way(self) -> None:
        node = self._node().name
        if self._random.random() < 0.5:
            hears = self._random.random() < 0.5
            self.world.isolate(node, hears=hears, is_heard=not hears)
        else:
            self.world.cut[node, self._node().name] = True

    def _leave_a_bridge(self) -> None:
        """Two halves that see each other only through one node."""
        bridge = self._node().name
        self._split()
        for name in self.world.nodes:
            self.world.cut[bridge, name] = self.world.cut[name, bridge] = False

    def _kill(self) -> None:
        self._crash(self._node(), power_fails=False)

    def _cut_power(self) -> None:
        self._crash(self._node(), power_fails=True)

    def _restart_all(self) -> None:
        for node in self.world.nodes.values():
            self._crash(node, power_fails=True)

    def _crash(self, node: Node, *, power_fails: bool) -> None:
        node.crash(power_fails=power_fails)
        self.world.after(self._random.choice([500, 20 * MS, 200 * MS, 1_500 * MS]), node.start)

    def _pause(self) -> None:
        node = self._node()
        node.pause()
        self.world.after(self._random.choice([60 * MS, 180 * MS, 400 * MS, 2_000 * MS]), node.resume)

    def _transfer(self) -> None:
        for node in self.world.nodes.values():
            if node.core is not None:
                node.perform(node.core.transfer(node.clock_us()))

    def _transfer_to_everybody(self) -> None:
        """Several candidates in one term, which pre-vote makes too rare to trust otherwise."""
        for node in self.world.nodes.values():
            for successor in self.world.settings.members:
                if node.core is not None:
                    node.perform(node.core.transfer(node.clock_us(), to=successor))

    def _tell_leader_gone(self) -> None:
        """Right or wrong: a hint may cost an election, never safety."""
        for node in self.world.nodes.values():
            if node.core is not None and self._random.random() < 0.6:
                node.perform(node.core.leader_gone(node.clock_us()))

    def _lose_eligibility(self) -> None:
        node = self._node()
        node.set_eligible(False)
        if node.core is not None:
            node.perform(node.core.resign(node.clock_us(), "simulated: the ledger does not answer"))
        self.world.after(self._random.randint(10 * MS, 900 * MS), lambda: node.set_eligible(True))

    def _slow_the_ledger(self) -> None:
        self._node().barrier_takes_us = self._random.choice([BARRIER_US, (200 * MS, 900 * MS)])

    def _wipe(self) -> None:
        """A disk is lost, of a minority only: a majority that forgets needs a person (`berth raft recover`)."""
        if self._wiped < (len(self.world.settings.members) - 1) // 2:
            self._wiped += 1
            node = self._node()
            node.crash(power_fails=True)
            node.disk.wipe()
            self.world.after(self._random.choice([500, 300 * MS]), node.start)
