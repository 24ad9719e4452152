"""The agent on a real nats-server, with a scheduler of which only the answers are played."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pydantic import BaseModel

from berth import subjects
from berth.adapters.nats_bus import NatsBus
from berth.adapters.replies import Replies
from berth.ids import Sequence
from berth.messages.commands import NodeAnswer, Refusal, RefusalCode
from berth.ports import Envelope
from berth.runtime import decoding
from berth.subjects import Subject
from berth.wire import codec
from berth_agent.reporting import NodeReport, RegistrationRefused, Surroundings, leave_all, report_all
from berth_agent.simulated import simulated_nodes
from berth_agent.workloads import Remembered
from tests.nats_fixture import RealServer, real_server

pytestmark = pytest.mark.nats

__all__ = ["real_server"]

NODE = simulated_nodes(1)[0]
ASKED = (subjects.NODE_REGISTER, subjects.NODE_LEAVE, subjects.NODE_STOPPED, subjects.NODE_ALLOCATIONS)


class PlayedScheduler:
    """Answers as a scheduler does; keeps what it was told, by subject."""

    def __init__(self, bus: NatsBus) -> None:
        self._bus = bus
        self.heard: dict[str, asyncio.Queue[Any]] = {}
        self.registered = False
        self.allocations: list[dict[str, Any]] = []
        self.unknown = Refusal(code=RefusalCode.RULE, detail="it is lost")
        self.refusal: Refusal | None = None
        self.on_register: Callable[[], None] = lambda: None

    async def open(self) -> None:
        for subject in ASKED:
            await self._bus.subscribe(subject.pattern(), self._receiving(subject), queue=subject.queue)
        beats = subjects.NODE_HEARTBEAT
        await self._bus.subscribe(beats.pattern(), self._receiving(beats))

    def _receiving(self, subject: Subject) -> Callable[[Envelope], None]:
        heard = self.heard[subject.name] = asyncio.Queue()

        def receive(envelope: Envelope) -> None:
            tokens = subject.tokens(envelope.subject)
            assert tokens is not None
            body: BaseModel = decoding.decode(subject, envelope.payload, tokens)
            heard.put_nowait(body)
            if envelope.reply is not None:
                self._bus.publish(envelope.reply, codec.encode(self._answer(subject)))

        return receive

    def _answer(self, subject: Subject) -> NodeAnswer:
        if subject is subjects.NODE_REGISTER:
            self.on_register()
            self.registered = self.refusal is None
            return NodeAnswer(refusal=self.refusal, heartbeat_ms=1_000, sequence=Sequence(7))
        if subject is subjects.NODE_ALLOCATIONS and not self.registered:
            return NodeAnswer(refusal=self.unknown, sequence=Sequence(7))
        return NodeAnswer(heartbeat_ms=1_000, sequence=Sequence(7), allocations=tuple(self.allocations))

    async def next(self, subject: Subject) -> Any:
        async with asyncio.timeout(20):
            return await self.heard[subject.name].get()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 nobody tells
            await asyncio.sleep(0.02)


@pytest.fixture
async def scheduler(real_server: RealServer) -> PlayedScheduler:
    return PlayedScheduler(await real_server.connect("scheduler-1"))


@pytest.fixture
def machine() -> set[str]:
    """What runs on the machine, whatever becomes of its agent."""
    return set()


@pytest.fixture
async def report(real_server: RealServer, machine: set[str]) -> NodeReport:
    bus = await real_server.connect("agent")
    around = Surroundings(
        bus=bus,
        replies=await Replies.open(bus, bus.inbox),
        session="first-start",
        ask_every_ms=100,
        dice=random.Random(1),
        registering=asyncio.Semaphore(1),
    )
    return NodeReport(NODE, around, Remembered(machine))


@pytest.fixture
async def reporting(report: NodeReport) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(report_all([report]))
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_node_registers_as_soon_as_there_is_a_scheduler(
    scheduler: PlayedScheduler, reporting: asyncio.Task[None]
) -> None:
    await asyncio.sleep(0)
    assert not reporting.done()

    await scheduler.open()

    registered = await scheduler.next(subjects.NODE_REGISTER)
    assert (registered.node, registered.session) == (NODE, "first-start")


async def test_a_registered_node_beats(scheduler: PlayedScheduler, reporting: asyncio.Task[None]) -> None:
    await scheduler.open()

    beat = await scheduler.next(subjects.NODE_HEARTBEAT)

    assert (beat.node, beat.session) == (NODE.id, "first-start")
    assert not reporting.done()


async def test_a_node_that_is_no_longer_known_registers_again(
    scheduler: PlayedScheduler, reporting: asyncio.Task[None]
) -> None:
    await scheduler.open()
    await scheduler.next(subjects.NODE_REGISTER)

    scheduler.registered = False

    await scheduler.next(subjects.NODE_REGISTER)
    assert not reporting.done()


async def test_what_is_placed_here_is_started_and_what_is_not_is_stopped(
    scheduler: PlayedScheduler, reporting: asyncio.Task[None], machine: set[str]
) -> None:
    scheduler.allocations = [{"id": "team-a/web.0", "state": "placed"}]
    await scheduler.open()
    await until(lambda: machine == {"team-a/web.0"})

    scheduler.allocations = [{"id": "team-a/db.0", "state": "placed"}]

    await until(lambda: machine == {"team-a/db.0"})
    assert not reporting.done()


async def test_a_node_that_was_lost_stops_what_runs_before_it_registers_again(
    scheduler: PlayedScheduler, report: NodeReport, machine: set[str]
) -> None:
    machine.add("team-a/web.0")  # an agent was killed here; by now it runs elsewhere
    await scheduler.open()
    ran: list[set[str]] = []
    scheduler.on_register = lambda: ran.append(set(machine))

    task = asyncio.create_task(report_all([report]))
    await scheduler.next(subjects.NODE_REGISTER)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert ran == [set()]


async def test_an_agent_that_starts_again_while_its_node_is_still_counted_on_keeps_what_runs(
    scheduler: PlayedScheduler, report: NodeReport, machine: set[str]
) -> None:
    machine |= {"team-a/web.0", "team-a/gone.0"}
    scheduler.registered = True
    scheduler.allocations = [{"id": "team-a/web.0", "state": "placed"}]
    await scheduler.open()
    ran: list[set[str]] = []
    scheduler.on_register = lambda: ran.append(set(machine))

    task = asyncio.create_task(report_all([report]))
    await scheduler.next(subjects.NODE_REGISTER)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert ran == [{"team-a/web.0"}]


async def test_a_node_that_was_removed_stops_what_runs_and_stays_away(
    scheduler: PlayedScheduler, report: NodeReport, reporting: asyncio.Task[None], machine: set[str]
) -> None:
    scheduler.allocations = [{"id": "team-a/web.0", "state": "placed"}]
    await scheduler.open()
    await until(lambda: machine == {"team-a/web.0"})

    scheduler.unknown = Refusal(code=RefusalCode.NOT_FOUND, detail="there is no such node any more")
    scheduler.registered = False

    async with asyncio.timeout(30):
        await reporting
    assert (machine, report.removed, scheduler.heard["node_register"].qsize()) == (set(), True, 1)


async def test_what_is_to_stop_has_stopped(scheduler: PlayedScheduler, reporting: asyncio.Task[None]) -> None:
    scheduler.allocations = [
        {"id": "team-a/web.0", "state": "placed"},
        {"id": "team-a/web.1", "state": "releasing"},
    ]
    await scheduler.open()

    stopped = await scheduler.next(subjects.NODE_STOPPED)

    assert (stopped.node, stopped.allocations) == (NODE.id, ("team-a/web.1",))
    assert not reporting.done()


async def test_a_description_that_cannot_be_ends_the_agent(
    scheduler: PlayedScheduler, reporting: asyncio.Task[None]
) -> None:
    scheduler.refusal = Refusal(code=RefusalCode.INVALID, detail="node.capacity")
    await scheduler.open()

    with pytest.raises(RegistrationRefused, match=r"node-001: invalid: node\.capacity") as refused:
        await reporting

    assert refused.value.exit_code == 2


async def test_a_busy_scheduler_is_asked_again(scheduler: PlayedScheduler, reporting: asyncio.Task[None]) -> None:
    scheduler.refusal = Refusal(code=RefusalCode.OVERLOADED)
    await scheduler.open()
    await scheduler.next(subjects.NODE_REGISTER)

    scheduler.refusal = None

    await scheduler.next(subjects.NODE_HEARTBEAT)
    assert not reporting.done()


async def test_a_node_may_leave_for_good(scheduler: PlayedScheduler, report: NodeReport) -> None:
    await scheduler.open()

    unconfirmed = await leave_all([report])

    assert unconfirmed == 0
    assert (await scheduler.next(subjects.NODE_LEAVE)).node == NODE.id
