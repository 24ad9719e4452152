"""Every scenario happens as its file tells it. `make scenarios REWRITE=1` writes them again: explain every line."""

import os
from pathlib import Path

import pytest

from tests.scenarios.scenario import parse, played, written

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_scenario_happens_as_it_is_told(file: Path) -> None:
    told = file.read_text()

    happened = written(played(parse(told)))

    if os.environ.get("REWRITE"):
        file.write_text(happened)
        return
    assert happened == told, f"{file.name} happens otherwise; `make scenarios REWRITE=1` shows how"


def test_a_scenario_happens_twice_in_the_same_way() -> None:
    blocks = parse((Path(__file__).parent / "walk.txt").read_text())

    assert played(blocks) == played(blocks)
