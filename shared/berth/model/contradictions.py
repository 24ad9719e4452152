"""What a request asks for that no node could ever be, in any cluster: said at once, with the conditions that clash.

A condition asks about one key, so a contradiction lies within the conditions on one key. Whether some label value
satisfies them all is tried out on every value that could make a difference.
"""

from collections.abc import Iterable, Iterator
from itertools import combinations

from berth.messages.requests import AffinityTerm, Constraint, Mode, Operator, Request
from berth.model.census import Selector, selector
from berth.model.feasibility import is_met, spoken

COMPARING = (Operator.GT, Operator.LT)


def contradiction(request: Request) -> str | None:
    """Which of the request's own conditions exclude each other, in a few words; None: nothing does."""
    required = [one for one in request.constraints if one.mode is Mode.REQUIRED]
    if request.node is not None:
        required.append(Constraint(key="node.id", operator=Operator.EQUALS, values=(request.node,)))
    return _clash(required) or _hopeless(required, request.any_of) or _near_and_far(request)


def _clash(conditions: Iterable[Constraint]) -> str | None:
    by_key: dict[str, list[Constraint]] = {}
    for one in conditions:
        by_key.setdefault(one.key, []).append(one)
    for those in by_key.values():
        if _is_satisfiable(those):
            continue
        few = [subset for size in (1, 2) for subset in combinations(those, size) if not _is_satisfiable(subset)]
        match few[0] if few else those:
            case (one,):
                return f"{spoken(one)} never holds"
            case (one, other):
                return f"{spoken(one)} contradicts {spoken(other)}"
            case _:
                return f"{_listed(those)} contradict each other"
    return None


def _listed(conditions: Iterable[Constraint]) -> str:
    *rest, last = map(spoken, conditions)
    return f"{', '.join(rest)} and {last}"


def _hopeless(required: list[Constraint], alternatives: tuple[tuple[Constraint, ...], ...]) -> str | None:
    """Every alternative is empty (R8) or contradicts itself or the constraints."""
    clashes = [_clash((*required, *terms)) if terms else "it is empty" for terms in alternatives]
    if not clashes or not all(clashes):
        return None
    return f"no alternative can hold: {'; '.join(dict.fromkeys(map(str, clashes)))}"


def _near_and_far(request: Request) -> str | None:
    """It must be near and must not be near the same allocations, of which it is none itself (R29, R32)."""
    near = [_whom(term, request) for term in request.affinity if term.mode is Mode.REQUIRED]
    for term in request.anti_affinity:
        whom = _whom(term, request)
        if term.mode is Mode.REQUIRED and whom in near and not whom[0].selects(request.namespace, request.labels):
            labels = ",".join(f"{key}={value}" for key, value in whom[0].labels) or "anything"
            return f"affinity to {labels} in {term.topology_key} contradicts anti-affinity to the same"
    return None


def _whom(term: AffinityTerm, request: Request) -> tuple[Selector, str]:
    return selector(term.namespaces or (request.namespace,), term.match_labels), term.topology_key


def _is_satisfiable(conditions: Iterable[Constraint]) -> bool:
    return any(True for _ in satisfying(list(conditions)))


def satisfying(conditions: list[Constraint]) -> Iterator[str | None]:
    """Values of one key, or None for its absence, that meet all `conditions` on it; at least one, if there are any."""
    return (value for value in _values(conditions) if all(is_met(one, value) for one in conditions))


def _values(conditions: list[Constraint]) -> Iterator[str | None]:
    """Absent, each value that is named, one that is not, and the numbers next to each limit, however written."""
    named = {value for one in conditions for value in one.values}
    yield None
    yield from sorted(named)
    yield "x" * (1 + max(map(len, named), default=0))
    limits = [int(one.values[0]) for one in conditions if one.operator in COMPARING]
    for limit in limits:
        for distance in range(1, len(named) + 2):
            for number in (limit - distance, limit + distance):
                sign, digits = ("-" if number < 0 else ""), str(abs(number))
                yield from (f"{sign}{'0' * zeros}{digits}" for zeros in range(len(named) + 1))
