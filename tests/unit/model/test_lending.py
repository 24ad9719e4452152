"""Cohort trees: what members lend, borrow and share (SEMANTICS R66–R71), and configurations that make no sense."""

import pytest

from berth.ids import CohortName
from berth.messages.commands import RefusalCode
from berth.messages.reasons import ReasonCode
from berth.model import entitlement
from berth.model.entitlement import Assumed
from berth.model.ledger import State
from berth.model.lending import Share
from berth.resources import NOTHING, Resources
from tests.builders import TEAM_A, TEAM_B, a_cohort, a_quota, a_request, ended, happened
from tests.unit.model.quota_clusters import CPU, RESEARCH, a_cluster, available, codes, cores, uses

# ---------------------------------------------------------------- cohort trees


def test_r69_a_lending_limit_caps_what_others_may_use() -> None:
    state = a_cluster(
        a_quota(TEAM_A, soft=cores(9), cohort=RESEARCH),
        a_quota(TEAM_B, soft=cores(12), cohort=RESEARCH, lending_limit=cores(1)),
    )

    assert available(state, TEAM_A) == 10
    assert available(state, TEAM_B) == 21


def test_r70_no_borrowing_limit_is_no_limit_and_zero_is_one() -> None:
    def teams(limit: dict[str, int] | None) -> State:
        return a_cluster(
            a_quota(TEAM_A, soft=cores(2), cohort=RESEARCH, borrowing_limit=limit),
            a_quota(TEAM_B, soft=cores(6), cohort=RESEARCH),
        )

    assert available(teams(None), TEAM_A) == 8
    assert available(teams({}), TEAM_A) == 8
    assert available(teams(cores(3)), TEAM_A) == 5
    assert available(teams(cores(0)), TEAM_A) == 2


def test_r70_a_dimension_must_be_named_to_be_borrowed_and_may_be_zero() -> None:
    state = a_cluster(
        a_quota(TEAM_A, soft={"gpu": 0}, cohort=RESEARCH), a_quota(TEAM_B, soft={"gpu": 4}, cohort=RESEARCH)
    )

    assert entitlement.available(state, TEAM_A)["gpu"] == 4


def test_r67_usage_above_the_local_quota_alone_is_charged_to_the_parent() -> None:
    state = a_cluster(
        a_quota(TEAM_A, soft=cores(5), cohort=RESEARCH, lending_limit=cores(2)),
        a_quota(TEAM_B, soft=cores(1), cohort=RESEARCH),
    )
    cohort = entitlement.lending(state.quotas).cohorts[RESEARCH]

    first = uses(state, TEAM_A, 3)
    assert entitlement.lending(state.quotas).cohorts[RESEARCH].used.get(CPU, 0) == 0
    second = uses(state, TEAM_A, 1)
    assert entitlement.lending(state.quotas).cohorts[RESEARCH].used[CPU] == 1_000
    happened(state, ended(state, first.key), ended(state, second.key))

    assert entitlement.lending(state.quotas).cohorts[RESEARCH] is cohort
    assert cohort.used[CPU] == 0, "what is given back is the exact mirror of what was taken"


def test_r66_a_cohort_adds_its_own_quota_to_what_is_lent_to_it() -> None:
    state = a_cluster(
        a_cohort("research", soft=cores(3)),
        a_quota(TEAM_A, soft=cores(4), cohort=RESEARCH, lending_limit=cores(1)),
        a_quota(TEAM_B, soft=cores(2), cohort=RESEARCH),
    )

    assert entitlement.lending(state.quotas).cohorts[RESEARCH].nominal[CPU] == 1_000 + 2_000 + 3_000
    assert available(state, TEAM_B) == 6
    assert available(state, TEAM_A) == 3 + 6


def test_r68_nested_cohorts_borrow_through_every_limit_on_the_way() -> None:
    state = a_cluster(
        a_cohort("company"),
        a_cohort("research", parent="company", borrowing_limit=cores(3)),
        a_cohort("sales", parent="company", soft=cores(1), lending_limit=cores(8)),
        a_quota(TEAM_A, soft=cores(2), cohort=RESEARCH),
        a_quota(TEAM_B, soft=cores(9), cohort=CohortName("sales")),
    )

    assert available(state, TEAM_A) == 5, "its own 2, and 3 that research may borrow of the 8 that sales lends"
    uses(state, TEAM_B, 9)
    assert available(state, TEAM_A) == 3, "sales uses 9 of 10, 2 of them its own"
    uses(state, TEAM_A, 3)
    assert available(state, TEAM_A) == 0
    assert available(state, TEAM_B) == 0, "sales lent its tenth core"


def test_r68_a_debt_is_visible_to_the_siblings() -> None:
    state = a_cluster(a_quota(TEAM_A, soft=cores(8), cohort=RESEARCH), a_quota(TEAM_B, soft=cores(4), cohort=RESEARCH))
    uses(state, TEAM_A, 8)

    happened(state, a_quota(TEAM_A, soft=cores(2), cohort=RESEARCH))

    assert available(state, TEAM_A) == -2
    assert available(state, TEAM_B) == -2


def test_what_is_lent_must_be_taken_back_before_its_owner_uses_it() -> None:
    state = a_cluster(a_quota(TEAM_A, soft=cores(4), cohort=RESEARCH), a_quota(TEAM_B, soft=cores(4), cohort=RESEARCH))
    uses(state, TEAM_B, 7)

    (reason,) = entitlement.shortfall(state, request := a_request(cpu=4_000), request.total)

    assert (reason.code, reason.best_available) == (ReasonCode.QUOTA_CEILING, 1_000)


