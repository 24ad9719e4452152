"""Who leaves for whom, against every other choice of victims on small clusters (R54, R60)."""

from collections.abc import Iterator
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from berth.ids import AllocationId, NodeId
from berth.messages.commands import EvaluationItem
from berth.messages.requests import Request
from berth.model.check import check
from berth.model.ledger import State
from berth_scheduler.placement import transaction_of
from tests.builders import SECOND, T0, a_node, a_quota, a_request, a_state, happened, placed
from tests.unit.berth_scheduler.evicting import MAY, asked, found

ROWS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(1, 4), st.sampled_from((10, 20, 30, 60))), min_size=1, max_size=6
)


@given(rows=ROWS, wanted=st.integers(1, 6), priority=st.sampled_from((20, 40, 90)), short=st.booleans())
def test_no_victim_could_be_spared_and_where_any_set_helps_one_is_found(
    rows: list[tuple[int, int, int]], wanted: int, priority: int, short: bool
) -> None:
    """R54, R60 by brute force: the placement is lawful, nobody evicted is needless, and nothing is overlooked."""
    quota = [a_quota(hard={"cpu_millicores": 8_000})] if short else []
    state = a_state(*(a_node(f"n{node}", cpu=6_000) for node in (0, 1)), *quota)
    for number, (node, cores, its) in enumerate(rows):
        running = placed(a_request(f"r{number}", cpu=cores * 1_000, priority=its), f"n{node}")
        if check(state, running, state.at) is None:
            happened(state, running, at=T0 + number * SECOND)
    request = asked(
        a_request("urgent", cpu=wanted * 1_000, priority=priority),
        MAY.model_copy(update={"quota_short": short}),
    )
    before = state.digest()

    answer = found(state, request.request, request.grant, state.at)

    assert state.digest() == before
    helpful = list(_helpful(state, request))
    if answer is None:
        assert not any(its for its, _ in helpful)
        return
    assert check(state, transaction_of(state, request, answer), state.at) is None
    chosen = {one.id for one in answer.evicted}
    node = answer.allocations[0].node
    assert (chosen, node) in helpful
    assert not any(its < chosen and there == node for its, there in helpful), "somebody could have been spared"


def _helpful(state: State, request: EvaluationItem) -> Iterator[tuple[set[AllocationId], NodeId]]:
    """Every set of lower priority whose leaving lets the request be placed somewhere, each with the node."""
    below = [one for one in state.cluster.allocations.values() if one.priority < request.request.priority]
    for size in range(len(below) + 1):
        for those in combinations(below, size):
            left = state.quotas.used_by(request.request.namespace)
            with state.journal.trial():
                for one in those:
                    state.cluster.vacate(one)
                    left = left - one.charge
                fits = _nodes_that_fit(state, request.request)
            used = left.cpu_millicores + request.request.charge.cpu_millicores
            if not request.grant.quota_short or used <= 8_000:
                yield from (({one.id for one in those}, node) for node in fits)


def _nodes_that_fit(state: State, request: Request) -> list[NodeId]:
    return [
        name
        for name, node in state.cluster.nodes.items()
        if state.cluster.used_on(name).cpu_millicores + request.charge.cpu_millicores <= node.capacity.cpu_millicores
    ]
