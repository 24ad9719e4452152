"""The life of a node on real processes: drained under load, killed and come back, removed."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import berth
from tests.e2e.running_cluster import RunningCluster, a_request, eventually

pytestmark = pytest.mark.e2e

WITHIN_S = 60
RUNNER = """#!/bin/sh
folder="$(dirname "$0")/machine-$2"
mkdir -p "$folder"
name=$(echo "$3" | tr / _)
case "$1" in
  list) for one in "$folder"/*; do [ -e "$one" ] && basename "$one" | tr _ /; done; exit 0 ;;
  start) cat > /dev/null; : > "$folder/$name" ;;
  stop) rm -f "$folder/$name" ;;
esac
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    running = RunningCluster(tmp_path_factory.mktemp("nodes") / "berth", nodes=6)
    yield running
    running.stop()


def node_of(cluster: RunningCluster, name: str) -> dict[str, Any] | None:
    rows = cluster.run("nodes", "list", "--json").json
    return next((row for row in rows if row["id"] == name), None)


def placements(cluster: RunningCluster) -> Counter[str]:
    """How often each request was placed, as the ledger says."""
    events = cluster.run("events", "--json").json
    return Counter(event["request"] for event in events if event["type"] == "RequestPlaced")


def where(cluster: RunningCluster, *requests: str) -> dict[str, str]:
    """The node of each request's live allocation, of which there must be one."""
    rows = [row for row in cluster.run("allocations", "--json").json if row["request"] in requests]
    assert max(Counter(row["request"] for row in rows).values(), default=1) == 1, rows
    return {row["request"]: row["node"] for row in rows}


def test_draining_a_node_with_fifty_allocations_under_load_moves_each_exactly_once(cluster: RunningCluster) -> None:
    others = [row["id"] for row in cluster.run("nodes", "list", "--json").json if row["id"] != "node-001"]
    for node in others:
        assert cluster.run("nodes", "cordon", node).code == 0
    fifty = [f"move-{number}" for number in range(50)]
    assert cluster.submit(*(a_request(name, cores=0.05) for name in fifty), wait=WITHIN_S).code == 0
    assert set(where(cluster, *fifty).values()) == {"node-001"}
    for node in others:
        assert cluster.run("nodes", "uncordon", node).code == 0

    load = asyncio.run(_drain_under_load(cluster))

    row = cluster.run("nodes", "show", "node-001", "--json").json
    assert (row["drain"]["moved"], row["drain"]["evicted"], row["drain"]["left"]) == (50, 0, 0)
    assert set(load) == {"placed"}
    counted = placements(cluster)
    assert {counted[name] for name in fifty} == {2}, "placed once, and moved once"
    assert {counted[f"load-{number}"] for number in range(len(load))} == {1}
    now = where(cluster, *fifty)
    assert len(now) == 50 and "node-001" not in now.values()
    assert cluster.audit()["violations"] == []
    assert "drained" in cluster.run("nodes", "list").out
    assert cluster.run("nodes", "uncordon", "node-001").code == 0


async def _drain_under_load(cluster: RunningCluster) -> list[str]:
    """Requests come all the time until the drain is over; what became of them."""
    described = cluster.described()
    keys = {role: cluster.folder / path for role, path in described["credentials"].items()}
    async with (
        berth.connect(described["nats_url"], nkey=keys["client"]) as client,
        berth.connect(described["nats_url"], nkey=keys["admin"]) as admin,
    ):
        submitted: list[asyncio.Task[Any]] = []

        async def load() -> None:
            while len(submitted) < 500:
                request = a_request(f"load-{len(submitted)}", cores=0.01)
                wish = berth.Request.model_validate(request, strict=False)
                submitted.append(asyncio.create_task(client.submit(wish, timeout=WITHIN_S)))
                await asyncio.sleep(0.02)

        loading = asyncio.create_task(load())
        await admin.nodes.drain("node-001", deadline_seconds=600)
        await admin.nodes.drained("node-001", timeout=WITHIN_S)
        loading.cancel()
        return [decision.status.value for decision in await asyncio.gather(*submitted)]


def test_what_has_no_other_place_stays_until_the_deadline_and_then_waits(cluster: RunningCluster) -> None:
    pinned = a_request("pinned", node="node-002")
    assert cluster.submit(pinned, wait=WITHIN_S).code == 0
    assert cluster.run("nodes", "drain", "node-002", "--deadline", "600").code == 0
    shown = cluster.run("nodes", "show", "node-002")
    row = cluster.run("nodes", "show", "node-002", "--json").json
    assert "team-a/pinned.0" in shown.out and "{" not in shown.out
    [waiting] = [one for one in row["drain"]["waiting"] if one["request"] == "pinned"]
    assert (waiting["waits_for"], bool(waiting["reasons"])) == ("place", True)
    refused = cluster.run("nodes", "remove", "node-002")
    assert refused.code == 1 and "drain" in refused.err

    waited = cluster.run("nodes", "drain", "node-002", "--deadline", "1", "--wait", "--json")

    assert (waited.code, waited.json["drain"]["left"]) == (0, 0), waited.err
    assert cluster.run("requests", "pinned", "--json").json[0]["status"] == "queued"
    assert cluster.run("nodes", "uncordon", "node-002").code == 0
    eventually(
        lambda: cluster.run("requests", "pinned", "--json").json[0]["status"],
        lambda status: status == "placed",
        within_s=WITHIN_S,
    )


def test_a_removed_node_stays_away_although_its_agent_runs(cluster: RunningCluster) -> None:
    assert cluster.run("nodes", "remove", "node-006", "--force").code == 0
    sequence = cluster.run("raft", "status", "--json").json["sequence"]

    logs = sorted((cluster.folder / "logs").glob("agent*.log"))
    eventually(
        lambda: [log for log in logs if "node_removed" in log.read_text()], lambda told: told != [], within_s=WITHIN_S
    )
    assert cluster.submit(a_request("after-the-removal"), wait=WITHIN_S).code == 0
    assert node_of(cluster, "node-006") is None
    events = cluster.run("events", "--from", str(sequence), "--json").json
    assert not [one for one in events if one["type"] == "NodeRegistered" and one["data"]["node"] == "node-006"]
    assert cluster.run("nodes", "remove", "node-006").code == 3


def test_killing_an_agent_places_its_work_elsewhere_and_when_it_returns_nothing_runs_twice(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    runner = tmp_path / "runner.sh"
    runner.write_text(RUNNER)
    runner.chmod(0o755)
    first, second = _agent(cluster, tmp_path, "edge-1"), _agent(cluster, tmp_path, "edge-2")
    try:
        for node in ("edge-1", "edge-2"):
            _until_ready(cluster, node)
        on_edge = {"key": "edge", "operator": "exists"}
        first_only = {"key": "node.id", "operator": "equals", "values": ["edge-1"], "mode": "preferred", "weight": 100}
        names = [f"edge-work-{number}" for number in range(5)]
        work = [a_request(name, constraints=[on_edge, first_only]) for name in names]
        assert cluster.run("nodes", "cordon", "edge-2").code == 0
        assert cluster.submit(*work, wait=WITHIN_S).code == 0
        eventually(lambda: _machine(tmp_path, "edge-1"), lambda ran: len(ran) == 5, within_s=WITHIN_S)
        assert cluster.run("nodes", "uncordon", "edge-2").code == 0

        first.send_signal(signal.SIGKILL)
        first.wait()
        eventually(lambda: _machine(tmp_path, "edge-2"), lambda ran: len(ran) == 5, within_s=WITHIN_S)
        assert set(where(cluster, *names).values()) == {"edge-2"}
        assert len(_machine(tmp_path, "edge-1")) == 5, "its programs outlived their agent"

        first = _agent(cluster, tmp_path, "edge-1")
        _until_ready(cluster, "edge-1")

        assert _machine(tmp_path, "edge-1") == [], "stopped before it registered"
        assert _machine(tmp_path, "edge-2") == sorted(f"team-a_{name}.0.1" for name in names)
        assert {placements(cluster)[name] for name in names} == {2}
        assert set(where(cluster, *names).values()) == {"edge-2"}
        assert cluster.audit()["violations"] == []
    finally:
        for agent in (first, second):
            agent.terminate()
            agent.wait()


def _agent(cluster: RunningCluster, folder: Path, node: str) -> "subprocess.Popen[bytes]":
    """An agent of its own process, whom no supervisor starts again."""
    document = folder / f"{node}.yaml"
    document.write_text(f"{{id: {node}, capacity: {{cpu_cores: 2, ram_mb: 4096}}, labels: {{edge: '1'}}}}")
    words = ("agent", "--dir", str(cluster.folder), "--node", str(document), "--runner", str(folder / "runner.sh"))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BERTH_", "OTEL_"))}
    with (folder / f"{node}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "berth_cli.main", *words], env=clean, stdout=subprocess.DEVNULL, stderr=log
        )


def _machine(folder: Path, node: str) -> list[str]:
    there = folder / f"machine-{node}"
    return sorted(path.name for path in there.iterdir()) if there.is_dir() else []


def _until_ready(cluster: RunningCluster, node: str) -> None:
    eventually(
        lambda: node_of(cluster, node), lambda row: row is not None and row["state"] == "ready", within_s=WITHIN_S
    )
