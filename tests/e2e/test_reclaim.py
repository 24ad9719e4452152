"""Three teams on real processes: what one leaves idle the others use, and it gets its share back at once (R60, R61)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.running_cluster import RunningCluster, a_request, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

LONG_S = 90
QUOTAS = {
    "cohorts": [{"name": "lab"}],
    "quotas": [
        {"namespace": "blue", "cohort": "lab", "soft": {"cpu_cores": 4}},
        {"namespace": "red", "cohort": "lab", "soft": {"cpu_cores": 4}},
        {"namespace": "green", "cohort": "lab", "soft": {"cpu_cores": 4}, "burst_percent": 50},
    ],
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RunningCluster]:
    running = RunningCluster(tmp_path / "cluster")
    yield running
    running.stop()


def work(team: str, count: int) -> list[dict[str, Any]]:
    return [a_request(f"{team}-{number}", namespace=team, cores=2) for number in range(1, count + 1)]


def test_an_idle_team_gets_its_share_back_and_who_was_evicted_runs_later(cluster: RunningCluster) -> None:
    assert cluster.run("quota", "apply", "-", stdin=json.dumps(QUOTAS)).code == 0
    for team, count in (("red", 3), ("green", 4)):
        decisions = cluster.submit(*work(team, count), wait=LONG_S).json["decisions"]
        assert [one["status"] for one in decisions] == ["placed"] * count
    explained = cluster.run("quota", "explain", "green", "--json").json
    assert explained["used"]["cpu_millicores"] == 8_000

    planned = cluster.run("plan", "--live", "--requests", "-", "--json", stdin=json.dumps(work("blue", 2))).json
    decisions = cluster.submit(*work("blue", 2), wait=LONG_S).json["decisions"]

    assert [one["status"] for one in decisions] == ["placed", "placed"]
    evicted = [(gone["namespace"], gone["reason"]) for one in decisions for gone in one["evicted"]]
    assert evicted == [("green", "reclaimed"), ("red", "reclaimed")], (
        "what was borrowed; a burst that is in nobody's way stays"
    )
    assert [len(one["evicted"]) for one in planned["decisions"]] == [1, 1]
    waiting = eventually(
        lambda: [row for row in cluster.run("requests", "--json").json if row["status"] == "queued"],
        lambda rows: {row["reasons"][0]["code"] for row in rows} == {"quota_ceiling"},
        within_s=LONG_S,
    )
    assert len(waiting) == 2

    for one in work("blue", 2):
        assert cluster.run("release", f"blue/{one['id']}").code == 0

    eventually(
        lambda: [row["status"] for row in cluster.run("requests", "--json").json if row["namespace"] != "blue"],
        lambda found: found == ["placed"] * 7,
        within_s=LONG_S,
    )
    assert cluster.audit()["violations"] == []
