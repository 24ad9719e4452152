"""Raft nodes whose disks were lost: one rejoins by itself, all together only when an operator says so (RAFT 2)."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.e2e.running_cluster import RunningCluster, a_request, eventually

pytestmark = pytest.mark.e2e

MEMBERS = ("raft-1", "raft-2", "raft-3")


def has_votes(cluster: RunningCluster) -> dict[str, bool]:
    done = cluster.run("raft", "status", "--json")
    return {one["id"]: one["has_votes"] for one in done.json["members"]} if done.code == 0 else {}


def lose_the_disk(cluster: RunningCluster, name: str) -> None:
    shutil.rmtree(cluster.folder / "data" / name)


def test_a_node_with_a_new_disk_votes_again_once_it_follows_and_all_with_new_disks_after_recover(
    tmp_path: Path,
) -> None:
    cluster = RunningCluster(tmp_path / "berth", nodes=2)
    try:
        victim = cluster.leader()
        lose_the_disk(cluster, victim)
        cluster.kill(victim)
        eventually(lambda: has_votes(cluster), lambda found: found == dict.fromkeys(MEMBERS, True), within_s=60)
        assert cluster.decision(a_request("after-one"))["status"] == "placed"

        pids = [cluster.pid_of(name) for name in MEMBERS]
        for name in MEMBERS:
            lose_the_disk(cluster, name)
        for pid in pids:  # at once: who came back before the last was gone would rejoin
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: has_votes(cluster), lambda found: found == dict.fromkeys(MEMBERS, False), within_s=60)
        done = cluster.run("raft", "recover", "--json")
        assert done.code == 0, done.err
        assert done.json["nodes"] == list(MEMBERS)
        assert cluster.decision(a_request("after-all"), wait=30)["status"] == "placed"
        refused = cluster.run("raft", "recover")
        assert refused.code == 1
        assert "still has its votes" in refused.err
        assert cluster.audit()["violations"] == []
    finally:
        cluster.stop()
