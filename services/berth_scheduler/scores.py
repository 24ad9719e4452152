"""How well a node would hold one more instance: whole numbers from 0 to 1000, pure in (state, node, request).

Weights and formulas: DESIGN section 4, "Scores". Bin-pack and spread use floats in one place (powers of
ten) and round half up to a whole number at once; nothing is folded from a score, and the leader checks
none, so a machine that rounds the last bit otherwise may choose another node but never another law.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from berth.ids import Attempt, NodeId
from berth.messages.requests import Request, Strategy
from berth.resources import Resources

FULL = 1000
"""The best score."""

PERCENT = 100
"""R12 normalises to whole percent, with integer division; a score is ten times that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much each scorer counts, when it has something to say (R48)."""

    strategy: int
    preferred: int
    affinity: int
    spread: int
    taints: int


USUAL = Weights(strategy=2, preferred=1, affinity=1, spread=1, taints=1)
NEAR = Weights(strategy=1, preferred=4, affinity=4, spread=1, taints=1)
"""Strategy `affinity`: what is preferred leads, bin-pack decides the rest."""


def weights_of(strategy: Strategy) -> Weights:
    return NEAR if strategy is Strategy.AFFINITY else USUAL


# --- strategies -------------------------------------------------------------------------------------------


def emptiness(free: Resources, allocatable: Resources, asked: Resources) -> float | None:
    """2/n · Σ 10^(fraction left after the placement) over the n dimensions asked for, disk aside (R43, R45).

    `free`: what the node has before it, at least `asked`. 2.0 is a full node, 20.0 an empty one. None: nothing
    but disk is asked for.
    """
    total, dimensions = 0.0, 0
    if asked.cpu_millicores:
        total += 10.0 ** ((free.cpu_millicores - asked.cpu_millicores) / allocatable.cpu_millicores)
        dimensions += 1
    if asked.ram_mb:
        total += 10.0 ** ((free.ram_mb - asked.ram_mb) / allocatable.ram_mb)
        dimensions += 1
    for name, amount in asked.extended:
        total += 10.0 ** ((free.amount(name) - amount) / allocatable.amount(name))
        dimensions += 1
    return 2.0 * total / dimensions if dimensions else None


def bin_pack(emptiness_after: float) -> int:
    """R43: 1000 where the node is full afterwards, 0 where it is empty; half up."""
    return _of_eighteen(20.0 - emptiness_after)


def spread_out(emptiness_after: float) -> int:
    """R44: 0 where the node is full afterwards, 1000 where it is empty; half up."""
    return _of_eighteen(emptiness_after - 2.0)


def _of_eighteen(amount: float) -> int:
    return int(FULL * min(max(amount, 0.0), 18.0) / 18.0 + 0.5)


def packing(request: Request, free: Resources, allocatable: Resources) -> int | None:
    """The strategy's score where it depends on the room that is left; None: it has nothing to say."""
    after = emptiness(free, allocatable, request.vector)
    if after is None:
        return None
    return spread_out(after) if request.strategy is Strategy.SPREAD else bin_pack(after)


def chance(request: Request, attempt: Attempt, node: NodeId, seed: str) -> int:
    """Strategy `random`: hash(request, attempt, node) % 1001, salted with `seed`."""
    return _hash(seed, request.namespace, request.id, str(attempt), node) % (FULL + 1)


def tie(request: Request, node: NodeId) -> int:
    """Among equal best scores the node with the smallest hash(namespace, request, node) is chosen."""
    return _hash(request.namespace, request.id, node)


def _hash(*parts: str) -> int:
    return int.from_bytes(blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big")


# --- scorers that compare nodes --------------------------------------------------------------------------


def by_largest(raw: Sequence[int]) -> list[int]:
    """R12: scaled by the largest in whole percent; all 0 when the largest is 0.

    Where something subtracts (anti-affinity), the lowest counts as 0.
    """
    lowest = min(0, min(raw, default=0))
    largest = max(raw, default=0) - lowest
    if largest <= 0:
        return [0] * len(raw)
    return [(one - lowest) * PERCENT // largest * (FULL // PERCENT) for one in raw]


def by_fewest(raw: Iterable[int | None]) -> list[int]:
    """R24: reversed and scaled by the largest; all 1000 when the largest is 0. None, which cannot tell, is 0."""
    counts = list(raw)
    largest = max((one for one in counts if one is not None), default=0)
    if largest == 0:
        return [0 if one is None else FULL for one in counts]
    return [0 if one is None else (PERCENT - one * PERCENT // largest) * (FULL // PERCENT) for one in counts]


def blended(spoken: Sequence[tuple[int, Sequence[int]]]) -> list[int]:
    """Σ weight · score // Σ weight over the scorers that spoke, node by node (R48)."""
    assert spoken, "somebody must have spoken"
    whole = sum(weight for weight, _ in spoken)
    weighted = [[weight * one for one in scores] for weight, scores in spoken]
    return [sum(parts) // whole for parts in zip(*weighted, strict=True)]
