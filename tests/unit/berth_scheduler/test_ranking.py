"""Who has the highest score, without looking at everybody each time."""

from hypothesis import given
from hypothesis import strategies as st

from berth_scheduler.ranking import NOTHING_FITS, Ranking

CHANGES = st.lists(st.tuples(st.integers(0, 4), st.integers(NOTHING_FITS, 3), st.booleans()), max_size=40)


@given(CHANGES)
def test_the_leaders_are_those_that_a_look_at_everybody_would_find(changes: list[tuple[int, int, bool]]) -> None:
    ranking, scores = Ranking(5), [NOTHING_FITS] * 5

    for position, score, asked in changes:
        ranking.put(position, score)
        scores[position] = score
        if asked:
            best = max(scores)
            fitting = best != NOTHING_FITS
            assert ranking.leaders() == [place for place, one in enumerate(scores) if fitting and one == best]


def test_where_there_is_nobody_nobody_leads() -> None:
    assert Ranking(0).leaders() == []
