"""Whatever happens to a cluster, everybody is told one outcome, and it is lawful (DESIGN section 2, RAFT section 3)."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest

from berth.sim.virtual_time import run
from tests.builders import a_quota
from tests.seeds import SEEDS
from tests.simulation.checkers import History, check_everything
from tests.simulation.cluster_clients import Client, drawn_nodes, drawn_wishes, operate, rivals
from tests.simulation.cluster_troubles import Troubles, drawn_faults
from tests.simulation.cluster_world import SERVICES, ClusterWorld, Maker, repeatable

REQUESTS = 40
STORM_SECONDS = 8.0
PATIENCE_SECONDS = 120.0

REGRESSIONS = sorted(
    {
        int(line.split()[0])
        for line in (Path(__file__).parent / "regressions.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
)


def storm(seed: int, *, services: Mapping[str, Maker] = SERVICES) -> tuple[ClusterWorld, History]:
    """One seed from the beginning to its checks."""
    dice = Random(seed)
    skew_ms = dice.choice((0, 0, 300))
    world = ClusterWorld(seed, services, skew_ms=skew_ms)
    with repeatable(seed, world.problems):
        history = run(_story(world, dice))
    return world, history


async def _story(world: ClusterWorld, dice: Random) -> History:
    """Nodes and a quota; requests and commands while troubles happen; calm; everything is looked at."""
    quotas = [a_quota(hard={"cpu_millicores": dice.randint(4, 14) * 1_000})] if dice.random() < 0.7 else []
    await world.open(drawn_nodes(dice), *quotas)
    began = asyncio.get_running_loop().time()
    faults, mishap_permille = drawn_faults(dice)
    world.storm(faults, mishap_permille=mishap_permille)
    clients = _started_clients(world, dice, began)
    commands = dice.choice((0, 6, 16))
    operator = asyncio.ensure_future(operate(world.network, dice, seconds=STORM_SECONDS, commands=commands))
    await _trouble(Troubles(world, clients, dice, began), dice, began + STORM_SECONDS)
    await world.calm()
    await _until_told(clients)
    await operator
    await world.until_quiet()
    found = check_everything(world, clients)
    await world.close()
    return found


def _started_clients(world: ClusterWorld, dice: Random, began: float) -> list[Client]:
    """Two clients with a half of the wishes each, and one who wishes some of the same."""
    wishes = drawn_wishes(dice, count=REQUESTS, seconds=dice.choice((0.2, STORM_SECONDS / 2, STORM_SECONDS)))
    clients = [Client(name="client", wishes=some) for some in (wishes[::2], wishes[1::2], rivals(dice, wishes))]
    for client in clients:
        client.start(world.network, began)
    return clients


async def _until_told(clients: list[Client]) -> None:
    """Every client has everything it wished for, or gives up waiting (I17)."""
    tasks = [client.task for client in clients if client.task is not None]
    await asyncio.wait(tasks, timeout=PATIENCE_SECONDS)
    left = [wish for client in clients for wish in client.wishes if not wish.is_fulfilled]
    assert not left, f"I17: nobody told {left[0]}, and {len(left) - 1} others"
    await asyncio.gather(*tasks)


async def _trouble(troubles: Troubles, dice: Random, until: float) -> None:
    pause_s = dice.choice((0.2, 0.5, 2.0))
    while asyncio.get_running_loop().time() < until:
        await asyncio.sleep(dice.uniform(0, 2 * pause_s))
        troubles.next()
    await asyncio.wait_for(troubles.over(), PATIENCE_SECONDS)


@pytest.mark.parametrize("seed", [*REGRESSIONS, *(seed for seed in SEEDS if seed not in REGRESSIONS)])
def test_no_seed_loses_doubles_or_forgets(seed: int) -> None:
    storm(seed)


def test_one_seed_is_one_history() -> None:
    assert storm(3)[0].records == storm(3)[0].records
