"""Many random days: whatever is lost, late or out of step, each window begins and ends once, nothing is over-held."""

from random import Random
from typing import Any

from berth.ids import Namespace
from berth.messages.documents import time_text
from berth.messages.events import Transaction
from berth.messages.requests import Request
from berth.model.check import check
from berth.model.ledger import State
from berth.model.windows import free_now, overheld
from tests.builders import MINUTE, SECOND, TEAM_A, a_node, a_quota, a_request, ended, placed
from tests.unit.berth_reservation.scene import Scene

NODES = ("n1", "n2", "n3")
STEPS = 60
LONGEST = 30 * MINUTE


def a_day(seed: int) -> Scene:
    """Reservations are asked for and given back, work comes and goes, and things go wrong for a while."""
    random = Random(seed)
    scene = Scene(
        *(a_node(node, cpu=8_000, instances=12) for node in NODES),
        a_quota(hard={"cpu_millicores": 20_000}),
        replicas=3,
    )
    for step in range(STEPS):
        _something_goes_wrong(scene, random)
        for act in random.sample((_reserve, _give_up, _work_comes, _work_goes), k=2):
            act(scene, random, step)
        scene.advance(scene.now + random.randrange(2 * MINUTE))
        check_nothing_is_over_held(scene.leader, scene.now)
    _all_is_well_again(scene)
    scene.advance(scene.now + LONGEST + MINUTE)
    return scene


def _something_goes_wrong(scene: Scene, random: Random) -> None:
    scene.nobody_leads = random.random() < 0.1
    scene.answers_are_lost = random.random() < 0.2
    scene.leader_lags_ms = random.choice((0, 0, 0, 200, 5 * SECOND))
    for number in range(len(scene.services)):
        if random.random() < 0.2:
            scene.behind.add(number)
        elif number in scene.behind:
            scene.catch_up(number)


def _all_is_well_again(scene: Scene) -> None:
    scene.nobody_leads = scene.answers_are_lost = False
    scene.leader_lags_ms = 0
    for number in sorted(scene.behind):
        scene.catch_up(number)


def _reserve(scene: Scene, random: Random, step: int) -> None:
    window: dict[str, Any] = {}
    if random.random() < 0.6:
        start = scene.now + random.randrange(5 * MINUTE)
        window = {"start": time_text(start), "nodes": random.sample(NODES, k=random.randint(1, 2))}
    scene.create(
        by=random.randrange(3),
        id=f"res{random.randrange(step + 1)}",
        count=random.randint(1, 3),
        resources={"cpu_cores": random.randint(1, 4)},
        duration_seconds=random.randint(1, LONGEST // 2 // SECOND),
        on_expiry=random.choice(("keep", "evict")),
        release_if_unused_after_seconds=random.choice((None, None, 120)),
        allocate_once=random.random() < 0.2,
        **window,
    )


def _give_up(scene: Scene, random: Random, step: int) -> None:
    scene.cancel(f"res{random.randrange(step + 1)}", by=random.randrange(3))


def _work_comes(scene: Scene, random: Random, step: int) -> None:
    """As the scheduler would: only what the leader accepts."""
    drawn = random.choice([None, *sorted(scene.leader.reservations.open)])
    request = a_request(
        f"work{step}",
        cpu=random.choice((500, 1_000, 3_000)),
        count=(count := random.randint(1, 3)),
        duration_seconds=random.choice((None, random.randint(1, LONGEST // SECOND))),
        reservation=drawn,
        priority=random.randint(0, 100),
    )
    _commit_if_lawful(scene, placed(request, *random.choices(NODES, k=count)))


def _work_goes(scene: Scene, random: Random, _step: int) -> None:
    running = sorted(key for key, known in scene.leader.queue.requests.items() if known.live)
    if running:
        _commit_if_lawful(scene, ended(scene.leader, random.choice(running)))


def _commit_if_lawful(scene: Scene, transaction: Transaction) -> None:
    if check(scene.leader, transaction, max(scene.leader.at, scene.now - scene.leader_lags_ms)) is None:
        scene.commit(transaction)


# ---------------------------------------------------------------- what must hold


def check_nothing_is_over_held(state: State, now: int) -> None:
    """I13: no node and no namespace holds more than it may, now or in any window to come."""
    for node in state.cluster.nodes.values():
        assert free_now(state, node).is_non_negative(), node.id
        assert overheld(state, node, at=now) is None, node.id
    used = state.quotas.used_by(Namespace(TEAM_A))
    assert used.cpu_millicores <= 20_000


def test_every_window_begins_and_ends_once_and_nothing_is_over_held(seed: int) -> None:
    scene = a_day(seed)

    assert len(scene.answers) == scene.asked, "every command was answered"
    assert not scene.leader.reservations.open, "every reservation is over"
    for names in (scene.activated, scene.over):
        assert len(names) == len(set(names))
    assert all(not _has_time(known.request) or not known.live for known in scene.leader.queue.requests.values())
    digests = {service.state.digest() for service in scene.services}
    assert digests == {scene.leader.digest()}


def _has_time(request: Request) -> bool:
    return request.duration_seconds is not None


def test_one_seed_is_one_history() -> None:
    assert a_day(7).records == a_day(7).records
