"""Planning, explaining and the shape of the cluster on real processes: what would be, what was, and what is wasted."""

import asyncio
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import berth
from tests.e2e.running_cluster import Done, RunningCluster, a_request, eventually

pytestmark = pytest.mark.e2e

NODES = 6


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    running = RunningCluster(tmp_path_factory.mktemp("planning") / "berth", nodes=NODES)
    eventually(lambda: running.run("nodes", "list", "--json").json, lambda rows: len(rows) == NODES, within_s=60)
    yield running
    running.stop()


def rows(cluster: RunningCluster, *words: str) -> Any:
    return cluster.run(*words, "--json").json


def planned(cluster: RunningCluster, folder: Path, *requests: dict[str, Any], **what_if: Any) -> Done:
    """`berth plan --live` of these requests, on the cluster with a difference."""
    words: list[str] = []
    for name, document in (("requests", list(requests)), ("what-if", what_if)):
        if document:
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(document))
            words += [f"--{name}", str(folder / f"{name}.yaml")]
    return cluster.run("plan", "--live", *words, "--json")


def sequence(cluster: RunningCluster) -> int:
    return int(cluster.run("raft", "status", "--json").json["sequence"])


def test_a_plan_is_stamped_with_the_sequence_that_it_was_made_on_and_submitted_only_if_that_still_holds(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    request = a_request("planned")
    plan = planned(cluster, tmp_path, request).json
    assert plan["sequence"] > 0 and plan["decisions"][0]["status"] == "placed"

    seen = ("--if-sequence", str(plan["sequence"]), "--wait", "30")
    done = cluster.run("submit", str(tmp_path / "requests.yaml"), *seen)
    assert done.code == 0, done.err
    assert rows(cluster, "allocations")[0]["node"] == plan["decisions"][0]["allocations"][0]["node"]

    (tmp_path / "late.yaml").write_text(yaml.safe_dump(a_request("late")))
    late = cluster.run("submit", str(tmp_path / "late.yaml"), *seen)
    assert late.code == 4, late.out
    assert "the state has moved on" in late.out
    assert cluster.run("requests", "team-a/late").code == 3, "nothing is stored, so the id is free"
    assert cluster.run("submit", str(tmp_path / "late.yaml"), "--wait", "30").code == 0


def test_a_file_of_several_is_submitted_one_after_the_other(cluster: RunningCluster, tmp_path: Path) -> None:
    (tmp_path / "several.yaml").write_text(yaml.safe_dump([a_request(f"several-{number}") for number in range(3)]))
    now = str(eventually(lambda: planned(cluster, tmp_path, a_request("x")).json["sequence"], lambda at: at > 0))

    done = cluster.run("submit", str(tmp_path / "several.yaml"), "--if-sequence", now, "--wait", "30")

    assert done.code == 0, done.out + done.err
    assert cluster.run("submit", str(tmp_path / "several.yaml"), "--if-sequence", now).code == 2


def test_what_if_nodes_came_changed_and_went(cluster: RunningCluster, tmp_path: Path) -> None:
    before = rows(cluster, "nodes", "list")
    giant = a_request("giant", cores=100.0, constraints=[{"key": "rack", "operator": "equals", "values": ["r1"]}])
    assert planned(cluster, tmp_path, giant).json["decisions"][0]["status"] == "queued"

    with_node = planned(
        cluster,
        tmp_path,
        giant,
        add_nodes=[{"id": "big", "capacity": {"cpu_cores": 200.0, "ram_mb": 1024}}],
        change_nodes=[{"id": "big", "labels": {"rack": "r1"}}],
    )
    assert with_node.code == 0, with_node.out + with_node.err
    assert with_node.json["decisions"][0]["allocations"] == [{"id": "giant.0", "node": "big"}]

    less = {"namespace": "team-a", "hard": {"cpu_cores": 1.0}}
    limited = planned(cluster, tmp_path, a_request("two", cores=2.0), quotas=[less])
    assert limited.code == 5
    assert limited.json["decisions"][0]["reasons"][0]["code"] == "exceeds_hard"

    wrong = planned(cluster, tmp_path, remove_nodes=["nobody"])
    assert wrong.code == 2
    assert "what_if.remove_nodes[0]" in wrong.err
    assert rows(cluster, "nodes", "list") == before


def test_what_if_a_node_with_work_were_removed(cluster: RunningCluster, tmp_path: Path) -> None:
    decision = cluster.decision(a_request("homeless"), wait=30)
    node = decision["allocations"][0]["node"]

    told = planned(cluster, tmp_path, remove_nodes=[node]).json

    moved = {one["request"]: one["allocations"][0]["node"] for one in told["displaced"]}
    assert "homeless" in moved and node not in moved.values()
    assert told["decisions"] == []
    assert rows(cluster, "requests", "team-a/homeless")[0]["attempt"] == decision["attempt"]


def test_explain_says_the_smallest_change_and_what_was_true_in_the_past(cluster: RunningCluster) -> None:
    node = rows(cluster, "nodes", "list")[0]["id"]
    assert cluster.run("nodes", "cordon", node).code == 0
    pinned = a_request("pinned", node=node)
    assert cluster.decision(pinned, wait=3)["status"] == "queued"

    told = rows(cluster, "explain", "team-a/pinned")
    assert told["change"] == {"kind": "uncordon", "node": node, "sentence": f"uncordon {node}"}
    assert told["examined"] == NODES == told["feasible"] + sum(told["counts"].values())
    then = rows(cluster, "requests", "team-a/pinned")[0]["sequence"]

    assert cluster.run("nodes", "uncordon", node).code == 0
    eventually(lambda: rows(cluster, "requests", "team-a/pinned")[0]["status"], lambda status: status == "placed")
    past = rows(cluster, "explain", "team-a/pinned", "--at", str(then))
    assert (past["status"], past["change"]["kind"], past["explained_at"]) == ("queued", "uncordon", then)
    assert rows(cluster, "explain", "pinned")["status"] == "placed"
    assert "uncordon" in cluster.run("explain", "team-a/pinned", "--at", str(then)).out

    assert cluster.run("explain", "team-a/pinned", "--at", "1").code == 3
    beyond = cluster.run("explain", "team-a/pinned", "--at", "999999")
    assert beyond.code == 3 and "the ledger is at" in beyond.err


def test_top_adds_up_by_node_by_label_and_for_the_cluster(cluster: RunningCluster) -> None:
    by_node, by_zone = rows(cluster, "top"), rows(cluster, "top", "--by", "zone")

    nodes = rows(cluster, "nodes", "list")
    zones = {node["labels"].get("zone", "") for node in nodes}
    assert [row["group"] for row in by_node["groups"]] == sorted(node["id"] for node in nodes)
    assert [row["group"] for row in by_zone["groups"]] == sorted(zones)
    for told in (by_node, by_zone):
        assert told["cluster"]["nodes"] == sum(row["nodes"] for row in told["groups"]) == NODES
        for name in ("capacity", "used"):
            total = sum(row[name].get("cpu_millicores", 0) for row in told["groups"])
            assert told["cluster"][name].get("cpu_millicores", 0) == total
    assert "gpu" in by_zone["cluster"]["utilization"], "every dimension, extended ones too"
    assert cluster.run("top", "--by", "zone").out.startswith("ZONE")


def test_the_metrics_tell_the_same_parts_for_each_zone(cluster: RunningCluster) -> None:
    with urllib.request.urlopen(cluster.described()["console_url"] + "/metrics", timeout=20) as answer:
        text = answer.read().decode()

    told = rows(cluster, "top", "--by", "zone")
    for row in told["groups"]:
        wanted = f'berth_group_utilization{{dimension="cpu_millicores",label="zone",value="{row["group"]}"}}'
        assert any(line.startswith(wanted) for line in text.splitlines()), wanted
    assert "berth_group_fragmentation" in text


def test_defrag_proposes_a_bounded_set_of_moves_and_moves_nothing(cluster: RunningCluster) -> None:
    before = {one["id"]: one["node"] for one in rows(cluster, "allocations")}

    told = rows(cluster, "defrag", "--plan", "--moves", "2")

    assert len(told["moves"]) <= 2
    assert told["after"]["places"] >= told["before"]["places"]
    for move in told["moves"]:
        assert before[move["allocation"]] == move["from"] != move["to"]
    assert {one["id"]: one["node"] for one in rows(cluster, "allocations")} == before
    assert cluster.run("defrag").code == 2, "it only proposes"


def test_a_request_that_contradicts_itself_says_so_at_once(cluster: RunningCluster, tmp_path: Path) -> None:
    both = [{"key": "zone", "operator": "equals", "values": [zone]} for zone in ("a", "b")]
    request = a_request("torn", constraints=both)

    decision = cluster.decision(request, wait=3)

    assert decision["reasons"][0] == {
        "code": "infeasible",
        "nodes": 0,
        "detail": "zone equals a contradicts zone equals b",
    }
    (tmp_path / "torn.yaml").write_text(yaml.safe_dump({**request, "id": "torn-2"}))
    stored = cluster.run("submit", str(tmp_path / "torn.yaml"))
    assert stored.code == 0
    assert "will wait in vain: zone equals a contradicts zone equals b" in stored.err


def test_the_python_client_plans_and_submits_on_what_it_planned(cluster: RunningCluster) -> None:
    described = cluster.described()
    key = cluster.folder / described["credentials"]["client"]
    request = berth.Request.model_validate(a_request("from-python"), strict=False)

    async def act() -> tuple[dict[str, Any], berth.Decision, berth.Decision]:
        async with berth.connect(described["nats_url"], nkey=key) as connected:
            plan = await connected.plan([request], by="zone")
            held = request.model_copy(update={"if_sequence": plan["sequence"]})
            placed = await connected.submit(held, until=["placed", "rejected"])
            late = held.model_copy(update={"id": "too-late"})
            return plan, placed, await connected.submit(late, until=["placed", "rejected"])

    plan, placed, late = asyncio.run(act())
    assert plan["usage"]["by"] == "zone"
    assert placed.status == "placed"
    assert [reason.code for reason in late.reasons] == ["conflict"]
