"""The whole walk on real processes: decided, queued and driven again, killed and carried on, never twice."""

import asyncio
import json
import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import berth
from tests.e2e.running_cluster import Done, RunningCluster, a_request, eventually
from tests.e2e.running_cluster import berth as command

pytestmark = pytest.mark.e2e

NO_VALUES = {"key": "region", "operator": "in"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    running = RunningCluster(tmp_path_factory.mktemp("cluster") / "berth")
    yield running
    running.stop()


def status_of(cluster: RunningCluster, name: str) -> str:
    return cluster.run("requests", name, "--json").json[0]["status"]


def node_of(cluster: RunningCluster, name: str) -> dict[str, Any]:
    return next(node for node in cluster.run("nodes", "list", "--json").json if node["id"] == name)


def test_the_seed_example_is_placed_on_a_node_that_satisfies_it(cluster: RunningCluster) -> None:
    done = cluster.submit(
        {
            "id": "web-1",
            "namespace": "team-a",
            "resources": {"cpu_cores": 4.0, "ram_mb": 8192},
            "constraints": [{"key": "region", "operator": "in", "values": ["us-east-1"], "mode": "required"}],
        },
        wait=5,
    )

    assert done.code == 0, done.err
    decision = done.json["decisions"][0]
    node = node_of(cluster, decision["allocations"][0]["node"])
    assert decision["status"] == "placed"
    assert node["labels"]["region"] == "us-east-1"
    assert node["used"]["cpu_millicores"] >= 4_000


def test_the_python_client_says_the_same(cluster: RunningCluster) -> None:
    described = cluster.described()
    key = cluster.folder / described["credentials"]["client"]
    wishes = berth.Preferences.binpack().require("region", "in", ["us-east-1"]).prefer("disk", "equals", ["ssd"])
    request = wishes.apply(
        berth.Request(id="py-1", namespace="team-a", resources=berth.Amounts(cpu_cores=1, ram_mb=512))  # pyright: ignore[reportArgumentType]
    )

    async def story() -> tuple[str, bool]:
        async with berth.connect(described["nats_url"], nkey=key) as connected:
            decision = await connected.submit(request)
            leader = await connected.raft.leader()
            assert leader is not None
            return decision.status.value, await connected.raft.is_leader(leader)

    assert asyncio.run(story()) == ("placed", True)
    with berth.blocking.connect(described["nats_url"], nkey=key) as connected:
        assert connected.submit(request).status.value == "placed"


def test_over_quota_waits_with_a_reason_and_runs_after_a_release(cluster: RunningCluster) -> None:
    assert cluster.run("quota", "set", "tight", "--hard", "cpu_cores=1").code == 0
    first = cluster.submit(a_request("first", namespace="tight", cores=1))
    second = cluster.submit(a_request("second", namespace="tight", cores=1), wait=1)

    assert (first.code, second.code) == (0, 5)
    assert second.json["decisions"][0]["reasons"][0]["code"] == "quota_hard"

    assert cluster.run("release", "tight/first").code == 0
    eventually(lambda: status_of(cluster, "tight/second"), lambda status: status == "placed")
    assert status_of(cluster, "tight/first") == "released"


def test_one_id_has_one_outcome_and_another_body_is_a_conflict(cluster: RunningCluster) -> None:
    request = a_request("once")

    again = [cluster.submit(request) for _ in range(2)]
    other = cluster.submit(a_request("once", cores=0.2))

    assert [done.code for done in again] == [0, 0]
    assert again[0].json["decisions"][0]["allocations"] == again[1].json["decisions"][0]["allocations"]
    assert other.code == 4
    assert other.json["decisions"][0]["reasons"][0]["code"] == "conflict"


def test_what_can_never_be_is_rejected_and_what_cannot_be_now_waits(cluster: RunningCluster) -> None:
    assert cluster.run("quota", "set", "small", "--hard", "cpu_cores=2").code == 0

    assert cluster.decision(a_request("huge", namespace="small", cores=3), wait=5)["status"] == "rejected"
    nowhere = cluster.decision(a_request("nowhere", cores=4_000), wait=1)
    assert nowhere["status"] == "queued"
    assert nowhere["reasons"][0]["code"] == "infeasible"


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ("- id: web-1\n  namespace: [", "standard input:"),
        ("just words", "requests"),
        (json.dumps([a_request("x") | {"colour": "red"}]), "requests[0].colour"),
        (json.dumps([a_request("x", namespace="team.a")]), "requests[0].namespace"),
        (json.dumps([a_request("x", cores=-1)]), "requests[0].resources.cpu_cores"),
        (
            json.dumps([a_request("x", constraints=[{"key": "a", "operator": "in"}])]),
            "requests[0].constraints[0].values",
        ),
        (json.dumps([a_request("x", labels={f"l{n}": "v" * 60 for n in range(30_000)})]), "requests[0]"),
        (json.dumps([a_request("x"), a_request("x")]), "requests[1].id"),
    ],
)
def test_bad_input_is_a_clear_line_and_harms_nobody(cluster: RunningCluster, document: str, path: str) -> None:
    done = cluster.run("submit", "-", "--wait", "5", stdin=document)

    assert done.code == 2
    assert path in done.err
    assert "Traceback" not in done.err
    assert len(done.err.strip().splitlines()) <= 2
    assert cluster.submit(a_request(f"after-{abs(hash(document)) % 10_000}")).code == 0


