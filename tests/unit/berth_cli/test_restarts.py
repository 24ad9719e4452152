"""When a process that ended is started again."""

from berth_cli.restarts import HOPELESS, LONGEST_MS, Lives


def test_a_process_that_had_lived_comes_back_at_once() -> None:
    lives = Lives()

    assert [lives.ended(lived_ms=60_000) for _ in range(3)] == [0, 0, 0]
    assert lives.restarts == 3


def test_a_process_that_ends_at_its_start_waits_twice_as_long_each_time() -> None:
    lives = Lives()

    assert [lives.ended(lived_ms=10) for _ in range(5)] == [50, 100, 200, 400, 800]


def test_nothing_waits_longer_than_five_seconds() -> None:
    lives = Lives()

    assert max(lives.ended(lived_ms=10) for _ in range(30)) == LONGEST_MS


def test_one_long_life_forgets_the_short_ones() -> None:
    lives = Lives()
    for _ in range(4):
        lives.ended(lived_ms=10)

    lives.ended(lived_ms=1_000)

    assert lives.ended(lived_ms=10) == 50
    assert not lives.is_hopeless


def test_many_short_lives_in_a_row_are_hopeless() -> None:
    lives = Lives()

    for _ in range(HOPELESS):
        assert not lives.is_hopeless
        lives.ended(lived_ms=999)

    assert lives.is_hopeless
