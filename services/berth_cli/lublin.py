"""A trace in the Standard Workload Format: jobs that arrive, want processors, and run for a while.

`lublin_256.swf` is 10,000 jobs of the Lublin-Feitelson model for 256 processors (Parallel Workloads Archive). The
project has no copy; a benchmark is told where it is.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

FILE = "lublin_256.swf"
PROCESSORS = 256
SUBMITTED, RUNS, WANTS = 1, 3, 4
"""Fields of a line, counted from 0: submit time and run time in seconds, processors."""


@dataclass(frozen=True, slots=True)
class Job:
    """Seconds since the beginning of the trace; `runs` is at least one."""

    number: int
    submitted: int
    runs: int
    processors: int


def missing(folder: Path) -> str | None:
    """Why the trace cannot be replayed, or None."""
    return None if (folder / FILE).is_file() else f"{folder} has no {FILE}"


def jobs(folder: Path, limit: int | None = None) -> list[Job]:
    """The first `limit` jobs, or all, in order of arrival."""
    with (folder / FILE).open() as file:
        rows = (line.split() for line in file if line.strip() and not line.startswith(";"))
        return [
            Job(
                number=int(row[0]),
                submitted=int(row[SUBMITTED]),
                runs=max(1, int(row[RUNS])),
                processors=min(PROCESSORS, int(row[WANTS])),
            )
            for row in islice(rows, limit)
        ]