def test_nobody_there_is_exit_code_seven(tmp_path: Path) -> None:
    done = command("requests", "--url", "nats://127.0.0.1:1")
    nowhere = command("requests", "--dir", str(tmp_path))

    assert (done.code, nowhere.code) == (7, 7)
    assert done.err.count("\n") == 1
    assert "berth up" in nowhere.err


def test_a_request_leaves_one_trace_through_all_services(cluster: RunningCluster) -> None:
    assert cluster.submit(a_request("traced")).code == 0

    spans = eventually(
        lambda: cluster.run("trace", "traced", "--json").json,
        lambda spans: any(span["service"] == "berth-cli" for span in spans) and len(spans) >= 6,
    )

    assert len({span["trace_id"] for span in spans}) == 1
    assert {"berth-cli", "berth-quota", "berth-scheduler", "berth-raft"} <= {span["service"] for span in spans}
    assert any(span["name"] == "append berth.v1.ledger" for span in spans)
    ids = {span["span_id"] for span in spans}
    assert [span["name"] for span in spans if span["parent"] not in ids] == ["publish berth.v1.request.{namespace}"]

    url = f"{cluster.described()['console_url']}/traces/{spans[0]['trace_id']}"
    with urllib.request.urlopen(url) as answered:
        page = answered.read().decode()
    shown = re.findall(r'data-span-id="([0-9a-f]+)" data-parent-id="([0-9a-f]*)"', page)
    assert sorted(shown) == sorted((span["span_id"], span["parent"] or "") for span in spans)


def test_the_events_tell_the_story_and_two_replays_agree(cluster: RunningCluster) -> None:
    types = [event["type"] for event in cluster.run("events", "--json").json]
    one, two = cluster.audit(), cluster.audit()

    assert types[:2] == ["LedgerCreated", "LeaderElected"]
    assert types.index("RequestSubmitted") < types.index("RequestPlaced")
    assert one["violations"] == []
    assert (one["digest"], one["records"]) == (two["digest"], two["records"])


def test_a_reservation_is_drawn_from_and_ends(cluster: RunningCluster) -> None:
    node = cluster.run("nodes", "list", "--json").json[0]["id"]
    document = {"id": "res1", "namespace": "booked", "resources": {"cpu_cores": 1}, "count": 1, "nodes": [node]}
    created = cluster.run(
        "reservation", "create", "-", "--json", stdin=json.dumps(document | {"duration_seconds": 600})
    )
    assert created.code == 0, created.err
    assert created.json["state"] == "active"

    placed = cluster.decision(a_request("inside", namespace="booked", cores=1, reservation="res1"))

    assert placed["allocations"][0]["node"] == node
    assert cluster.run("release", "booked/inside").code == 0
    eventually(lambda: status_of(cluster, "booked/inside"), lambda status: status == "released")
    assert cluster.run("reservation", "cancel", "res1").code == 0
    assert cluster.run("reservation", "show", "res1", "--json").json["state"] == "released"


def test_explain_names_every_node_and_the_smallest_change(cluster: RunningCluster) -> None:
    assert cluster.submit(a_request("too-big", cores=500), wait=1).code == 5

    told = cluster.run("explain", "too-big", "--json").json

    assert {node["node"] for node in told["nodes"]} == {
        node["id"] for node in cluster.run("nodes", "list", "--json").json
    }
    assert all(node["reasons"] for node in told["nodes"])
    smaller = told["change"]["at_most"]["cpu_millicores"] / 1000
    assert cluster.submit(a_request("small-enough", cores=smaller)).code == 0
    assert cluster.run("release", "small-enough").code == 0


