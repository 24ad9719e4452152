"""What a node's labels were good for when work came is not asked again (R13)."""

from berth.ids import NodeId
from berth.messages.events import Event, NodeChanged
from tests.builders import a_node, a_request, placed
from tests.unit.berth_scheduler.stage import Stage

SSD = {"key": "disk", "operator": "equals", "values": ["ssd"]}


def test_r13_what_runs_stays_when_the_labels_that_it_required_go() -> None:
    picky = a_request(constraints=[SSD])
    stage = Stage(a_node("n1", labels={"disk": "ssd"}), placed(picky, "n1"))

    stage.leader.happened((Event(NodeChanged(node=NodeId("n1"), labels={})),), at=stage.now)
    stage.fold()
    stage.advance(5_000, beating=("n1",))

    assert stage.where(picky) == ["n1"]
    assert stage.offers == []
