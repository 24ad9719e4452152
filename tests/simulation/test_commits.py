"""Nothing acknowledged is lost, nothing is done twice, whatever happens between the nodes and the stream (RAFT 3)."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from random import Random
from typing import Any

from berth import subjects
from berth.ids import Sequence
from berth.messages.commands import RaftCommand, RefusalCode
from berth.messages.envelope import Tip, tip_of, why_not_valid
from berth.messages.events import RequestPlaced
from berth.model.charging import recount_usage
from berth.model.check import check
from berth.model.ledger import State
from berth.sim.virtual_time import run
from berth.wire import codec
from berth.wire.codec import decode_record
from berth_raft.core.effects import HardState
from tests.builders import a_node, a_quota, a_request, placed
from tests.simulation.commit_world import MEMBERS, STORMY, CommitWorld

REQUESTS = 30


def replay(world: CommitWorld) -> tuple[State, Counter[str]]:
    """Fold the ledger anew, judging every transaction again (I4, I5, I6, I13); who was placed how often."""
    state, tip = State(), None
    times: Counter[str] = Counter()
    for number, payload in enumerate(world.stored(), start=1):
        record = decode_record(payload)
        assert why_not_valid(tip, record, number) is None, "I6: the chain is whole"
        tip: Tip | None = tip_of(record)
        for transaction in record.transactions:
            if record.created is None and record.elected is None:
                assert check(state, transaction, record.at) is None, "I13: every committed transaction was lawful"
            state.fold_transaction(transaction, at=record.at, sequence=record.sequence)
            for event in transaction:
                if isinstance(event.data, RequestPlaced):
                    times[str(event.request)] += 1
        state.tip = tip
    assert dict(state.quotas.used) == recount_usage(state)
    return state, times


async def storm(world: CommitWorld, seed: int) -> None:
    """Kill, cut off and restart nodes and the server while requests are placed; then calm."""
    dice = Random(seed)
    await world.open(a_node(instances=10_000), a_quota(hard={"instances": 10_000}))

    async def one(number: int) -> None:
        await asyncio.sleep(dice.randint(0, 4_000) / 1000)
        await world.propose(f"r{number}", placed(a_request(f"r{number}", cpu=1), "n1"))

    proposals = [asyncio.create_task(one(number)) for number in range(REQUESTS)]
    for _ in range(dice.randint(2, 5)):
        await asyncio.sleep(dice.randint(50, 900) / 1000)
        await trouble(world, dice)
    await world.calm()
    await asyncio.wait_for(asyncio.gather(*proposals), timeout=60)
    assert not [name for name, node in world.nodes.items() if node.ended.done()], "no node gave up"


async def trouble(world: CommitWorld, dice: Random) -> None:
    victim = world.leader() if dice.random() < 0.7 else dice.choice(sorted(world.nodes))
    match dice.choice(("crash", "crash", "cut", "server", "freeze")):
        case "crash" if victim in world.nodes:
            await world.crash(victim)
            await asyncio.sleep(dice.randint(0, 600) / 1000)
            await world.start(victim)
        case "cut" if victim in world.nodes:
            buses = [bus for bus in world.machines[victim].buses if dice.random() < 0.7]
            for bus in buses:
                bus.cut()
            await asyncio.sleep(dice.randint(10, 1_500) / 1000)
            for bus in buses:
                bus.mend()
        case "server":
            world.network.stop()
            await asyncio.sleep(dice.randint(1, 300) / 1000)
            world.network.start()
        case _:
            world.network.freeze()
            await asyncio.sleep(dice.randint(1, 900) / 1000)
            world.network.thaw()


def told(story: Coroutine[Any, Any, None]) -> None:
    run(story)


def test_no_seed_loses_or_doubles_what_was_acknowledged(seed: int) -> None:
    world = CommitWorld(seed, faults=STORMY, mishap_permille=60)

    told(storm(world, seed))

    state, times = replay(world)
    for number in range(REQUESTS):
        name = f"r{number}"
        assert times[name] == 1, "I8: exactly once"
        if name in world.refused:
            assert world.refused[name] is RefusalCode.SUPERSEDED, "I9: refused only by its own earlier copy"
        else:
            sequence = world.accepted[name]
            record = decode_record(world.stored()[sequence - 1])
            assert any(event.request == name for one in record.transactions for event in one), "I7: durable"
    assert len(state.queue.requests) == REQUESTS


def test_at_level_quorum_no_seed_loses_or_doubles_what_was_acknowledged_though_the_stream_is_lost(seed: int) -> None:
    world = CommitWorld(seed, faults=STORMY, mishap_permille=60, level="quorum")

    async def story() -> None:
        await storm(world, seed)
        accepted = {world.accepted[name]: world.stored()[world.accepted[name] - 1] for name in sorted(world.accepted)}
        await world.lose_the_stream()
        for name in MEMBERS:
            await world.start(name)
        await asyncio.sleep(5)
        assert world.leader() is not None
        stored = world.stored()
        lost = [sequence for sequence in accepted if stored[sequence - 1 : sequence] != [accepted[sequence]]]
        assert not lost, "I7: what was acknowledged is back from the mirrors, byte for byte, where it was"
        await world.propose("afterwards", placed(a_request("afterwards"), "n1"))

    told(story())

    _, times = replay(world)
    assert times["afterwards"] == 1
    assert all(times[f"r{number}"] == 1 for number in range(REQUESTS)), "I8: exactly once"


def test_one_seed_is_one_history() -> None:
    def history() -> list[bytes]:
        world = CommitWorld(7, faults=STORMY, mishap_permille=60)
        told(storm(world, 7))
        return world.stored()

    assert history() == history()


def test_a_calm_cluster_keeps_its_leader() -> None:
    async def story() -> None:
        world = CommitWorld(1)
        await world.open(a_node())
        leader = world.leader()
        await asyncio.sleep(180)
        assert world.leader() == leader
        assert len(world.stored()) == 3, "I18: creation, one barrier, one node; nobody was elected again"

    told(story())


def test_who_is_told_that_the_leader_died_does_not_wait_for_a_timeout(seed: int) -> None:
    async def story() -> None:
        world = CommitWorld(seed)
        await world.open(a_node())
        await asyncio.sleep(1)
        old = world.leader()
        assert old is not None
        await world.crash(old)
        await asyncio.sleep(0.14)
        assert world.leader() not in (None, old), "less than the shortest election timeout later"

    told(story())


def test_a_node_that_lost_its_votes_rejoins_once_it_follows_and_can_lead_again(seed: int) -> None:
    async def story() -> None:
        world = CommitWorld(seed)
        await world.open(a_node())
        forgetful = world.leader()
        assert forgetful is not None
        await world.crash(forgetful)
        world.disks[forgetful].lose()
        await world.start(forgetful)
        await asyncio.sleep(2)
        found = world.disks[forgetful].hard_state
        assert isinstance(found, HardState) and found.vote not in (None, forgetful), "its vote is the leader's"

        for other in set(MEMBERS) - {forgetful}:
            await world.crash(other)
            await asyncio.sleep(1)
            assert world.leader() is not None, "a majority with the one that forgot elects"
            await world.start(other)
            await asyncio.sleep(1)
        replay(world)

    told(story())


def test_when_all_have_lost_their_votes_nobody_leads_until_an_operator_says_so() -> None:
    async def story() -> None:
        world = CommitWorld(5)
        await world.open(a_node())
        await world.propose("before", placed(a_request("before"), "n1"))
        for name in MEMBERS:
            await world.crash(name)
            world.disks[name].lose()
        for name in MEMBERS:
            await world.start(name)
        await asyncio.sleep(30)
        assert world.leader() is None

        operator = world.network.bus("admin")
        payload = codec.encode(RaftCommand(command="recover"))
        operator.publish(subjects.ADMIN_RAFT.template, payload, reply=f"{operator.inbox}.1")
        await asyncio.sleep(3)

        assert world.leader() is not None
        await world.propose("after", placed(a_request("after"), "n1"))
        _, times = replay(world)
        assert times == {"before": 1, "after": 1}

    told(story())


def test_a_leader_in_doubt_reads_back_before_it_goes_on() -> None:
    async def story() -> None:
        world = CommitWorld(2)
        await world.open(a_node())
        world.jetstream.mishap_permille = 1_000
        proposal = asyncio.create_task(world.propose("r", placed(a_request("r"), "n1")))
        await asyncio.sleep(2)
        world.jetstream.mishap_permille = 0
        await asyncio.wait_for(proposal, timeout=10)
        _, times = replay(world)
        assert times["r"] == 1

    told(story())


def test_a_leader_cut_off_from_the_others_stops_leading_and_its_late_append_does_nothing() -> None:
    async def story() -> None:
        world = CommitWorld(3)
        await world.open(a_node())
        old = world.leader()
        assert old is not None
        for bus in world.machines[old].buses:
            bus.cut()
        await asyncio.sleep(2)
        new = world.leader()
        assert new not in (None, old)
        await world.propose("r", placed(a_request("r"), "n1"))
        for bus in world.machines[old].buses:
            bus.mend()
        await asyncio.sleep(5)
        assert world.leader() == new, "I18: who comes back disturbs nobody"
        _, times = replay(world)
        assert times["r"] == 1, "I14: what the old leader still sent did nothing"

    told(story())


def test_every_node_ends_with_the_same_state() -> None:
    async def story() -> None:
        world = CommitWorld(4, faults=STORMY, mishap_permille=30)
        await storm(world, 4)
        await asyncio.sleep(5)
        states = [world.nodes[name].leadership.state for name in MEMBERS]
        assert len({state.sequence for state in states}) == 1
        assert len({state.digest() for state in states}) == 1, "I11"
        assert states[0].sequence == Sequence(len(world.stored()))

    told(story())


def test_a_node_whose_clock_differs_from_the_servers_does_not_lead() -> None:
    async def story() -> None:
        world = CommitWorld(5)
        world.skews_ms = {"raft-1": 700, "raft-2": -700, "raft-3": 400}
        await world.open(a_node())
        await asyncio.sleep(60)
        assert world.leader() == "raft-3"
        leaders = {record.leader for record in map(decode_record, world.stored()) if record.elected}
        assert leaders == {"raft-3"}

    told(story())


def test_a_leader_whose_clock_jumps_stops_leading() -> None:
    async def story() -> None:
        world = CommitWorld(6)
        await world.open(a_node())
        old = world.leader()
        assert old is not None
        world.machines[old].clock.skew_ms = 3_600_000
        await asyncio.sleep(5)
        assert world.leader() not in (None, old)

    told(story())
