"""A cluster's folder before anything runs: keys, users, configuration."""

import json
from pathlib import Path

import pytest

from berth.adapters.server_config import ServerSettings
from berth.adapters.users import load_users
from berth.errors import InvalidSetting
from berth_cli import main
from berth_cli.bootstrap import Size, add_agent, add_client, prepare
from berth_cli.folder import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(path=tmp_path / "cluster")
    prepare(folder, ServerSettings(store=folder.store), Size())
    return folder


def seeds(folder: Folder) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in folder.keys.glob("*.nk")}


def test_every_process_and_everybody_outside_has_a_key(folder: Folder) -> None:
    assert {"raft-1", "raft-2", "raft-3", "quota-1", "scheduler-2", "reservation-1"} < seeds(folder).keys()
    assert {"console", "agent", "client", "admin", "init"} < seeds(folder).keys()


def test_only_their_owner_reads_the_keys(folder: Folder) -> None:
    modes = {path.stat().st_mode & 0o777 for path in folder.keys.glob("*.nk")}

    assert modes == {0o600}
    assert folder.keys.stat().st_mode & 0o777 == 0o700


def test_doing_it_again_changes_no_key_and_keeps_added_users(folder: Folder) -> None:
    add_client(folder, "team-a")
    before = seeds(folder)

    prepare(folder, ServerSettings(store=folder.store), Size(schedulers=4))

    assert before.items() < seeds(folder).items()
    assert {"client-team-a", "scheduler-4"} < {user.name for user in load_users(folder.users)}
    assert "client-team-a" in (folder.server_configuration / "users.conf").read_text()


def test_a_client_of_one_namespace_may_use_that_namespace_only(folder: Folder) -> None:
    path = add_client(folder, "team-a")

    (user,) = (user for user in load_users(folder.users) if user.name == "client-team-a")
    assert path == folder.keys / "client-team-a.nk"
    assert (user.role, user.namespaces) == ("client", ("team-a",))


def test_an_agent_of_one_node_speaks_for_that_node_only(folder: Folder) -> None:
    path = add_agent(folder, "n1")

    (user,) = (user for user in load_users(folder.users) if user.name == "agent-n1")
    assert path == folder.keys / "agent-n1.nk"
    assert (user.role, user.node) == ("agent", "n1")


@pytest.mark.parametrize("namespace", ["Team-A", "a.b", "", "x" * 60, ">"])
def test_no_key_for_what_can_be_no_namespace(namespace: str, folder: Folder) -> None:
    with pytest.raises(InvalidSetting, match="is no namespace"):
        add_client(folder, namespace)


def test_no_key_for_a_folder_that_was_not_prepared(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="has no users yet"):
        add_client(Folder(path=tmp_path), "team-a")


def test_the_command_prepares_a_folder_and_copies_the_keys_that_the_host_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["init", "--dir", str(tmp_path / "c"), "--export", str(tmp_path / "out"), "--json"]

    assert main.run(words) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["configuration"] == str(tmp_path / "c" / "nats" / "nats.conf")
    copies = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in copies] == ["admin.nk", "client.nk"]
    assert copies[0].read_bytes() == Path(told["keys"]["admin"]).read_bytes()
    assert {path.stat().st_mode & 0o777 for path in copies} == {0o600}


@pytest.mark.parametrize(
    "words",
    [["--listen", "0.0.0.0:4222"], ["--listen", "4222"], ["--raft", "2"], ["--client", "a.b"]],
    ids=lambda words: words[0] + words[1],
)
def test_the_command_refuses_what_is_unsafe_or_cannot_be(words: list[str], tmp_path: Path) -> None:
    assert main.run(["init", "--dir", str(tmp_path / "c"), *words]) == 2


def test_another_client_gets_its_key_by_command(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["init", "--dir", str(folder.path), "--client", "team-a"]) == 0

    captured = capsys.readouterr()
    assert captured.out == f"{folder.keys / 'client-team-a.nk'}\n"
    assert "SIGHUP" in captured.err
