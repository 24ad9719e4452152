"""A runner: the operator's own program that starts and stops what is placed on a node."""

from pathlib import Path

import pytest

from berth_agent.workloads import Runner

PROGRAM = """#!/bin/sh
cd "$(dirname "$0")" || exit 9
mkdir -p "ran/$2"
name=$(echo "$3" | tr / _)
case "$1" in
  list) for one in "ran/$2"/*; do [ -e "$one" ] && basename "$one" | tr _ /; done; exit 0 ;;
  start) cat > "ran/$2/$name" ;;
  stop) [ "$name" = team-a_stuck.0 ] && exit 1; rm -f "ran/$2/$name" ;;
esac
"""


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "runner.sh"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return str(path)


async def test_a_runner_starts_lists_and_stops_and_the_next_agent_finds_what_runs(program: str, tmp_path: Path) -> None:
    first = Runner(program, "n1")
    assert await first.running() == []

    assert await first.start({"id": "team-a/web.0", "resources": {"cpu_millicores": 500}})
    assert (tmp_path / "ran" / "n1" / "team-a_web.0").read_text() == (
        '{"id":"team-a/web.0","resources":{"cpu_millicores":500}}'
    )

    second = Runner(program, "n1")
    assert await second.running() == ["team-a/web.0"]
    assert await Runner(program, "n2").running() == []
    assert await second.stop("team-a/web.0")
    assert await second.running() == []


async def test_what_a_runner_cannot_do_is_no_error_of_the_agent(program: str, tmp_path: Path) -> None:
    assert not await Runner(program, "n1").stop("team-a/stuck.0")
    assert await Runner(str(tmp_path / "nowhere"), "n1").running() is None
