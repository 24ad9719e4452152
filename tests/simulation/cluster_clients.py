"""What is asked of a simulated cluster: requests with all that a request may say, releases, operators' commands.

A client process may be killed at any moment; its next start goes on with what it was not told yet, as a script
that is run again would.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from berth.client import Cluster
from berth.errors import BerthError
from berth.ids import Namespace, NodeId
from berth.messages.decisions import Decision
from berth.messages.documents import NODE, QUOTAS, RESERVATION, NodeDocument, time_text
from berth.messages.node_commands import SetNode
from berth.messages.requests import REQUEST_LIST, Request
from berth.runtime.telemetry import NoSpans
from berth.sim.network import SimulatedBus, SimulatedNetwork
from berth.sim.virtual_time import SimulatedClock
from tests.builders import TEAM_A, TEAM_B

ZONES = ("a", "b")
NAMESPACES = (TEAM_A, TEAM_B)


@dataclass(slots=True, kw_only=True)
class Wish:
    """One request of one client: when it is submitted and, if at all, how long after that it is released.

    `waits`: for the decision, which then is `told`; else until the bus has stored it. `released`: the bus has
    stored the release.
    """

    request: Request
    at_s: float
    waits: bool = True
    release_after_s: float | None = None
    submitted: bool = False
    told: Decision | None = None
    released: bool = False

    @property
    def is_fulfilled(self) -> bool:
        return self.submitted and (self.released or self.release_after_s is None)


@dataclass(slots=True, kw_only=True)
class Client:
    """One process of one user, with its wishes."""

    name: str
    wishes: list[Wish]
    bus: SimulatedBus | None = None
    task: asyncio.Task[None] | None = None

    def start(self, network: SimulatedNetwork, began: float) -> None:
        """`began`: the loop's time from which wishes count."""
        self.bus = network.bus(self.name)
        self.task = asyncio.create_task(self._run(self.bus, began), name=self.name)

    @property
    def is_running(self) -> bool:
        return self.task is not None

    async def crash(self) -> None:
        """Killed: whatever it was about to be told is lost with it."""
        assert self.bus is not None and self.task is not None, "it does not run"
        task, self.task = self.task, None
        self.bus.crash()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _run(self, bus: SimulatedBus, began: float) -> None:
        cluster = Cluster(bus, NoSpans())
        await cluster.open()
        try:
            async with asyncio.TaskGroup() as tasks:
                for wish in self.wishes:
                    if not wish.is_fulfilled:
                        tasks.create_task(self._fulfil(cluster, wish, began))
        finally:
            await cluster.close()

    async def _fulfil(self, cluster: Cluster, wish: Wish, began: float) -> None:
        await asyncio.sleep(began + wish.at_s - asyncio.get_running_loop().time())
        if wish.waits:
            wish.told = await persistently(lambda: cluster.submit(wish.request, timeout=20))
        elif not wish.submitted:
            await persistently(lambda: cluster.publish(wish.request))
        wish.submitted = True
        if wish.release_after_s is not None and not wish.released:
            await asyncio.sleep(wish.release_after_s)
            await persistently(lambda: cluster.release(wish.request.namespace, wish.request.id))
            wish.released = True


async def persistently(call: Callable[[], Awaitable[Any]]) -> Any:
    """Again and again until it works, as people do."""
    while True:
        try:
            return await call()
        except BerthError:
            await asyncio.sleep(0.2)


# --- what is wished for -----------------------------------------------------------------------------------------


def drawn_wishes(dice: Random, *, count: int, seconds: float) -> list[Wish]:
    """`count` requests of all kinds, submitted within `seconds`; some are released, at once or later."""
    patience = dice.choice((0.7, 0.9, 1.0))
    return [
        Wish(
            request=_request(dice, f"r{number}"),
            at_s=dice.uniform(0, seconds),
            waits=dice.random() < patience,
            release_after_s=dice.choice((0.0, dice.uniform(0, 4))) if dice.random() < 0.35 else None,
        )
        for number in range(count)
    ]


def rivals(dice: Random, wishes: list[Wish]) -> list[Wish]:
    """Another client's wishes about the same ids: some with the same body, some with another (R106)."""
    found: list[Wish] = []
    for wish in wishes:
        if dice.random() < 0.15:
            same = dice.random() < 0.5
            request = wish.request if same else wish.request.model_copy(update={"priority": 99})
            found.append(Wish(request=request, at_s=max(0.0, wish.at_s + dice.uniform(-0.5, 2.0))))
    return found


def _request(dice: Random, name: str) -> Request:
    document: dict[str, Any] = {
        "id": name,
        "namespace": dice.choice(NAMESPACES),
        "resources": {"cpu_cores": dice.choice((0.5, 1, 1, 2, 3)), "ram_mb": dice.choice((0, 512, 2048))},
        "count": dice.choice((1, 1, 1, 2, 3)),
        "strategy": dice.choice(("binpack", "binpack", "spread", "random")),
        "priority": dice.choice((50, 50, 10, 90)),
        "labels": {"app": dice.choice(("web", "db"))},
    }
    for chance, more in _further(dice, document):
        if dice.random() < chance:
            document |= more
    (request,) = REQUEST_LIST.validate_python([document], strict=False)
    return request