def test_what_siblings_have_in_flight_is_lent_already() -> None:
    state = a_cluster(a_quota(TEAM_A, soft=cores(4), cohort=RESEARCH), a_quota(TEAM_B, soft=cores(4), cohort=RESEARCH))
    assumed = Assumed()
    assert codes(state, a_request(cpu=8_000), assumed) == []

    assumed.add(TEAM_B, Resources(cpu_millicores=3_000))

    assert codes(state, a_request(cpu=6_000), assumed) == [ReasonCode.QUOTA_CEILING]
    assert codes(state, a_request(cpu=6_000), dict(assumed)) == [ReasonCode.QUOTA_CEILING]
    assert codes(state, a_request(cpu=5_000), assumed) == []
    uses(state, TEAM_B, 1)
    assert codes(state, a_request(cpu=5_000), assumed) == [ReasonCode.QUOTA_CEILING]


def test_a_cohort_that_is_only_named_lends_among_its_members() -> None:
    state = a_cluster(a_cohort("research", parent="company"), a_quota(soft=cores(4), cohort=RESEARCH))

    assert available(state, TEAM_A) == 4


def test_a_transaction_that_is_taken_back_leaves_no_trace_in_the_trees() -> None:
    state = a_cluster(a_quota(TEAM_A, soft=cores(4), cohort=RESEARCH), a_quota(TEAM_B, soft=cores(4), cohort=RESEARCH))
    assert available(state, TEAM_A) == 8

    with state.journal.trial():
        uses(state, TEAM_B, 3)
        assert available(state, TEAM_A) == 5
        happened(state, a_quota(TEAM_B, soft=cores(9), cohort=RESEARCH))
        assert available(state, TEAM_A) == 10

    assert available(state, TEAM_A) == 8


# ---------------------------------------------------------------- shares


def test_r71_the_share_is_what_is_borrowed_of_what_could_be_had_rounded_up() -> None:
    state = a_cluster(
        a_quota(TEAM_A, soft={CPU: 2_000, "gpu": 1}, cohort=RESEARCH),
        a_quota(TEAM_B, soft={CPU: 5_000, "gpu": 2}, cohort=RESEARCH),
    )
    assert entitlement.share(state, TEAM_A) == Share()
    uses(state, TEAM_A, 3)

    assert entitlement.share(state, TEAM_A).permille == 143, "1 of 7"
    more = entitlement.share(state, TEAM_A, Resources(extended=(("gpu", 2),)))
    assert (more.permille, more.dimension) == (334, "gpu"), "1 of 3"


def test_r71_weights_divide_and_a_weight_of_nothing_is_infinite() -> None:
    def share(weight_permille: int) -> Share:
        state = a_cluster(
            a_quota(TEAM_A, soft=cores(2), cohort=RESEARCH, weight_permille=weight_permille),
            a_quota(TEAM_B, soft=cores(6), cohort=RESEARCH),
        )
        uses(state, TEAM_A, 4)
        return entitlement.share(state, TEAM_A)

    assert share(1_000).permille == 250
    assert share(2_000).permille == 125
    assert share(500).permille == 500
    assert (share(0).permille, share(0).dimension) == (None, CPU)
    assert share(500).rank < share(0).rank


def test_r71_equal_ratios_are_decided_by_name() -> None:
    state = a_cluster(
        a_quota(TEAM_A, soft={"ram_mb": 0, CPU: 0}, cohort=RESEARCH),
        a_quota(TEAM_B, soft={"ram_mb": 8, CPU: 8}, cohort=RESEARCH),
    )

    assert entitlement.share(state, TEAM_A, Resources(4, 4)).dimension == CPU


def test_r71_the_denominator_respects_the_limits_on_the_way() -> None:
    state = a_cluster(
        a_cohort("research", parent="company", borrowing_limit=cores(2)),
        a_cohort("company", soft=cores(100)),
        a_quota(TEAM_A, soft=cores(2), cohort=RESEARCH),
    )
    uses(state, TEAM_A, 4)

    assert entitlement.share(state, TEAM_A).permille == 500, "2 of the 4 that research could have"
    assert entitlement.lending(state.quotas).cohorts[CohortName("company")].share() == Share()


# ---------------------------------------------------------------- configurations


def problem_paths(state: State) -> list[str]:
    return [problem.path for problem in entitlement.configuration_problems(state.quotas.quotas, state.quotas.cohorts)]


def test_numbers_that_contradict_each_other_are_named_with_their_path() -> None:
    state = a_cluster(
        a_quota(TEAM_A, soft=cores(5), hard=cores(4)),
        a_quota(TEAM_B, soft=cores(5), lending_limit={CPU: 6_000, "ram_mb": 7}),
    )

    assert problem_paths(state) == ["quotas.team-a.soft.cpu_cores", "quotas.team-b.lending_limit.cpu_cores"]
    refused = entitlement.configuration_refusal(state)
    assert refused is not None
    assert refused.code is RefusalCode.INVALID


@pytest.mark.parametrize("parents", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}])
def test_a_circle_of_cohorts_is_found_and_harms_nobody(parents: dict[str, str]) -> None:
    cohorts = [a_cohort(name, parent=parent) for name, parent in parents.items()]
    state = a_cluster(*cohorts, a_quota(soft=cores(4), cohort="a"))

    assert problem_paths(state) == [f"cohorts.{name}.parent" for name in parents]
    assert available(state, TEAM_A) == 4


def test_a_sound_configuration_is_not_refused() -> None:
    state = a_cluster(
        a_cohort("research", parent="company", soft=cores(1), lending_limit=cores(9)),
        a_quota(soft=cores(4), hard=cores(4), cohort=RESEARCH, lending_limit=cores(4)),
    )

    assert entitlement.configuration_refusal(state) is None
    assert entitlement.shortfall(state, a_request(cpu=1_000), NOTHING) == ()
