"""Usage over time: half of it is left after a half-life, however often it is looked at (R80)."""

from hypothesis import given
from hypothesis import strategies as st

from berth.ids import Namespace
from berth.model.decay import Decayed, decayed, remaining
from berth.model.ordering import surplus
from berth.resources import NOTHING, Resources
from tests.builders import HOUR, T0, TEAM_A, a_node, a_quota, a_request, a_state, ended, happened, placed

DAY = 24 * HOUR
WHOLE = 2**32


def cores(count: int) -> Resources:
    return Resources(count * 1_000, 0, 0, 0, ())


def test_r80_half_is_left_after_a_half_life_and_a_quarter_after_two() -> None:
    assert remaining(0, DAY) == WHOLE
    assert remaining(DAY, DAY) == WHOLE // 2
    assert remaining(2 * DAY, DAY) == WHOLE // 4
    assert remaining(100 * DAY, DAY) == 0


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_r80_what_is_left_is_the_power_of_a_half(elapsed: int, half_life: int) -> None:
    assert abs(remaining(elapsed, half_life) / WHOLE - 0.5 ** (elapsed / half_life)) < 2e-5


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=20))
def test_r81_looking_at_it_in_between_changes_next_to_nothing(pauses: list[int]) -> None:
    before = Decayed(amounts={"cpu_millicores": 8_000_000}, at=T0, half_life_ms=DAY)
    often = before
    for pause in pauses:
        often = decayed(often, cores(2), often.at + pause)

    once = decayed(before, cores(2), T0 + sum(pauses))

    assert abs(often.amounts["cpu_millicores"] - once.amounts["cpu_millicores"]) <= 300 * len(pauses)


def test_r81_it_goes_towards_what_is_used() -> None:
    new = Decayed(amounts={}, at=T0, half_life_ms=DAY)

    assert decayed(new, cores(4), T0 + DAY).amounts == {"cpu_millicores": 2_000_000}
    assert decayed(new, cores(4), T0 + 60 * DAY).amounts == {"cpu_millicores": 4_000_000}
    assert decayed(new, NOTHING, T0 + DAY).amounts == {}


def test_what_was_used_and_is_not_any_more_is_a_surplus_that_passes() -> None:
    state = a_state(a_node(cpu=8_000), a_quota(TEAM_A, soft={"cpu_millicores": 0}, usage_half_life_seconds=86_400))
    happened(state, placed(a_request("web", cpu=4_000), "n1"), at=T0)
    assert surplus(state, TEAM_A) == NOTHING, "what it uses now counts by itself"

    happened(state, ended(state, a_request("web").key), at=T0 + DAY)

    assert surplus(state, TEAM_A).amount("cpu_millicores") == 2_000
    happened(state, a_node("n2"), at=T0 + 2 * DAY)
    assert surplus(state, TEAM_A).amount("cpu_millicores") == 1_000


def test_without_a_half_life_nothing_is_remembered() -> None:
    state = a_state(a_node(cpu=8_000), a_quota(TEAM_A, usage_half_life_seconds=86_400))
    happened(state, placed(a_request("web", cpu=4_000), "n1"), at=T0)
    assert TEAM_A in state.quotas.decayed

    happened(state, a_quota(TEAM_A), at=T0 + DAY)

    assert Namespace(TEAM_A) not in state.quotas.decayed
    assert (
        state.quotas.digest
        == a_state(a_node(cpu=8_000), a_quota(TEAM_A), placed(a_request("web", cpu=4_000), "n1")).quotas.digest
    )