def test_the_key_of_one_namespace_sees_and_does_what_is_its_own(cluster: RunningCluster) -> None:
    assert cluster.run("init", "--client", "team-c").code == 0
    key = ("--nkey", str(cluster.folder / "keys" / "client-team-c.nk"))
    own = json.dumps([a_request("mine", namespace="team-c")])
    other = json.dumps([a_request("yours")])

    assert cluster.run("submit", "-", "--wait", "10", *key, stdin=own).code == 0
    assert {row["namespace"] for row in cluster.run("requests", "--json", *key).json} == {"team-c"}
    refused = cluster.run("submit", "-", "--wait", "5", *key, stdin=other)
    assert refused.code == 1
    assert "may not" in refused.err


def test_planning_live_submits_nothing(cluster: RunningCluster) -> None:
    before = cluster.run("raft", "status", "--json").json["sequence"]

    done = cluster.run("plan", "--live", "--requests", "-", "--json", stdin=json.dumps([a_request("what-if")]))

    assert (done.code, done.json["decisions"][0]["status"]) == (0, "placed")
    assert cluster.run("requests", "what-if").code == 3
    assert cluster.run("raft", "status", "--json").json["sequence"] == before


# --- kill -9 ------------------------------------------------------------------------------------------


def decided_again(cluster: RunningCluster, name: str) -> Done:
    done = cluster.submit(a_request(name), wait=20)
    assert done.code == 0, done.err
    return done


def test_killing_the_leader_loses_nothing_and_another_leads(cluster: RunningCluster) -> None:
    before = cluster.run("raft", "status", "--json").json
    cluster.kill(before["leader"])

    decided_again(cluster, "after-the-leader")

    after = cluster.run("raft", "status", "--json").json
    assert after["leader"] not in (None, before["leader"])
    assert after["term"] > before["term"]
    assert cluster.audit()["violations"] == []


@pytest.mark.parametrize("name", ["nats", "quota-1", "scheduler-1", "reservation-1", "console"])
def test_killing_a_process_loses_nothing(cluster: RunningCluster, name: str) -> None:
    pid = cluster.pid_of(name)
    cluster.kill(name)

    decided_again(cluster, f"after-{name}")

    eventually(lambda: cluster.pid_of(name), lambda now: now != pid)
    assert cluster.audit()["violations"] == []


def test_killing_everything_but_the_supervisor_loses_nothing(cluster: RunningCluster) -> None:
    known = {row["id"] for row in cluster.run("requests", "--json").json}
    for process in cluster.described()["processes"]:
        if process["role"] != "supervisor":
            os.kill(process["pid"], signal.SIGKILL)

    decided_again(cluster, "after-everything")

    now = {row["id"] for row in cluster.run("requests", "--json").json}
    assert known < now, "I19"
    assert cluster.audit()["violations"] == []


def test_a_thousand_requests_while_the_leader_is_killed_twice(cluster: RunningCluster) -> None:
    requests = [a_request(f"many-{number}", cores=0.001) for number in range(1_000)]
    described = cluster.described()
    key = cluster.folder / described["credentials"]["client"]

    async def story() -> list[str]:
        async with berth.connect(described["nats_url"], nkey=key) as connected:
            submitted = [
                asyncio.create_task(connected.submit(berth.Request.model_validate(one, strict=False), timeout=60))
                for one in requests
            ]
            for _ in range(2):
                await asyncio.to_thread(lambda: cluster.kill(cluster.leader()))
                await asyncio.sleep(1)
            return [decision.status.value for decision in await asyncio.gather(*submitted)]

    assert asyncio.run(story()) == ["placed"] * 1_000

    placed = [event["request"] for event in cluster.run("events", "--json").json if event["type"] == "RequestPlaced"]
    for number in range(1_000):
        assert placed.count(f"many-{number}") == 1
    assert cluster.audit()["violations"] == []


def test_a_killed_supervisor_takes_its_children_along_and_the_folder_goes_on(cluster: RunningCluster) -> None:
    decided_again(cluster, "before-the-supervisor")
    before = cluster.audit()
    pids = [process["pid"] for process in cluster.described()["processes"]]
    cluster.kill("supervisor")

    eventually(lambda: [pid for pid in pids if is_alive(pid)], lambda alive: alive == [])
    cluster.up()

    after = cluster.audit()
    assert after["violations"] == []
    assert after["records"] >= before["records"]
    assert status_of(cluster, "before-the-supervisor") == "placed"
    decided_again(cluster, "after-the-supervisor")


def is_alive(pid: int) -> bool:
    """A zombie that nobody has reaped counts as dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
