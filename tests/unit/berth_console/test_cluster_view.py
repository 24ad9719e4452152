"""The cluster's gauges, as the console computes them from the folded state."""

from itertools import groupby

from berth.ids import Attempt, Sequence
from berth.messages.events import RequestQueued, Transaction, Wake, WakeOn, about
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.model.ledger import State
from berth_console.cluster_view import gauges
from tests.builders import T0, TEAM_A, a_node, a_quota, a_request, a_state, happened, placed, submitted


def test_the_gauges_of_one_name_stand_together() -> None:
    state = State()
    for transaction in (a_node("n1"), a_node("n2"), a_quota(hard={"cpu_millicores": 8_000}), placed(a_request(), "n2")):
        state.fold_transaction(transaction, at=T0, sequence=Sequence(3))

    names = [name for name, _ in groupby(gauges(state), key=lambda gauge: gauge.name)]

    assert names == [
        "berth.requests",
        "berth.node.capacity",
        "berth.node.used",
        "berth.node.free",
        "berth.node.stranded",
        "berth.cluster.utilization",
        "berth.cluster.fragmentation",
        "berth.quota.used",
        "berth.quota.drift",
        "berth.quota.guaranteed",
        "berth.quota.share",
    ]


def test_who_waits_is_told_by_reason_and_for_how_long() -> None:
    state = a_state(a_node("n1"))
    for name, at in (("old", T0), ("young", T0 + 30_000)):
        happened(state, queued(state, a_request(name)), at=at)
    happened(state, a_node("n2"), at=T0 + 60_000)

    told = {(gauge.name, *dict(gauge.labels).values()): gauge.value for gauge in gauges(state)}

    assert told["berth.queue.length", TEAM_A, "insufficient_cpu"] == 2
    assert told["berth.queue.time", TEAM_A, "max"] == 60
    assert told["berth.queue.time", TEAM_A, "mean"] == 45


def test_usage_is_told_by_class_and_the_share_with_it() -> None:
    state = a_state(
        a_node("n1", cpu=8_000),
        a_quota(TEAM_A, soft={"cpu_millicores": 2_000}, burst_percent=50, cohort="research"),
        a_quota("lender", soft={"cpu_millicores": 2_000}, cohort="research"),
        placed(a_request(cpu=5_000), "n1"),
    )

    told = {(gauge.name, *dict(gauge.labels).values()): gauge.value for gauge in gauges(state)}

    assert told["berth.quota.guaranteed", "cpu_millicores", TEAM_A] == 2_000
    assert told["berth.quota.borrowed", "cpu_millicores", TEAM_A] == 2_000
    assert told["berth.quota.burst", "cpu_millicores", TEAM_A] == 1_000
    assert told["berth.quota.lent", "cpu_millicores", "lender"] == 2_000
    assert told["berth.quota.share", TEAM_A] == 0.75


def queued(state: State, request: Request) -> Transaction:
    short = Reason(code=ReasonCode.INSUFFICIENT_CPU, nodes=1)
    waits = RequestQueued(reasons=(short,), wake=(Wake(on=WakeOn.CAPACITY),), evaluated_at=state.sequence)
    return (submitted(request), about(request.key, waits, attempt=Attempt(1)))


def test_what_no_recent_shape_can_use_is_told_by_node_and_as_a_part_of_what_is_free() -> None:
    state = a_state(a_node("n1", cpu=8_000), a_node("n2", cpu=2_000), placed(a_request(cpu=6_000), "n1"))

    told = {(gauge.name, *dict(gauge.labels).values()): gauge.value for gauge in gauges(state)}

    assert told["berth.node.free", "cpu_millicores", "n1"] == 2_000
    assert told["berth.node.stranded", "cpu_millicores", "n1"] == 2_000
    assert told["berth.cluster.utilization", "cpu_millicores"] == 0.6
    assert told["berth.cluster.fragmentation", "cpu_millicores"] == 1.0
