"""The seeds of the simulation come from the environment."""

from tests.seeds import chosen


def test_named_seeds_win_over_a_count() -> None:
    assert chosen({"SEED": "41 97", "SEEDS": "5000"}) == [41, 97]


def test_a_count_begins_at_zero() -> None:
    assert chosen({"SEEDS": "3"}) == [0, 1, 2]


def test_ten_seeds_run_when_nothing_is_said() -> None:
    assert len(chosen({})) == len(chosen({"SEED": "", "SEEDS": ""})) == 10
