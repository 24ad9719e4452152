"""The real ledger and queue adapters on a simulated server that delays, loses, doubles and restarts."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from berth.adapters.jetstream_api import JetStreamApi
from berth.adapters.jetstream_ledger import JetStreamLedger, LedgerSettings
from berth.adapters.request_queue import JetStreamQueue
from berth.adapters.streams import create_streams
from berth.errors import Halted, TimedOut, Unreachable
from berth.ids import Sequence
from berth.ports import Appended, InDoubt, LostRace
from berth.sim.faults import NO_FAULTS, NetworkFaults
from berth.sim.jetstream import Mishap, SimulatedJetStream
from berth.sim.network import SimulatedNetwork
from berth.sim.virtual_time import Deadlock, run

FAULTY = NetworkFaults(delay_us=(100, 20_000), dropped_permille=20, doubled_permille=20)
APPENDS = 40


@dataclass
class Sea:
    """One simulated server, its faults drawn from one seed."""

    random: Random
    network: SimulatedNetwork
    jetstream: SimulatedJetStream
    trace: list[object] = field(default_factory=list[object])

    @classmethod
    async def calm(cls, seed: int) -> "Sea":
        """The streams are made; nothing goes wrong yet."""
        random = Random(seed)
        network = SimulatedNetwork(random)
        sea = cls(random=random, network=network, jetstream=SimulatedJetStream(network, random))
        await create_streams(await JetStreamApi.open(network.bus("init")))
        return sea

    def rough(self) -> None:
        """Every other sea overtakes as well: then a copy that was given up may land after the next one left."""
        self.network.faults = replace(FAULTY, reordered=self.random.random() < 0.5)
        self.jetstream.mishap_permille = 50

    def settle(self) -> None:
        self.network.faults = NO_FAULTS
        self.jetstream.mishap_permille = 0

    async def ledger(self, user: str) -> JetStreamLedger:
        bus = self.network.bus(user, keeps_while_disconnected=False)
        return await JetStreamLedger.open(bus, LedgerSettings(consumer=user))

    async def storms(self, count: int) -> None:
        """The server dies and comes back, or loses a consumer, now and then."""
        for _ in range(count):
            await asyncio.sleep(self.random.uniform(0.05, 1.5))
            if self.random.randrange(3):
                self.network.stop()
                await asyncio.sleep(self.random.uniform(0.0, 0.5))
                self.network.start()
            elif self.jetstream.has_consumer("LEDGER", "quota-1"):
                self.jetstream.delete_consumer("LEDGER", "quota-1")

    @property
    def stored(self) -> list[bytes]:
        messages = self.jetstream.streams["LEDGER"].messages
        return [messages[sequence].payload for sequence in sorted(messages)]


async def write(sea: Sea, ledger: JetStreamLedger, name: str, count: int, committed: dict[int, bytes]) -> None:
    """A writer that obeys RAFT section 2, steps 5 and 6: what it calls committed must be so, once."""
    number, last = 0, Sequence(0)
    while number < count:
        payload = f"{name} {number}".encode()
        match await ledger.append(payload, expected=last):
            case Appended(sequence=sequence):
                committed[sequence] = payload
                last, number = sequence, number + 1
            case LostRace():
                last = await persistently_last(ledger)
            case InDoubt():
                found = await persistently_read(ledger, last + 1)
                if found is not None:
                    last = Sequence(last + 1)
                    if found == payload:
                        committed[last] = payload
                        number += 1
            case _:
                await asyncio.sleep(0.02)
        sea.trace.append((name, number, last))


async def until(holds: Callable[[], bool]) -> None:
    """Let virtual time pass until it does."""
    while not holds():  # noqa: ASYNC110 in virtual time looking again and again costs nothing
        await asyncio.sleep(0.1)


async def persistently_last(ledger: JetStreamLedger) -> Sequence:
    while True:
        try:
            return await ledger.last_sequence()
        except (Unreachable, TimedOut):
            await asyncio.sleep(0.05)


async def persistently_read(ledger: JetStreamLedger, sequence: int) -> bytes | None:
    while True:
        try:
            message = await ledger.read(Sequence(sequence))
        except (Unreachable, TimedOut):
            await asyncio.sleep(0.05)
        else:
            return message.payload if message is not None else None


async def two_writers_and_a_reader(seed: int) -> tuple[Sea, dict[int, bytes], list[bytes]]:
    sea = await Sea.calm(seed)
    one, other, reader = [await sea.ledger(user) for user in ("raft-1", "raft-2", "quota-1")]
    committed: dict[int, bytes] = {}
    read: list[bytes] = []

    async def follow() -> None:
        async with aclosing(reader.follow(Sequence(0))) as batches:
            async for batch in batches:
                for message in batch:
                    assert message.sequence == len(read) + 1, "no hole, nothing twice"
                    read.append(message.payload)

    following = asyncio.create_task(follow())
    sea.rough()
    await asyncio.gather(
        write(sea, one, "one", APPENDS, committed), write(sea, other, "other", APPENDS, committed), sea.storms(6)
    )
    sea.settle()
    await until(lambda: len(read) == len(sea.stored))
    following.cancel()
    await asyncio.wait((following,))
    return sea, committed, read


def test_what_a_writer_calls_committed_is_stored_once_at_that_sequence(seed: int) -> None:
    sea, committed, read = run(two_writers_and_a_reader(seed))

    stored = sea.stored
    assert {sequence: stored[sequence - 1] for sequence in committed} == committed
    assert len(set(stored)) == len(stored), "nothing is stored twice"
    assert set(committed.values()) == set(stored), "and nothing else is stored"
    assert read == stored


def test_one_seed_is_one_history() -> None:
    first, again = run(two_writers_and_a_reader(7)), run(two_writers_and_a_reader(7))

    assert first[0].trace == again[0].trace
    assert first[1:] == again[1:]


async def two_quota_services(seed: int) -> tuple[set[bytes], set[bytes], int]:
    sea = await Sea.calm(seed)
    sent = {f"request {number}".encode() for number in range(60)}
    handled: set[bytes] = set()

    async def serve(queue: JetStreamQueue) -> None:
        async with aclosing(queue.pull()) as batches:
            async for batch in batches:
                for message in batch:
                    await asyncio.sleep(0.01)
                    handled.add(message.payload)
                    queue.acknowledge(message.handle)

    client = await JetStreamApi.open(sea.network.bus("client"))
    buses = [sea.network.bus(user) for user in ("quota-1", "quota-2")]
    serving = [asyncio.create_task(serve(await JetStreamQueue.open(bus))) for bus in buses]
    sea.rough()
    storms = asyncio.create_task(sea.storms(5))
    for payload in sorted(sent):
        await store(client, payload)
    await storms
    buses[sea.random.randrange(2)].crash()
    sea.settle()
    await until(lambda: not sea.jetstream.streams["REQUESTS"].messages)
    for task in serving:
        task.cancel()
    await asyncio.wait(serving)
    return sent, handled, sea.jetstream.streams["REQUESTS"].last_sequence


async def store(api: JetStreamApi, payload: bytes) -> None:
    """As a client does: again with the same message id until it is stored."""
    headers = {"Nats-Msg-Id": payload.decode().replace(" ", "-")}
    while True:
        try:
            answer = await api.store("berth.v1.request.team-a", payload, headers=headers, within_seconds=0.3)
        except (Unreachable, TimedOut):
            await asyncio.sleep(0.05)
            continue
        if "error" not in answer:
            return


def test_every_request_is_handled_although_servers_and_services_die(seed: int) -> None:
    sent, handled, stored = run(two_quota_services(seed))

    assert handled == sent
    assert stored == len(sent), "one message id is stored once, however often it was sent"


# --- single faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mishap", "is_stored"),
    [
        (Mishap.MESSAGE_LOST, False),
        (Mishap.ANSWER_LOST, True),
        (Mishap.UNCLEAR, False),
        (Mishap.STORED_UNCLEAR, True),
    ],
)
def test_each_ambiguous_answer_leaves_doubt_that_reading_back_ends(mishap: Mishap, is_stored: bool) -> None:
    async def story() -> None:
        sea = await Sea.calm(seed=1)
        ledger = await sea.ledger("raft-1")
        sea.jetstream.mishaps.append(mishap)

        assert isinstance(await ledger.append(b"record", expected=Sequence(0)), InDoubt)
        found = await ledger.read(Sequence(1))
        assert (found is not None) is is_stored
        again = await ledger.append(b"record", expected=Sequence(0))
        assert isinstance(again, InDoubt if is_stored else Appended)
        assert sea.stored == [b"record"]

    run(story())


def test_without_a_leader_of_the_stream_a_first_attempt_is_certain_and_a_second_is_not() -> None:
    async def story() -> None:
        sea = await Sea.calm(seed=1)
        ledger = await sea.ledger("raft-1")
        sea.jetstream.take_away("LEDGER")
        first = await ledger.append(b"record", expected=Sequence(0))
        sea.jetstream.give_back("LEDGER")
        sea.jetstream.mishaps.append(Mishap.ANSWER_LOST)
        await ledger.append(b"record", expected=Sequence(0))
        sea.jetstream.take_away("LEDGER")
        second = await ledger.append(b"record", expected=Sequence(0))

        assert type(first).__name__ == "NotStored"
        assert isinstance(second, InDoubt)

    run(story())


def test_a_sequence_that_the_stream_lost_halts_the_follower_after_it_asked_again() -> None:
    async def story() -> None:
        sea = await Sea.calm(seed=1)
        writer, reader = await sea.ledger("raft-1"), await sea.ledger("quota-1")
        for number in range(5):
            await writer.append(b"%d" % number, expected=Sequence(number))
        del sea.jetstream.streams["LEDGER"].messages[3]

        found: list[int] = []

        async def follow() -> None:
            async for batch in reader.follow(Sequence(0)):
                found.extend(message.sequence for message in batch)

        with pytest.raises(Halted, match="nothing between it and 4"):
            await follow()
        assert found == [1, 2]

    run(story())


def test_a_stream_that_lost_its_tail_halts_whoever_had_read_it() -> None:
    async def story() -> None:
        sea = await Sea.calm(seed=1)
        writer, reader = await sea.ledger("raft-1"), await sea.ledger("quota-1")
        for number in range(5):
            await writer.append(b"%d" % number, expected=Sequence(number))

        async def follow_through_a_power_loss() -> None:
            async for batch in reader.follow(Sequence(0)):
                if not batch:
                    sea.jetstream.streams["LEDGER"].lose_last(2)
                    sea.network.stop()
                    sea.network.start()

        with pytest.raises(Halted, match="ends at 3 now"):
            await follow_through_a_power_loss()

    run(story())


def test_a_story_in_which_nothing_can_happen_any_more_is_a_deadlock_not_a_hang() -> None:
    async def story() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run(story())
