"""The cluster's gauges, as the console computes them from the folded state."""

from itertools import groupby

from berth.ids import Sequence
from berth.model.ledger import State
from berth_console.cluster_view import gauges
from tests.builders import T0, a_node, a_quota, a_request, placed


def test_the_gauges_of_one_name_stand_together() -> None:
    state = State()
    for transaction in (a_node("n1"), a_node("n2"), a_quota(hard={"cpu_millicores": 8_000}), placed(a_request(), "n2")):
        state.fold_transaction(transaction, at=T0, sequence=Sequence(3))

    names = [name for name, _ in groupby(gauges(state), key=lambda gauge: gauge.name)]

    assert names == ["berth.requests", "berth.node.capacity", "berth.node.used", "berth.quota.used"]
