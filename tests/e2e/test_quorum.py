"""Durability `quorum` on real processes: the bus loses its disk and nothing that was acknowledged is lost (RAFT 2)."""

import shutil
from pathlib import Path

import pytest

from tests.e2e.running_cluster import Done, RunningCluster, a_request, berth, eventually

pytestmark = pytest.mark.e2e


def up(folder: Path, *words: str) -> Done:
    return berth("up", "--detach", "--dir", str(folder), "--port", "0", "--nodes", "4", *words)


def test_the_bus_loses_its_disk_and_every_acknowledged_decision_is_back_from_the_mirrors(tmp_path: Path) -> None:
    folder = tmp_path / "berth"
    done = up(folder, "--durability", "quorum")
    assert done.code == 0, done.err
    cluster = RunningCluster(folder, nodes=4)  # it runs already, so this waits for nothing
    try:
        decided = cluster.submit(*[a_request(f"r{number}") for number in range(40)], wait=60).json["decisions"]
        assert {decision["status"] for decision in decided} == {"placed"}
        cluster.kill(cluster.leader())
        assert cluster.decision(a_request("after-the-kill"), wait=30)["status"] == "placed"
        before = {one["id"]: one for one in cluster.run("requests", "--json").json}
        ledger_id = cluster.run("raft", "status", "--json").json["ledger_id"]
        cluster.stop()

        shutil.rmtree(next(path for path in folder.rglob("jetstream") if path.is_dir()))
        done = up(folder)
        assert done.code == 0, done.err

        status = cluster.run("raft", "status", "--json").json
        assert status["ledger_id"] == ledger_id
        assert sum(member["restored"] for member in status["members"]) > 3, "the report says how many records"
        after = eventually(
            lambda: {one["id"]: one for one in cluster.run("requests", "--json").json},
            lambda found: found.keys() == before.keys(),
        )
        assert {id: one["sequence"] for id, one in after.items()} == {id: one["sequence"] for id, one in before.items()}
        assert cluster.decision(a_request("and-it-goes-on"), wait=30)["status"] == "placed"
        assert cluster.audit()["violations"] == []
        refused = up(tmp_path / "berth", "--durability", "ledger")
        assert refused.code == 0, "it runs already"
    finally:
        cluster.stop()

    refused = up(folder, "--durability", "ledger")
    assert refused.code != 0
    assert "durability quorum" in refused.err
