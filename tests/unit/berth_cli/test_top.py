"""`berth top`: groups of nodes by label, each with what it uses and what of the rest is stranded."""

from berth.model.ledger import State
from berth_cli.top import described, lines
from berth_console import views
from berth_console.views import Selection
from tests.builders import a_node, a_request, a_state, placed


def a_cluster() -> State:
    return a_state(
        a_node("n1", cpu=8_000, labels={"zone": "a"}, extended={"gpu": 2}),
        a_node("n2", cpu=8_000, labels={"zone": "a"}),
        a_node("n3", cpu=2_000),
        placed(a_request("web", cpu=4_000, extended={"gpu": 1}), "n1"),
        placed(a_request("job", cpu=4_000), "n2"),
    )


def rows(state: State) -> list[dict[str, object]]:
    return [row for _, row in views.usage(state, Selection())]


def test_nodes_of_one_label_are_one_group_and_those_without_it_another() -> None:
    told = described(rows(a_cluster()), "zone")

    assert [(group["group"], group["nodes"]) for group in told["groups"]] == [("", 1), ("a", 2)]
    without, zone = told["groups"]
    assert zone["utilization"] == {"cpu": 0.5, "ram": 0.0, "disk": 0.0, "instances": 0.009091, "gpu": 0.5}
    assert zone["fragmentation"]["gpu"] == 0.0
    assert without["fragmentation"]["cpu"] == 1.0, "2 cores are less than any recent shape asks for"
    assert told["cluster"]["nodes"] == 3
    assert told["cluster"]["fragmentation"]["cpu"] == 0.2


def test_each_node_stands_by_itself_when_no_label_is_named() -> None:
    told = described(rows(a_cluster()), "node")

    assert [group["group"] for group in told["groups"]] == ["n1", "n2", "n3"]
    assert lines(told)[0].split() == ["NODE", "NODES", "CPU", "RAM", "DISK", "INSTANCES", "GPU"]
    assert lines(told)[3].startswith("n3    1      0 % (100 %)")
    assert lines(told)[4].startswith("all   3      44 % (20 %)")


def test_a_cluster_without_nodes_has_nothing_to_show() -> None:
    assert described([], "node")["groups"] == []
