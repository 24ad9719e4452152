"""How a client brings requests to their decisions, against a played cluster on a simulated bus in virtual time."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random

import pytest

from berth import subjects
from berth.client import Cluster
from berth.errors import InvalidCommand, TimedOut
from berth.messages.commands import Query, QueryAnswer
from berth.messages.decisions import Decision
from berth.messages.events import RequestStatus
from berth.messages.requests import Request
from berth.ports import Envelope
from berth.runtime.telemetry import NoSpans
from berth.sim.network import SimulatedBus, SimulatedNetwork
from berth.sim.virtual_time import run
from berth.wire import codec
from tests.builders import TEAM_A, a_request

STORED = b'{"stream":"REQUESTS","seq":1}'


class Played:
    """Stores what is submitted, and decides it unless its id stands in `silent`. `known`: what a query finds."""

    def __init__(self, network: SimulatedNetwork) -> None:
        self.messages: list[list[str]] = []
        self.questions: list[tuple[str, ...]] = []
        self.silent: set[str] = set()
        self.known: dict[str, Decision] = {}
        self._bus: SimulatedBus = network.bus("cluster")

    async def open(self) -> None:
        await self._bus.subscribe(subjects.REQUEST.pattern(), self._on_requests)
        await self._bus.subscribe(subjects.QUERY.pattern(), self._on_query)

    def _on_requests(self, envelope: Envelope) -> None:
        requests = codec.decode_requests(envelope.payload)
        self.messages.append([request.id for request in requests])
        if envelope.reply is not None:
            self._bus.publish(envelope.reply, STORED)
        for request in requests:
            if request.id not in self.silent:
                self.decide(request)

    def _on_query(self, envelope: Envelope) -> None:
        asked = codec.decode(Query, envelope.payload)
        self.questions.append(asked.ids)
        rows = tuple({"decision": self.known[name].as_mapping()} for name in asked.ids if name in self.known)
        assert envelope.reply is not None
        self._bus.publish(envelope.reply, codec.encode(QueryAnswer(items=rows)))

    def decide(self, request: Request) -> None:
        self.say(request.id, codec.encode(placed(request)))

    def say(self, request: str, payload: bytes) -> None:
        self._bus.publish(subjects.DECISION.of(namespace=TEAM_A, request=request), payload)


def placed(request: Request) -> Decision:
    return Decision(
        namespace=request.namespace,
        request=request.id,
        status=RequestStatus.PLACED,
        digest=codec.request_digest(request),
    )


@asynccontextmanager
async def played() -> AsyncGenerator[tuple[Cluster, Played]]:
    network = SimulatedNetwork(Random(1))
    theirs = Played(network)
    await theirs.open()
    cluster = Cluster(network.bus("client"), NoSpans())
    await cluster.open()
    try:
        yield cluster, theirs
    finally:
        await cluster.close()


def test_what_arrives_while_one_message_is_stored_is_the_next() -> None:
    async def story() -> None:
        async with played() as (cluster, theirs):
            decisions = await asyncio.gather(*(cluster.submit(a_request(f"r{number}")) for number in range(300)))

            assert [decision.request for decision in decisions] == [f"r{number}" for number in range(300)]
            assert [len(message) for message in theirs.messages] == [256, 44]

    run(story())


def test_what_nobody_knows_is_submitted_again_together_and_less_and_less_often() -> None:
    async def story() -> None:
        async with played() as (cluster, theirs):
            theirs.silent = {"a", "b"}
            waiting = [asyncio.create_task(cluster.submit(a_request(name), timeout=60)) for name in ("a", "b")]

            await asyncio.sleep(31)
            assert theirs.messages == [["a", "b"]] * 5, "at once and after 2, 6, 14 and 30 seconds"
            assert len(theirs.questions) == 15, "every 2 seconds"

            for name in ("a", "b"):
                theirs.decide(a_request(name))
            assert [(await one).status for one in waiting] == [RequestStatus.PLACED] * 2

    run(story())


def test_a_decision_whose_notice_was_lost_is_asked_for() -> None:
    async def story() -> None:
        async with played() as (cluster, theirs):
            request = a_request("a")
            theirs.silent, theirs.known = {"a"}, {"a": placed(request)}

            assert (await cluster.submit(request)).status is RequestStatus.PLACED
            assert theirs.messages == [["a"]]

    run(story())


def test_after_a_reconnect_everything_is_asked_for_at_once() -> None:
    async def story() -> None:
        network = SimulatedNetwork(Random(1))
        theirs = Played(network)
        await theirs.open()
        cluster = Cluster(network.bus("client"), NoSpans())
        await cluster.open()
        theirs.silent = {"a"}
        waiting = asyncio.create_task(cluster.submit(a_request("a")))
        await asyncio.sleep(0.5)
        theirs.silent = set()

        network.stop()
        network.start()

        assert (await waiting).status is RequestStatus.PLACED
        assert asyncio.get_running_loop().time() < 1.5
        await cluster.close()

    run(story())


def test_many_are_submitted_from_one_task_and_come_back_as_they_are_decided() -> None:
    async def story() -> None:
        async with played() as (cluster, theirs):
            theirs.silent = {"r3"}
            requests = (a_request(f"r{number}") for number in range(10))

            outcomes = [one async for one in cluster.submit_all(requests, in_flight=4, timeout=5)]

            decided = [one.request.id for one in outcomes if one.decision is not None]
            assert decided == [f"r{number}" for number in range(10) if number != 3]
            assert [(one.request.id, type(one.error)) for one in outcomes if one.error] == [("r3", TimedOut)]
            assert max(map(len, theirs.messages)) == 4, "never more than in_flight"

    run(story())


def test_who_stops_reading_leaves_nothing_behind() -> None:
    async def story() -> None:
        async with played() as (cluster, theirs):
            theirs.silent = {"r1"}
            outcomes = cluster.submit_all([a_request("r0"), a_request("r1")])
            async for one in outcomes:
                assert one.request.id == "r0"
                break
            await outcomes.aclose()

            await asyncio.sleep(10)
            assert theirs.questions == [], "nobody waits for r1 any more"

    run(story())


def test_decisions_of_others_are_not_even_read() -> None:
    async def story() -> None:
        async with played() as (cluster, theirs):
            theirs.silent = {"mine"}
            waiting = asyncio.create_task(cluster.submit(a_request("mine")))
            await asyncio.sleep(0.1)
            theirs.say("theirs", b"what only another release can read")
            theirs.decide(a_request("mine"))

            assert (await waiting).status is RequestStatus.PLACED

    run(story())


def test_what_is_too_large_is_refused_before_anything_is_sent() -> None:
    async def story() -> None:
        async with played() as (cluster, theirs):
            with pytest.raises(InvalidCommand):
                await cluster.submit(a_request("large", labels={f"k{n}": "v" * 60 for n in range(2_000)}))

            assert theirs.messages == []

    run(story())


def test_published_without_waiting_returns_when_it_is_stored() -> None:
    async def story() -> None:
        async with played() as (cluster, theirs):
            await cluster.publish(a_request("a"))

            assert theirs.messages == [["a"]]

    run(story())
