"""`berth bench backfill`: replays a trace in the Standard Workload Format, strict FIFO beside backfill."""

import json
from pathlib import Path

import pytest

from berth_cli.lublin import Job, jobs, missing
from berth_cli.main import run

TRACE = "; Version: 2\n" + "".join(
    f"{number} {submitted} -1 {runs} {wants} -1 -1 -1 -1 -1 1 -1 -1 -1 0 -1 -1 -1\n"
    for number, submitted, runs, wants in ((1, 0, 100, 200), (2, 1, 50, 256), (3, 2, 90, 50), (4, 3, 0, 6))
)


def test_a_line_of_the_trace_is_a_job(tmp_path: Path) -> None:
    (tmp_path / "lublin_256.swf").write_text(TRACE)

    assert missing(tmp_path) is None
    assert jobs(tmp_path, 1) == [Job(number=1, submitted=0, runs=100, processors=200)]
    assert jobs(tmp_path)[3].runs == 1, "what runs for no time runs for a second"


def test_backfill_starts_what_delays_nobody_and_fifo_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lublin_256.swf").write_text(TRACE)

    assert run(["bench", "backfill", "--data", str(tmp_path), "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    figures = told["figures"]
    assert told["benchmark"] == "backfill"
    assert figures["mean_wait_s"] == {"fifo": 98.5, "backfill": 24.8}
    assert figures["longest_wait_s"] == {"fifo": 148.0, "backfill": 99.0}
    assert figures["makespan_s"] == {"fifo": 240.0, "backfill": 150.0}
    assert figures["promises"] == {"fifo": 0, "backfill": 1}
    assert figures["promises_broken"] == figures["promises_moved_later"] == {"fifo": 0, "backfill": 0}


def test_without_the_trace_it_says_that_it_skips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "backfill", "--data", str(tmp_path), "--json"]) == 0

    told = capsys.readouterr()
    assert "skipped" in told.err
    assert json.loads(told.out)["figures"] == {}
