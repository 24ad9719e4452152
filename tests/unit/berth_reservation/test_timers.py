"""When to look at what again."""

from itertools import islice

from berth_reservation.timers import Phase, Timers


def test_the_earliest_comes_first_and_what_makes_room_before_what_takes_it() -> None:
    timers: Timers[str] = Timers()
    timers.set("start", 10, Phase.START)
    timers.set("later", 11, Phase.DURATION)
    timers.set("end", 10, Phase.END)
    timers.set("duration", 10, Phase.DURATION)

    assert timers.next() == 10
    assert list(timers.take(11)) == ["duration", "end", "start", "later"]
    assert timers.next() is None


def test_a_key_has_only_its_newest_time() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 10, Phase.END)
    timers.set("a", 20, Phase.END)

    assert list(timers.take(10)) == []
    assert list(timers.take(20)) == ["a"]
    assert list(timers.take(20)) == []


def test_a_dropped_key_never_comes() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 10, Phase.END)
    timers.drop("a")
    timers.drop("unknown")

    assert timers.next() is None
    assert list(timers.take(10)) == []


def test_what_is_not_taken_stays() -> None:
    timers: Timers[str] = Timers()
    for name in "abc":
        timers.set(name, 10, Phase.END)

    assert list(islice(timers.take(10), 2)) == ["a", "b"]
    assert list(timers.take(10)) == ["c"]


def test_setting_a_key_again_and_again_keeps_nothing_old() -> None:
    timers: Timers[str] = Timers()
    for due in range(10_000):
        timers.set("a", due, Phase.END)

    assert len(timers) == 1
    assert list(timers.take(9_998)) == []
    assert list(timers.take(9_999)) == ["a"]
