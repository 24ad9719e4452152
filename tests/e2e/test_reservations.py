"""Reservations on real processes: services killed at the second of a start, and the command line."""

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from berth.adapters.system_clock import SystemClock
from tests.e2e.running_cluster import RunningCluster, a_request, eventually

pytestmark = pytest.mark.e2e

WITHIN_S = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    running = RunningCluster(tmp_path_factory.mktemp("cluster") / "berth", nodes=6)
    yield running
    running.stop()


def text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def now() -> datetime:
    return datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC)


def create(cluster: RunningCluster, **document: Any) -> dict[str, Any]:
    written = {"namespace": "team-a", "resources": {"cpu_cores": 0.5}, **document}
    done = cluster.run("reservation", "create", "-", "--json", stdin=json.dumps(written))
    assert done.code == 0, done.err
    return done.json


def row(cluster: RunningCluster, name: str) -> dict[str, Any]:
    return cluster.run("reservation", "show", name, "--json").json


def events_of(cluster: RunningCluster, name: str) -> list[dict[str, Any]]:
    told = cluster.run("events", "--json").json
    return [event for event in told if event["data"].get("reservation") == name]


def test_kill_9_of_both_services_at_the_second_of_a_start_gives_one_activation_and_one_end(
    cluster: RunningCluster,
) -> None:
    start = now().replace(microsecond=0) + timedelta(seconds=15)
    create(cluster, id="struck", start=text(start), duration_seconds=8)

    names = [one["name"] for one in cluster.described()["processes"] if one["role"] == "reservation"]
    assert names == ["reservation-1", "reservation-2"]
    pids = [cluster.pid_of(name) for name in names]
    time.sleep(max(0.0, (start - now()).total_seconds()))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)

    eventually(lambda: row(cluster, "struck")["state"], lambda state: state == "expired", within_s=WITHIN_S)
    told = events_of(cluster, "struck")
    assert [event["type"] for event in told] == ["ReservationHeld", "ReservationActivated", "ReservationEnded"]
    (activated,) = [event for event in told if event["type"] == "ReservationActivated"]
    assert activated["at"] >= start.timestamp() * 1000, "never before its start, and with the time it was"
    assert cluster.audit()["violations"] == []


def test_one_service_killed_leaves_the_other_to_begin_the_window(cluster: RunningCluster) -> None:
    start = now().replace(microsecond=0) + timedelta(seconds=10)
    create(cluster, id="covered", start=text(start), duration_seconds=600)
    cluster.kill("reservation-1")

    eventually(lambda: row(cluster, "covered")["state"], lambda state: state == "active", within_s=WITHIN_S)
    assert cluster.run("reservation", "cancel", "covered").code == 0


def test_the_command_line_extends_shrinks_skips_and_cancels(cluster: RunningCluster) -> None:
    recurrence = {"cron": "0 9 * * *", "time_zone": "Europe/Berlin"}
    created = create(cluster, id="daily", duration_seconds=3_600, recurrence=recurrence)
    assert (created["state"], created["occurrence"]) == ("held", 1)

    later = cluster.run("reservation", "extend", "daily", "--by", "600", "--count", "2", "--json")
    assert later.code == 0, later.err
    assert later.json["count"] == 2
    moved = datetime.fromisoformat(later.json["end"]) - datetime.fromisoformat(created["end"])
    assert moved == timedelta(seconds=600)

    smaller = cluster.run("reservation", "shrink", "daily", "--count", "1", "--json")
    assert smaller.json["count"] == 1

    skipped = cluster.run("reservation", "skip", "daily", "--json")
    assert (skipped.json["state"], skipped.json["next"]) == ("cancelled", "daily-2")

    listed = cluster.run("reservation", "list").out
    assert "daily-2" in listed
    assert "--" in listed, "a bar of the timeline"
    assert cluster.run("reservation", "cancel", "daily").code == 0, "of a series the open one is meant"
    assert row(cluster, "daily-2")["state"] == "cancelled"


def test_what_draws_is_evicted_only_when_that_is_said(cluster: RunningCluster) -> None:
    create(cluster, id="in-use", duration_seconds=600)
    assert cluster.decision(a_request("drawer", cores=0.5, reservation="in-use"))["status"] == "placed"

    refused = cluster.run("reservation", "cancel", "in-use")
    assert refused.code == 1
    assert "cancel it with `--evict`" in refused.err

    assert cluster.run("reservation", "cancel", "in-use", "--evict").code == 0
    eventually(
        lambda: cluster.run("requests", "team-a/drawer", "--json").json[0]["status"],
        lambda status: status == "evicted",
        within_s=WITHIN_S,
    )


def test_a_refusal_says_when_it_would_work(cluster: RunningCluster) -> None:
    node = cluster.run("nodes", "list", "--json").json[0]
    whole = {"resources": {"cpu_cores": node["capacity"]["cpu_millicores"] / 1000}, "nodes": [node["id"]]}
    create(cluster, id="first", start="2035-01-01T09:00:00Z", end="2035-01-01T11:00:00Z", **whole)
    second = {"id": "second", "namespace": "team-a", "start": "2035-01-01T10:00:00Z", "duration_seconds": 3_600}

    done = cluster.run("reservation", "create", "-", "--json", stdin=json.dumps({**second, **whole}))

    assert done.code == 1
    assert done.json["refused"]["earliest_start"] == "2035-01-01T11:00:00Z"
    assert done.json["refused"]["in_the_way"] == ["reservation first (until 2035-01-01T11:00:00Z)"]
    assert "it would work from 2035-01-01T11:00:00Z" in done.err
