"""Usage over time: what a namespace used lately counts, the longer ago the less (R80, R81). Pure.

A(t + dt) = used + (A(t) − used) × 0.5^(dt / half-life), where `used` was constant meanwhile: in whole numbers, and
in the time of the ledger, so that every process finds the same to the last digit.
"""

from collections.abc import Mapping
from math import isqrt
from typing import Final, NamedTuple

from berth.resources import Resources

THOUSAND: Final = 1000
_BITS: Final = 32
_STEPS: Final = 20
_HALVINGS_MAX: Final = 64


def _roots() -> tuple[int, ...]:
    """2^(−1/2), 2^(−1/4), …: each the root of the one before, in 2^32 parts."""
    found = [isqrt(1 << (2 * _BITS - 1))]
    while len(found) < _STEPS:
        found.append(isqrt(found[-1] << _BITS))
    return tuple(found)


_ROOTS: Final = _roots()


class Decayed(NamedTuple):
    """`amounts` by dimension in thousandths of its unit, as they were at `at` (milliseconds UTC), zeros left out."""

    amounts: Mapping[str, int]
    at: int
    half_life_ms: int


def remaining(elapsed_ms: int, half_life_ms: int) -> int:
    """0.5^(elapsed / half-life) in 2^32 parts; 0 after 64 half-lives."""
    assert elapsed_ms >= 0 and half_life_ms > 0, "I6: time goes back"
    halvings, rest = divmod(elapsed_ms, half_life_ms)
    if halvings >= _HALVINGS_MAX:
        return 0
    part = 1 << _BITS
    fraction = (rest << _STEPS) // half_life_ms
    for step, root in enumerate(_ROOTS, start=1):
        if fraction >> (_STEPS - step) & 1:
            part = part * root >> _BITS
    return part >> halvings


def decayed(past: Decayed, used: Resources, at: int) -> Decayed:
    """What is left of the past at `at`, and what `used` added to it since."""
    part = remaining(at - past.at, past.half_life_ms)
    dimensions = sorted({*past.amounts, *(dimension for dimension, _ in used.dimensions())})
    amounts: dict[str, int] = {}
    for dimension in dimensions:
        now = used.amount(dimension) * THOUSAND
        amount = now + ((past.amounts.get(dimension, 0) - now) * part >> _BITS)
        if amount > 0:
            amounts[dimension] = amount
    return Decayed(amounts=amounts, at=at, half_life_ms=past.half_life_ms)
