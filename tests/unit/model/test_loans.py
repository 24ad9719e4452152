"""Who has lent what to whom: nearest first, as far as anybody left quota idle (R66–R68)."""

from hypothesis import given
from hypothesis import strategies as st

from berth.ids import Namespace
from berth.model import entitlement
from berth.model.loans import Loan, loans
from tests.builders import TEAM_A, TEAM_B, a_cohort, a_quota
from tests.unit.model.quota_clusters import CPU, a_cluster, cores, uses

TEAM_C = Namespace("team-c")


def spoken(found: list[Loan]) -> list[tuple[str, str, int]]:
    return [(loan.borrower, loan.lender, loan.amount // 1_000) for loan in found]


def test_what_is_borrowed_comes_from_who_left_it_idle() -> None:
    state = a_cluster(*(a_quota(team, soft=cores(4), cohort="lab") for team in (TEAM_A, TEAM_B, TEAM_C)))
    uses(state, TEAM_A, 7)
    uses(state, TEAM_B, 3)

    assert spoken(loans(state)) == [(TEAM_A, TEAM_B, 1), (TEAM_A, TEAM_C, 2)]


def test_the_own_cohort_lends_first_and_its_own_quota_before_that_of_members() -> None:
    state = a_cluster(
        a_cohort("near", parent="all", soft=cores(1)),
        a_cohort("far", parent="all"),
        a_quota(TEAM_A, soft=cores(1), cohort="near"),
        a_quota(TEAM_B, soft=cores(2), cohort="near"),
        a_quota(TEAM_C, soft=cores(9), cohort="far"),
    )
    uses(state, TEAM_A, 6)

    found = loans(state)

    assert spoken(found) == [(TEAM_A, "near", 1), (TEAM_A, TEAM_B, 2), (TEAM_A, TEAM_C, 2)]
    assert [loan.is_cohort for loan in found] == [True, False, False]


def test_nobody_lends_more_than_its_lending_limit() -> None:
    state = a_cluster(
        a_quota(TEAM_A, soft=cores(0), cohort="lab"),
        a_quota(TEAM_B, soft=cores(4), lending_limit=cores(1), cohort="lab"),
        a_quota(TEAM_C, soft=cores(4), cohort="lab"),
    )
    uses(state, TEAM_A, 3)

    assert spoken(loans(state)) == [(TEAM_A, TEAM_B, 1), (TEAM_A, TEAM_C, 2)]


@given(
    used=st.tuples(*(st.integers(0, 8) for _ in range(3))),
    soft=st.tuples(*(st.integers(0, 5) for _ in range(3))),
    nested=st.booleans(),
)
def test_everything_that_is_borrowed_is_lent_by_somebody(
    used: tuple[int, ...], soft: tuple[int, ...], nested: bool
) -> None:
    teams = (TEAM_A, TEAM_B, TEAM_C)
    cohorts = ("one", "one", "two") if nested else ("one", "one", "one")
    state = a_cluster(
        *(a_cohort(name, parent="all") for name in ("one", "two")),
        *(
            a_quota(team, soft=cores(amount), burst_percent=50, cohort=name)
            for team, amount, name in zip(teams, soft, cohorts, strict=True)
        ),
    )
    for team, amount in zip(teams, used, strict=True):
        uses(state, team, amount)

    found = loans(state)

    for team, amount, guaranteed in zip(teams, used, soft, strict=True):
        lent = sum(loan.amount for loan in found if loan.lender == team)
        borrowed = sum(loan.amount for loan in found if loan.borrower == team)
        assert lent <= max(0, guaranteed - amount) * 1_000
        assert borrowed == entitlement.classes(state, team).borrowed.get(CPU, 0)
