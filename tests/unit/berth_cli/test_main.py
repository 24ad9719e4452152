"""The program `berth`: its table of commands, its exit codes, and what it imports."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from berth.errors import Conflict, NotFound, TimedOut, Unreachable
from berth_cli import main
from berth_cli.main import COMMANDS, Entry


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_where_the_table_says(name: str) -> None:
    entry = COMMANDS[name]

    app: typer.Typer = importlib.import_module(entry.module).app

    names = [command.name for command in app.registered_commands]
    assert entry.group or names.count(name) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_what_it_is_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main.run([name, "--help"])

    assert code == 0
    assert f"Usage: berth {name}" in capsys.readouterr().out


def test_help_lists_every_command_and_imports_none_of_them() -> None:
    program = (
        "import sys; from berth_cli import main; main.run(['--help']);"
        "print(sorted({'nats', 'pydantic', 'berth_raft', 'berth_cli.up', 'berth_cli.requests'} & set(sys.modules)))"
    )

    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert told.splitlines()[-1] == "[]"
    assert all(f"  {name} " in told for name in COMMANDS)


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("berth 0.")


@pytest.mark.parametrize("words", [["nonsense"], ["status", "--nonsense"], ["submit"], []], ids=" ".join)
def test_wrong_usage_ends_with_2_and_says_so_on_standard_error(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main.run(words)

    captured = capsys.readouterr()
    assert code == 2
    assert "Usage: berth" in captured.out + captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("no request a/b"), 3),
        (Conflict("a/b has another body"), 4),
        (TimedOut("no decision"), 6),
        (Unreachable("no server", hint="start one"), 7),
    ],
)
def test_a_problem_is_a_line_on_standard_error_and_an_exit_code(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()

    @app.command("fail")
    def fail() -> None:
        raise error

    monkeypatch.setitem(COMMANDS, "fail", Entry(module="failing", help=""))
    monkeypatch.setitem(sys.modules, "failing", _module(app))

    assert main.run(["fail"]) == code
    assert capsys.readouterr().err == f"berth: {error}\n"


def test_a_folder_that_cannot_be_used_is_a_line_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()

    code = main.run(["up", "--dir", str(tmp_path / "file" / "cluster")])

    assert code == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_an_interrupted_command_ends_like_one_that_a_signal_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer()

    @app.command("wait")
    def wait() -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "wait", Entry(module="waiting", help=""))
    monkeypatch.setitem(sys.modules, "waiting", _module(app))

    assert main.run(["wait"]) == 130


def _module(app: typer.Typer) -> object:
    class Module:
        pass

    module = Module()
    module.app = app  # pyright: ignore[reportAttributeAccessIssue] stands in for a module
    return module
