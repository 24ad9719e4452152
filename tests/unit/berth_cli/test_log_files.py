"""Log files: bounded, readable, followed while they are written."""

from pathlib import Path

import pytest

from berth_cli import log_files
from berth_cli.log_files import Tail, as_text, bound, last_lines, prefixed

LINE = (
    '{"at": "2026-01-02T03:04:05.678Z", "level": "info", "process": "quota-1", "logger": "x", "event": "plan_proposed"'
)


def test_a_json_line_becomes_a_line_for_people() -> None:
    assert as_text(f'{LINE}, "transactions": 3, "node": "n1"}}') == (
        "03:04:05.678 info    plan_proposed transactions=3 node=n1"
    )


def test_an_exception_follows_its_line() -> None:
    assert as_text(f'{LINE}, "exception": "Traceback\\n  here"}}').split("\n")[1:] == ["Traceback", "  here"]


@pytest.mark.parametrize("line", ["[123] [INF] Starting nats-server", "{broken", '{"other": "json"}', ""])
def test_any_other_line_stays_as_it_is(line: str) -> None:
    assert as_text(line) == line


def test_every_line_of_a_text_has_the_name_before_it() -> None:
    assert prefixed("nats", "one\ntwo", width=6) == "nats   | one\nnats   | two"


def test_a_tail_shows_what_was_added_and_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "quota-1.log"
    tail = Tail(name="quota-1", path=path)
    assert list(tail.lines()) == []

    path.write_text("one\ntw")
    assert list(tail.lines()) == ["one"]
    with path.open("a") as file:
        file.write("o\nthree\n")

    assert list(tail.lines()) == ["two", "three"]


def test_a_tail_can_leave_out_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "quota-1.log"
    path.write_text("old\n")
    tail = Tail(name="quota-1", path=path)

    tail.skip()
    with path.open("a") as file:
        file.write("new\n")

    assert list(tail.lines()) == ["new"]


def test_a_large_file_is_moved_aside_and_its_writer_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "BYTES_MAX", 10)
    path = tmp_path / "quota-1.log"
    tail = Tail(name="quota-1", path=path)
    with path.open("a") as writer:
        writer.write("a line that is long\n")
        writer.flush()
        assert list(tail.lines()) == ["a line that is long"]

        bound(path)
        writer.write("next\n")

    assert path.read_text() == "next\n"
    assert (tmp_path / "quota-1.log.1").read_text() == "a line that is long\n"
    assert list(tail.lines()) == ["next"]


def test_a_small_file_and_a_missing_one_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "quota-1.log"
    path.write_text("line\n")

    bound(path)
    bound(tmp_path / "none.log")

    assert path.read_text() == "line\n"


def test_the_end_of_a_log_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "quota-1.log"
    path.write_text("one\ntwo\nthree\n")

    assert last_lines(path, 2) == ["two", "three"]
    assert last_lines(tmp_path / "none.log") == []
