"""`berth up`: everything starts, is started again when it dies, survives crashes, and leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.running_cluster import berth
from tests.e2e.up_cluster import UpCluster, is_gone, processes_of
from tests.waiting import until

pytestmark = pytest.mark.e2e

REQUEST = {
    "id": "web-1",
    "namespace": "team-a",
    "resources": {"cpu_cores": 4, "ram_mb": 8192},
    "constraints": [{"key": "region", "operator": "in", "values": ["us-east-1"], "mode": "required"}],
}


def written(folder: Path, **changed: object) -> str:
    """A request in a file."""
    path = folder / "request.json"
    path.write_text(json.dumps({**REQUEST, **changed}))
    return str(path)


# ---------------------------------------------------------------- what runs


def test_the_description_names_every_process_and_how_to_sign_in(shared_cluster: UpCluster) -> None:
    told = shared_cluster.description

    assert set(told) == {"version", "nats_url", "console_url", "credentials", "processes"}
    roles = {process["name"]: process["role"] for process in told["processes"]}
    assert roles == {
        "supervisor": "supervisor",
        "nats": "nats",
        "raft-1": "raft",
        "raft-2": "raft",
        "raft-3": "raft",
        "quota-1": "quota",
        "quota-2": "quota",
        "scheduler-1": "scheduler",
        "scheduler-2": "scheduler",
        "reservation-1": "reservation",
        "reservation-2": "reservation",
        "console": "console",
        "agent": "agent",
    }
    assert all(psutil.Process(pid).is_running() for pid in shared_cluster.pids.values())
    for name in told["credentials"].values():
        assert (shared_cluster.folder / name).stat().st_mode & 0o777 == 0o600


def test_everything_listens_on_loopback_only(shared_cluster: UpCluster) -> None:
    addresses = {
        connection.laddr.ip
        for pid in shared_cluster.pids.values()
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }

    assert addresses == {"127.0.0.1"}


def test_status_says_who_leads_and_that_all_is_ready(shared_cluster: UpCluster) -> None:
    told = shared_cluster.json("status")

    assert told["ready"] is True
    assert told["leader"] in ("raft-1", "raft-2", "raft-3")
    assert {row["name"]: row["pid"] for row in told["processes"]} == shared_cluster.pids


def test_the_demo_nodes_are_registered_and_take_requests(shared_cluster: UpCluster, tmp_path: Path) -> None:
    nodes = {node["id"]: node for node in shared_cluster.json("nodes", "list")}

    decided = shared_cluster.json("submit", written(tmp_path), "--wait", "10")

    assert len(nodes) == 6
    (decision,) = decided["decisions"]
    assert decision["status"] == "placed"
    assert nodes[decision["allocations"][0]["node"]]["labels"]["region"] == "us-east-1"


def test_starting_it_twice_starts_nothing(shared_cluster: UpCluster) -> None:
    before = shared_cluster.pids

    detached = shared_cluster.up()
    foreground = berth("up", "--dir", str(shared_cluster.folder))

    assert shared_cluster.pids == before
    assert "already" in detached.err
    assert (foreground.code, "already" in foreground.err) == (0, True)
    assert shared_cluster.description["nats_url"] in foreground.out


def test_a_key_for_one_namespace_works_at_once(shared_cluster: UpCluster, tmp_path: Path) -> None:
    made = shared_cluster.run("init", "--client", "team-b")
    assert made.code == 0, made.err
    key = made.out.strip()

    own = berth(
        "submit",
        written(tmp_path, namespace="team-b"),
        "--wait",
        "10",
        "--url",
        shared_cluster.description["nats_url"],
        "--nkey",
        key,
    )

    assert own.code == 0, own.err


def test_a_described_node_comes_and_leaves_with_its_agent(shared_cluster: UpCluster, tmp_path: Path) -> None:
    described = tmp_path / "node.yaml"
    described.write_text("{id: big-one, capacity: {cpu_cores: 64, ram_mb: 1000}, labels: {region: home}}")
    words = ["agent", "--dir", str(shared_cluster.folder), "--node", str(described), "--leave"]
    agent = subprocess.Popen([sys.executable, "-m", "berth_cli.main", *words], stderr=subprocess.DEVNULL)

    until(lambda: shared_cluster.run("nodes", "show", "big-one").code == 0)
    shown = shared_cluster.json("nodes", "show", "big-one")
    agent.send_signal(signal.SIGINT)
    code = agent.wait(timeout=60)

    assert (shown["state"], shown["labels"]) == ("ready", {"region": "home"})
    assert code == 0
    listed = {node["id"]: node["state"] for node in shared_cluster.json("nodes", "list")}
    assert listed.get("big-one", "left") == "left"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--node", "none.yaml"], "none.yaml"),
        (["--node", "none.yaml", "--simulate", "3"], "--simulate"),
        (["--simulate", "0"], "--simulate"),
    ],
    ids=["no file", "both", "none"],
)
def test_an_agent_that_cannot_be_is_told_so(words: list[str], said: str, shared_cluster: UpCluster) -> None:
    ended = shared_cluster.run("agent", *words)

    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err


# ---------------------------------------------------------------- what dies


@pytest.mark.parametrize("name", ["nats", "console"])
def test_a_killed_process_is_started_again_where_it_was(name: str, shared_cluster: UpCluster) -> None:
    before = shared_cluster.description

    pid = shared_cluster.kill(name, signal.SIGKILL)
    shared_cluster.until_replaced(name, pid)
    shared_cluster.until_ready()

    after = shared_cluster.description
    assert (after["nats_url"], after["console_url"]) == (before["nats_url"], before["console_url"])
    restarts = {row["name"]: row["restarts"] for row in shared_cluster.json("status")["processes"]}
    assert restarts[name] >= 1


def test_the_fork_server_too_may_be_killed(shared_cluster: UpCluster) -> None:
    before = shared_cluster.pids

    os.kill(psutil.Process(before["quota-1"]).ppid(), signal.SIGKILL)

    for name in before.keys() - {"supervisor"}:
        shared_cluster.until_replaced(name, before[name])
    shared_cluster.until_ready()
    assert shared_cluster.pids["supervisor"] == before["supervisor"]


# ---------------------------------------------------------------- the whole life of a folder


def test_down_leaves_nothing_behind_and_up_continues(new_cluster: UpCluster, tmp_path: Path) -> None:
    new_cluster.up("--nodes", "3", "--schedulers", "1", "--raft", "1")
    placed = new_cluster.json("submit", written(tmp_path), "--wait", "10")["decisions"][0]
    before = new_cluster.pids

    new_cluster.down()

    assert all(is_gone(pid) for pid in before.values())
    assert processes_of(new_cluster.folder) == []
    assert new_cluster.description["processes"] == []
    assert new_cluster.run("status").code == 7
    assert new_cluster.run("down").code == 0

    new_cluster.up("--nodes", "3")
    assert [name for name in new_cluster.pids if name.startswith("raft")] == ["raft-1"]
    again = new_cluster.json("submit", written(tmp_path), "--wait", "10")["decisions"][0]
    assert again["allocations"] == placed["allocations"]


def test_two_at_once_on_one_folder_start_one_cluster(new_cluster: UpCluster) -> None:
    words = ["up", "--detach", "--dir", str(new_cluster.folder), "--port", "0", "--empty", "--raft", "1"]
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "berth_cli.main", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]

    told = [process.communicate(timeout=120) for process in both]

    assert [process.returncode for process in both] == [0, 0], told
    assert sum("already" in problems for _, problems in told) == 1
    assert "agent" not in new_cluster.pids


def test_control_c_stops_a_cluster_in_the_foreground(new_cluster: UpCluster) -> None:
    words = ["up", "--dir", str(new_cluster.folder), "--port", "0", "--empty", "--raft", "1"]
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "berth_cli.main", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert supervisor.stdout is not None
    told = [supervisor.stdout.readline() for _ in range(4)]
    pids = new_cluster.pids

    os.killpg(supervisor.pid, signal.SIGINT)
    _, shown = supervisor.communicate(timeout=60)

    assert supervisor.returncode == 0
    assert str(new_cluster.folder) in told[0]
    assert "console  http://127.0.0.1:" in told[1]
    assert "raft-1        |" in shown
    assert pids["supervisor"] == supervisor.pid
    assert all(is_gone(pid) for pid in pids.values())


# ---------------------------------------------------------------- what cannot be


def test_a_port_that_is_taken_is_named(new_cluster: UpCluster) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        ended = berth("up", "--detach", "--dir", str(new_cluster.folder), "--port", str(port))

    assert ended.code == 2
    assert f"port {port} cannot be used" in ended.err
    assert "Traceback" not in ended.err
    until(lambda: not processes_of(new_cluster.folder))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "hartbeat_ms=1"], "did you mean heartbeat_ms"),
        (["--set", "election_timeout_min_ms=900"], "election_timeout"),
        (["--raft", "2"], "2 raft nodes"),
        (["--empty", "--nodes", "3"], "--empty"),
        (["--url", "nats://127.0.0.1:1"], "--dir"),
    ],
    ids=["unknown setting", "wrong setting", "even raft", "empty and not", "not its own"],
)
def test_what_cannot_be_ends_with_2_and_one_clear_line(words: list[str], said: str, new_cluster: UpCluster) -> None:
    ended = berth("up", "--detach", "--dir", str(new_cluster.folder), "--port", "0", *words)

    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err
    until(lambda: not processes_of(new_cluster.folder))


def test_a_folder_keeps_its_raft_nodes(new_cluster: UpCluster) -> None:
    new_cluster.up("--empty", "--raft", "1")
    new_cluster.down()

    ended = berth("up", "--detach", "--dir", str(new_cluster.folder), "--port", "0", "--empty", "--raft", "3")

    assert ended.code == 2
    assert "the ledger has the raft nodes raft-1" in ended.err
