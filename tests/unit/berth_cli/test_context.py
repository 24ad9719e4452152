"""How a command finds its cluster (DESIGN section 5): --url, else --dir or BERTH_DIR, else the context, else .berth."""

import json
from pathlib import Path
from typing import Any

import pytest

from berth.errors import InvalidSetting, Unreachable
from berth_cli import main
from berth_cli.context import ClusterAddress, Context, Contexts, Target, load_contexts, save_contexts


@pytest.fixture(autouse=True)
def _nobodys_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("BERTH_DIR", raising=False)
    monkeypatch.chdir(tmp_path)


def a_folder(path: Path, **changed: Any) -> Path:
    path.mkdir(parents=True)
    told: dict[str, Any] = {
        "version": 1,
        "nats_url": f"nats://{path.name}:4222",
        "console_url": f"http://{path.name}:4223",
        "credentials": {"client": "keys/client.nk", "admin": "keys/admin.nk"},
        "processes": [],
        **changed,
    }
    (path / "berth.json").write_text(json.dumps(told))
    return path


def test_an_address_on_the_command_line_wins_over_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = tmp_path / "team-a.nk"
    seed.touch()
    monkeypatch.setenv("BERTH_DIR", str(a_folder(tmp_path / "other")))

    found = Target(url="nats://here:4222", nkey=seed, folder=tmp_path / "other").address()

    assert found == ClusterAddress(url="nats://here:4222", user="team-a", seed_file=seed)


def test_a_folder_on_the_command_line_wins_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERTH_DIR", str(a_folder(tmp_path / "environment")))

    found = Target(folder=a_folder(tmp_path / "named")).address()

    assert found.url == "nats://named:4222"
    assert found.console_url == "http://named:4223"


def test_the_environment_wins_over_the_current_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_contexts(Contexts(chosen="lab", named={"lab": Context(url="nats://lab:4222")}))
    monkeypatch.setenv("BERTH_DIR", str(a_folder(tmp_path / "environment")))

    assert Target().address().url == "nats://environment:4222"


def test_the_current_context_wins_over_the_folder_here(tmp_path: Path) -> None:
    a_folder(tmp_path / ".berth")
    named = {"lab": Context(url="nats://lab:4222"), "shop": Context(folder=a_folder(tmp_path / "shop"))}

    save_contexts(Contexts(chosen="lab", named=named))
    assert Target().address().url == "nats://lab:4222"
    save_contexts(Contexts(chosen="shop", named=named))
    assert Target().address().url == "nats://shop:4222"


def test_the_folder_here_is_found_when_nothing_is_said(tmp_path: Path) -> None:
    a_folder(tmp_path / ".berth")

    assert Target().address().url == "nats://.berth:4222"


@pytest.mark.parametrize("role", ["client", "admin"])
def test_a_command_signs_in_as_the_role_that_it_needs(role: Any, tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "named")

    found = Target(folder=folder).address(role)

    assert (found.user, found.seed_file) == (role, folder / "keys" / f"{role}.nk")


def test_a_key_on_the_command_line_signs_in_whatever_the_command_needs(tmp_path: Path) -> None:
    seed = tmp_path / "client-team-a.nk"

    found = Target(folder=a_folder(tmp_path / "named"), nkey=seed).address("admin")

    assert (found.user, found.seed_file) == ("client-team-a", seed)


def test_no_cluster_there_is_no_connection(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"there is no berth\.json") as refused:
        Target(folder=tmp_path / "nowhere").address()

    assert refused.value.exit_code == 7
    assert "berth up --dir" in refused.value.hint


def test_a_damaged_description_is_named(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "named")
    (folder / "berth.json").write_text('{"version": 1')

    with pytest.raises(InvalidSetting, match=r"berth\.json cannot be read"):
        Target(folder=folder).address()


def test_a_missing_seed_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="no seed file"):
        Target(url="nats://here:4222", nkey=tmp_path / "none.nk").address()


def test_contexts_are_set_listed_used_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["context", "set", "lab", "--url", "nats://lab:4222"]) == 0
    assert main.run(["context", "set", "shop", "--dir", "shop"]) == 0
    assert main.run(["context", "use", "lab"]) == 0
    assert main.run(["context", "list", "--json"]) == 0

    assert json.loads(capsys.readouterr().out) == [
        {"name": "lab", "current": True, "url": "nats://lab:4222", "nkey": None, "dir": None},
        {"name": "shop", "current": False, "url": None, "nkey": None, "dir": str(tmp_path / "shop")},
    ]
    assert main.run(["context", "remove", "lab"]) == 0
    assert load_contexts().current is None


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["context", "set", "lab"], 2),
        (["context", "set", "lab", "--dir", "a", "--url", "nats://b"], 2),
        (["context", "use", "lab"], 3),
        (["context", "remove", "lab"], 3),
    ],
)
def test_a_context_that_cannot_be_is_refused(words: list[str], code: int) -> None:
    assert main.run(words) == code
