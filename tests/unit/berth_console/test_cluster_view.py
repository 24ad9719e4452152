"""The cluster's gauges, as the console computes them from the folded state."""

from itertools import groupby

from berth.ids import Sequence
from berth.model.ledger import State
from berth_console.cluster_view import gauges
from tests.builders import T0, a_node, a_quota, a_request, a_state, placed


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
    ]


def test_what_no_recent_shape_can_use_is_told_by_node_and_as_a_part_of_what_is_free() -> None:
    state = a_state(a_node("n1", cpu=8_000), a_node("n2", cpu=2_000), placed(a_request(cpu=6_000), "n1"))

    told = {(gauge.name, *dict(gauge.labels).values()): gauge.value for gauge in gauges(state)}

    assert told["berth.node.free", "cpu_millicores", "n1"] == 2_000
    assert told["berth.node.stranded", "cpu_millicores", "n1"] == 2_000
    assert told["berth.cluster.utilization", "cpu_millicores"] == 0.6
    assert told["berth.cluster.fragmentation", "cpu_millicores"] == 1.0