def _further(dice: Random, document: dict[str, Any]) -> list[tuple[float, dict[str, Any]]]:
    zone = {"key": "zone", "operator": "in", "values": [dice.choice((*ZONES, "nowhere"))]}
    near = {"match_labels": {"app": "web"}, "topology_key": "node"}
    return [
        (0.15, {"duration_seconds": dice.randint(1, 5)}),
        (0.25, {"grace_seconds": dice.randint(1, 3)}),
        (0.10, {"queue_deadline_seconds": dice.randint(1, 6)}),
        (0.12, {"reservation": f"res{dice.randint(0, 2)}"}),
        (0.15, {"constraints": [zone]}),
        (0.10, {"constraints": [{**zone, "mode": "preferred", "weight": 5}]}),
        (0.08, {"anti_affinity": [near]}),
        (0.06, {"affinity": [near]}),
        (0.08, {"spread": [{"topology_key": "zone", "match_labels": {"app": "web"}}]}),
        (0.10, {"reschedule": "never"}),
        (0.10, {"borrow": "never"}),
        (0.10, {"preemption": "never"}),
        (0.10, {"min_count": 1} if document["count"] > 1 else {}),
        (0.08, {"tolerations": [{"key": "berth/lost", "operator": "exists", "seconds": dice.randint(1, 5)}]}),
        (0.05, {"node": f"n{dice.randint(1, 4)}"}),
    ]


def drawn_nodes(dice: Random) -> list[NodeDocument]:
    """Four to six nodes in two zones."""
    return [
        NODE.validate_python(
            {
                "id": f"n{number}",
                "capacity": {"cpu_cores": dice.choice((2, 4, 6)), "ram_mb": 16_384, "instances": 20},
                "labels": {"zone": ZONES[number % 2]},
            },
            strict=False,
        )
        for number in range(1, dice.randint(5, 7))
    ]


# --- what operators do ------------------------------------------------------------------------------------------


async def operate(network: SimulatedNetwork, dice: Random, *, seconds: float, commands: int) -> None:
    """Quotas up and down, nodes cordoned, drained and removed, reservations made and cancelled, one after the other."""
    cluster = Cluster(network.bus("admin"), NoSpans())
    await cluster.open()
    try:
        for number in range(commands // 4):
            await _tried(lambda number=number: cluster.reserve(_reservation(dice, number)))
        for number in range(commands):
            await asyncio.sleep(seconds / commands)
            await _once(cluster, dice, number)
    finally:
        await cluster.close()


async def _once(cluster: Cluster, dice: Random, number: int) -> None:
    node = NodeId(f"n{dice.randint(1, 4)}")
    kinds: list[Callable[[], Awaitable[Any]]] = [
        lambda: cluster.set_node(SetNode(node=node, schedulable=False)),
        lambda: cluster.set_node(SetNode(node=node, schedulable=True)),
        lambda: cluster.set_node(SetNode(node=node, schedulable=True)),
        lambda: cluster.nodes.drain(node, deadline_seconds=dice.choice((None, 0, 1, 3, 6))),
        lambda: cluster.nodes.drain(node, deadline_seconds=dice.randint(0, 6)),
        lambda: cluster.set_node(SetNode(node=node, draining=False)),
        lambda: cluster.nodes.remove(node, force=dice.random() < 0.4),
        lambda: cluster.nodes.uncordon(node),
        lambda: cluster.apply_quotas(drawn_quotas(dice)),
        lambda: cluster.apply_quotas(drawn_quotas(dice)),
        lambda: cluster.remove_quota(namespace=dice.choice(NAMESPACES)),
        lambda: cluster.reserve(_reservation(dice, number % 4)),
        lambda: cluster.reserve(_reservation(dice, number % 4)),
        lambda: cluster.cancel_reservation(dice.choice(NAMESPACES), f"res{number % 4}"),
        cluster.transfer_leadership,
    ]
    await _tried(dice.choice(kinds))


async def _tried(command: Callable[[], Awaitable[Any]]) -> None:
    try:
        async with asyncio.timeout(8):
            await command()
    except (BerthError, TimeoutError):
        return  # refused, or nobody there: whatever became of it must be lawful


def drawn_quotas(dice: Random) -> tuple[Any, ...]:
    """One namespace's limits; some lend to each other."""
    cores = dice.randint(3, 12)
    document: dict[str, Any] = {"namespace": dice.choice(NAMESPACES), "hard": {"cpu_cores": cores}}
    if dice.random() < 0.4:
        document |= {"cohort": "research", "soft": {"cpu_cores": dice.randint(0, cores)}}
    if dice.random() < 0.2:
        document |= {"borrowing_limit": {"cpu_cores": dice.randint(0, 3)}, "burst_percent": dice.choice((0, 50))}
    return QUOTAS.validate_python({"quotas": [document]}, strict=False).quotas


def _reservation(dice: Random, number: int) -> Any:
    now = SimulatedClock().now_ms()
    document: dict[str, Any] = {
        "id": f"res{number}",
        "namespace": dice.choice(NAMESPACES),
        "resources": {"cpu_cores": dice.choice((1, 2))},
        "count": dice.randint(1, 2),
        "on_expiry": dice.choice(("keep", "evict")),
        "allocate_once": dice.random() < 0.2,
    }
    if dice.random() < 0.5:
        document["duration_seconds"] = dice.randint(2, 8)
    else:
        start = now + dice.randint(500, 4_000)
        window = {"start": time_text(start), "end": time_text(start + dice.randint(2_000, 6_000))}
        document |= {**window, "nodes": [f"n{dice.randint(1, 4)}"]}
    if dice.random() < 0.3:
        document["owners"] = [{"namespace": Namespace(name)} for name in NAMESPACES]
    if dice.random() < 0.2:
        document["release_if_unused_after_seconds"] = dice.randint(1, 3)
    return RESERVATION.validate_python(document, strict=False)
