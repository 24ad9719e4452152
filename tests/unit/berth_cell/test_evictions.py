"""Preemption through the whole walk: what `plan` says of it, and that it comes to an end (R53, R63)."""

from hypothesis import given, settings
from hypothesis import strategies as st

from berth.messages.documents import CLUSTER
from berth.messages.events import AllocationsEnded, RequestPlaced
from berth.messages.reasons import ReasonCode
from berth.model.cluster import AllocationState
from berth.wire.codec import decode_record
from berth_cell.cell import Cell
from berth_cell.plan import plan_document
from tests.builders import T0, a_node, a_quota, a_request


def test_a_plan_lists_who_would_be_evicted_and_does_not_drive_them_again() -> None:
    cluster = CLUSTER.validate_python(
        {
            "nodes": [{"id": node, "capacity": {"cpu_cores": 4}} for node in ("n1", "n2")],
            "allocations": [
                {
                    "id": f"{name}.0",
                    "request": name,
                    "namespace": "team-a",
                    "node": node,
                    "resources": {"cpu_cores": 3},
                    "priority": priority,
                }
                for name, node, priority in (("low", "n1", 10), ("lower", "n2", 5))
            ],
        },
        strict=False,
    )
    requests = [a_request("urgent", cpu=4_000, priority=90), a_request("next", cpu=4_000, priority=8)]

    result = plan_document(cluster, requests, at_ms=T0)

    urgent, late = result.decisions
    assert urgent.status == "placed"
    assert [(one.allocation, one.node, one.reason) for one in urgent.evicted] == [
        ("lower.0", "n2", ReasonCode.PREEMPTED)
    ]
    assert late.status == "queued"
    assert late.evicted == ()


WORK = st.tuples(st.integers(1, 4), st.sampled_from((0, 10, 50, 90)), st.integers(1, 2))


@settings(max_examples=40, deadline=None)
@given(work=st.lists(WORK, min_size=1, max_size=12), short=st.booleans())
def test_r63_whatever_is_asked_for_it_comes_to_rest_and_nobody_is_evicted_for_less(
    work: list[tuple[int, int, int]], short: bool
) -> None:
    """A cell that never rests fails by itself. In the end who waits could take no place from anybody below."""
    quota = [a_quota(hard={"cpu_millicores": 6_000})] if short else []
    cell = Cell(at_ms=T0, history=[(T0, one) for one in (a_node("n1", cpu=4_000), a_node("n2", cpu=4_000), *quota)])

    for number, (cores, priority, count) in enumerate(work):
        cell.submit([a_request(f"r{number}", cpu=cores * 1_000, priority=priority, count=count)])

    known = cell.state.queue.requests
    for payload in cell.ledger:
        for transaction in decode_record(payload).transactions:
            evicted = [event for event in transaction if isinstance(event.data, AllocationsEnded)]
            takers = [event for event in transaction if isinstance(event.data, RequestPlaced)]
            for event in evicted:
                (taker,) = takers
                assert event.key is not None
                assert taker.key is not None
                assert known[event.key].request.priority < known[taker.key].request.priority
    live = [one for one in cell.state.cluster.allocations.values() if one.state is AllocationState.PLACED]
    for node, row in cell.state.cluster.nodes.items():
        for waiting in (known[key].request for key in cell.state.queue.waiting):
            above = sum(
                one.charge.cpu_millicores for one in live if one.node == node and one.priority >= waiting.priority
            )
            if waiting.count == 1 and not short:
                assert above + waiting.charge.cpu_millicores > row.capacity.cpu_millicores, (
                    f"{waiting.id} could go there"
                )
