"""Two quota services: one is active, and when it is killed the other goes on where it was (DESIGN section 2)."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import berth
from tests.e2e.running_cluster import RunningCluster, a_request, eventually

THOUSAND = 1_000
LONG_S = 90


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RunningCluster]:
    running = RunningCluster(tmp_path / "cluster")
    yield running
    running.stop()


def active(cluster: RunningCluster) -> str | None:
    """The quota service that does the work, as `berth status` says."""
    status: dict[str, Any] = cluster.run("status", "--json").json
    assert [row["active"] for row in status["processes"] if row["role"] == "scheduler"] == [None, None]
    return status["active_quota"]


def test_the_active_one_is_killed_in_the_middle_of_a_thousand_submissions(cluster: RunningCluster) -> None:
    assert cluster.decision(a_request("first"), wait=LONG_S)["status"] == "placed"
    holder = eventually(lambda: active(cluster), lambda name: name is not None, within_s=LONG_S)
    assert holder is not None
    pid = cluster.pid_of(holder)

    decisions = asyncio.run(submitted(cluster, kill=pid))

    assert Counter(decision.status for decision in decisions) == {"placed": THOUSAND}
    outcomes = Counter(
        (event["request"], event["type"])
        for event in cluster.run("events", "--json").json
        if event.get("request", "").startswith("many-")
    )
    assert outcomes == {
        (f"many-{number}", type): 1 for number in range(THOUSAND) for type in ("RequestSubmitted", "RequestPlaced")
    }
    assert cluster.audit()["violations"] == []
    # The standby, or the one that was killed: started again, it is as good as any.
    eventually(lambda: active(cluster), lambda name: name is not None, within_s=LONG_S)
    eventually(lambda: cluster.pid_of(holder), lambda now: now != pid, within_s=LONG_S)


async def submitted(cluster: RunningCluster, *, kill: int) -> list[berth.Decision]:
    """The decisions about a thousand requests; the process is killed when a hundred are decided."""
    described = cluster.described()
    key = cluster.folder / described["credentials"]["client"]
    async with berth.connect(described["nats_url"], nkey=key) as connected:
        requests = [
            berth.Request.model_validate(a_request(f"many-{number}", cores=0.001), strict=False)
            for number in range(THOUSAND)
        ]
        tasks = [asyncio.create_task(connected.submit(request, timeout=LONG_S)) for request in requests]
        for decided, one in enumerate(asyncio.as_completed(tasks), start=1):
            await one
            if decided == THOUSAND // 10:
                os.kill(kill, signal.SIGKILL)
        return [task.result() for task in tasks]
