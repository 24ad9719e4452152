"""What a namespace may be charged: hard limits, the ladder above soft, cohort trees (SEMANTICS R53, R66–R71, R83)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.ids import CohortName, Namespace
from berth.messages.commands import RefusalCode
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Request
from berth.model import entitlement
from berth.model.entitlement import Assumed
from berth.model.ledger import State
from berth.model.lending import Lending, Share
from berth.resources import NOTHING, Resources
from tests.builders import TEAM_A, TEAM_B, a_cohort, a_node, a_quota, a_request, a_state, ended, happened, placed

CPU = "cpu_millicores"
RESEARCH = CohortName("research")


def cores(count: int) -> dict[str, int]:
    return {CPU: count * 1_000}


def a_cluster(*transactions: Any) -> State:
    """Quotas, and one node that never runs short."""
    return a_state(a_node(cpu=10**9, ram=10**9, extended={"gpu": 10**6}), *transactions)


def uses(state: State, namespace: str, count: int) -> Request:
    """Something of `namespace` runs on `count` cores."""
    request = a_request(f"used-{len(state.queue.requests)}", namespace=namespace, cpu=count * 1_000)
    happened(state, placed(request, "n1"))
    return request


def available(state: State, namespace: str) -> int | None:
    """Whole cores that `namespace` could be charged now."""
    millicores = entitlement.available(state, Namespace(namespace))[CPU]
    assert millicores is None or millicores % 1_000 == 0
    return None if millicores is None else millicores // 1_000


def codes(state: State, request: Request, assumed: entitlement.Assumption = entitlement.NOBODY) -> list[ReasonCode]:
    return [reason.code for reason in entitlement.shortfall(state, request, request.total, assumed)]


# ---------------------------------------------------------------- hard limits


def test_a_namespace_without_a_document_is_unlimited_and_nothing_is_guaranteed() -> None:
    state = a_cluster()
    uses(state, TEAM_A, 500)

    assert codes(state, a_request(cpu=10**6)) == []
    assert available(state, TEAM_A) is None
    assert entitlement.classes(state, TEAM_A).guaranteed == {}


@pytest.mark.parametrize(
    ("dimension", "asked"),
    [
        (CPU, {"cpu": 5_000}),
        ("ram_mb", {"ram": 5_000}),
        ("gpu", {"extended": {"gpu": 5}}),
        ("instances", {"count": 5}),
    ],
)
def test_hard_binds_in_every_dimension_and_says_which(dimension: str, asked: dict[str, Any]) -> None:
    state = a_cluster(a_quota(hard={CPU: 4_000, "ram_mb": 4_000, "gpu": 4, "instances": 4}))

    (reason,) = entitlement.shortfall(state, request := a_request(**{"cpu": 0, **asked}), request.total)

    assert reason.code is ReasonCode.QUOTA_HARD
    assert (reason.dimension, reason.needed, reason.best_available) == (
        dimension,
        request.total.amount(dimension),
        4 if dimension in ("gpu", "instances") else 4_000,
    )


def test_disk_is_limited_like_every_other_dimension() -> None:
    state = a_cluster(a_quota(hard={"disk_mb": 10}))
    request = Request.model_validate({"id": "web", "namespace": TEAM_A, "resources": {"disk_mb": 11}})

    assert codes(state, request) == [ReasonCode.QUOTA_HARD]


def test_a_limit_of_zero_is_a_limit_and_an_absent_one_is_none() -> None:
    state = a_cluster(a_quota(hard={"gpu": 0}))

    assert codes(state, a_request(cpu=10**6)) == []
    assert codes(state, a_request(cpu=0, extended={"gpu": 1})) == [ReasonCode.QUOTA_HARD]


def test_a_quota_is_checked_for_the_request_as_a_whole() -> None:
    state = a_cluster(a_quota(hard=cores(5)))

    assert codes(state, a_request(cpu=2_000, count=2)) == []
    assert codes(state, a_request(cpu=2_000, count=3)) == [ReasonCode.QUOTA_HARD]


def test_what_a_dimension_does_not_ask_for_never_refuses_it() -> None:
    state = a_cluster(a_quota(hard=cores(4)))
    uses(state, TEAM_A, 4)
    happened(state, a_quota(hard=cores(1)))

    assert codes(state, a_request(cpu=0, ram=100)) == []


def test_more_than_hard_could_ever_allow_never_fits() -> None:
    state = a_cluster(a_quota(hard=cores(4)))
    uses(state, TEAM_A, 3)

    assert entitlement.never(state, a_request(cpu=4_000)) == ()
    (reason,) = entitlement.never(state, a_request(cpu=1_000, count=5))
    assert (reason.code, reason.needed, reason.best_available) == (ReasonCode.EXCEEDS_HARD, 5_000, 4_000)


def test_what_draws_on_a_reservation_is_paid_for_by_the_reservation() -> None:
    state = a_cluster(a_quota(hard=cores(1)))

    assert entitlement.never(state, a_request(cpu=4_000, reservation="res1")) == ()


def test_what_is_in_flight_counts_as_used() -> None:
    state = a_cluster(a_quota(hard=cores(4)))
    assumed = Assumed()
    assumed.add(TEAM_A, Resources(cpu_millicores=3_000))

    assert codes(state, a_request(cpu=2_000), assumed) == [ReasonCode.QUOTA_HARD]
    assert codes(state, a_request(cpu=2_000)) == []
    assumed.take(TEAM_A, Resources(cpu_millicores=3_000))
    assert codes(state, a_request(cpu=2_000), assumed) == []


def test_r83_lowering_a_limit_kills_nothing_and_lets_nothing_new_in() -> None:
    state = a_cluster(a_quota(hard=cores(8)))
    uses(state, TEAM_A, 6)

    happened(state, a_quota(hard=cores(4)))

    assert available(state, TEAM_A) == -2
    assert codes(state, a_request(cpu=1_000)) == [ReasonCode.QUOTA_HARD]
    assert state.quotas.used_by(TEAM_A).cpu_millicores == 6_000


# ---------------------------------------------------------------- soft, borrowed, burst


def test_soft_left_out_is_hard() -> None:
    state = a_cluster(a_quota(hard=cores(4)))
    uses(state, TEAM_A, 4)

    assert entitlement.classes(state, TEAM_A).guaranteed == {CPU: 4_000, "instances": 1}


def test_r70_without_a_cohort_nothing_is_borrowed() -> None:
    state = a_cluster(a_quota(soft=cores(4), hard=cores(8)))

    assert available(state, TEAM_A) == 4
    assert codes(state, a_request(cpu=5_000)) == [ReasonCode.QUOTA_CEILING]


def test_a_burst_goes_beyond_soft_without_a_lender_and_stays_below_hard() -> None:
    state = a_cluster(a_quota(soft=cores(10), hard=cores(11), burst_percent=20))
    uses(state, TEAM_A, 10)

    assert available(state, TEAM_A) == 1
    happened(state, a_quota(soft=cores(10), hard=cores(40), burst_percent=20))
    assert available(state, TEAM_A) == 2


def test_a_burst_is_rounded_down() -> None:
    state = a_cluster(a_quota(soft={CPU: 999}, burst_percent=50))

    assert entitlement.available(state, TEAM_A)[CPU] == 999 + 499


def test_usage_is_classed_bottom_up() -> None:
    state = a_cluster(
        a_quota(TEAM_A, soft=cores(10), cohort=RESEARCH, burst_percent=30),
        a_quota(TEAM_B, soft=cores(4), cohort=RESEARCH),
    )
    uses(state, TEAM_A, 17)

    found = entitlement.classes(state, TEAM_A)

    assert (found.guaranteed[CPU], found.borrowed[CPU], found.burst[CPU]) == (10_000, 4_000, 3_000)
    assert found.guaranteed["instances"] == 1, "a dimension that no quota names is never taken back"


def test_a_burst_is_no_debt_of_the_others() -> None:
    state = a_cluster(
        a_quota(TEAM_A, soft=cores(10), cohort=RESEARCH, burst_percent=20),
        a_quota(TEAM_B, soft=cores(10), cohort=RESEARCH),
    )
    uses(state, TEAM_B, 10)
    uses(state, TEAM_A, 12)

    assert available(state, TEAM_A) == 0
    assert available(state, TEAM_B) == 0, "12 of 10 are a burst, not 2 that team-b lent"
    assert entitlement.classes(state, TEAM_A).burst == {CPU: 2_000}


def test_a_request_that_must_not_borrow_stays_within_soft() -> None:
    state = a_cluster(
        a_quota(TEAM_A, soft=cores(4), cohort=RESEARCH, burst_percent=50),
        a_quota(TEAM_B, soft=cores(4), cohort=RESEARCH),
    )

    assert codes(state, a_request(cpu=8_000)) == []
    assert codes(state, a_request(cpu=4_000, borrow="never")) == []
    assert codes(state, a_request(cpu=5_000, borrow="never")) == [ReasonCode.QUOTA_CEILING]


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


# ---------------------------------------------------------------- the law


def test_the_law_judges_the_dimensions_that_were_raised() -> None:
    state = a_cluster(a_quota(hard={CPU: 4_000, "ram_mb": 100}))
    happened(state, placed(a_request(cpu=2_000, ram=200), "n1"))

    ram = entitlement.over_limit(state, TEAM_A, Resources(ram_mb=1), may_borrow=True)
    cpu = entitlement.over_limit(state, TEAM_A, Resources(cpu_millicores=1), may_borrow=True)

    assert ram is not None
    assert ram.code is RefusalCode.QUOTA
    assert cpu is None


def test_the_law_keeps_who_must_not_borrow_within_soft() -> None:
    state = a_cluster(a_quota(TEAM_A, soft=cores(2), cohort=RESEARCH), a_quota(TEAM_B, soft=cores(4), cohort=RESEARCH))
    uses(state, TEAM_A, 3)
    raised = Resources(cpu_millicores=1)

    assert entitlement.over_limit(state, TEAM_A, raised, may_borrow=True) is None
    refused = entitlement.over_limit(state, TEAM_A, raised, may_borrow=False)
    assert refused is not None
    assert refused.code is RefusalCode.QUOTA


amounts = st.integers(min_value=0, max_value=12)


@given(
    soft=st.tuples(amounts, amounts),
    lent=st.none() | amounts,
    limit=st.none() | amounts,
    burst=st.integers(min_value=0, max_value=200),
    steps=st.lists(st.tuples(st.booleans(), st.integers(min_value=1, max_value=6)), max_size=8),
)
def test_what_shortfall_admits_the_law_accepts_and_nothing_more(
    soft: tuple[int, int],
    lent: int | None,
    limit: int | None,
    burst: int,
    steps: list[tuple[bool, int]],
) -> None:
    lending = {CPU: min(lent, soft[0]) * 1_000} if lent is not None else None
    borrowing = None if limit is None else cores(limit)
    state = a_cluster(
        a_quota(TEAM_A, soft=cores(soft[0]), cohort=RESEARCH, lending_limit=lending, burst_percent=burst),
        a_quota(TEAM_B, soft=cores(soft[1]), hard=cores(20), cohort=RESEARCH, borrowing_limit=borrowing),
    )
    for of_a, count in steps:
        namespace = TEAM_A if of_a else TEAM_B
        request = a_request("next", namespace=namespace, cpu=count * 1_000)
        admitted = not entitlement.shortfall(state, request, request.total)
        with state.journal.trial():
            uses(state, namespace, count)
            lawful = entitlement.over_limit(state, namespace, request.total, may_borrow=True) is None
        assert admitted == lawful
        if admitted:
            uses(state, namespace, count)

    built_anew = Lending(state.quotas.quotas, state.quotas.cohorts, state.quotas.used_by)
    kept = entitlement.lending(state.quotas)
    for namespace in (TEAM_A, TEAM_B):
        assert built_anew.namespaces[namespace].available(CPU) == kept.namespaces[namespace].available(CPU)
        assert built_anew.namespaces[namespace].room(CPU) == kept.namespaces[namespace].room(CPU)
        found = entitlement.classes(state, namespace)
        parts = (found.guaranteed, found.borrowed, found.burst)
        assert sum(part.get(CPU, 0) for part in parts) == state.quotas.used_by(namespace).cpu_millicores


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


# ---------------------------------------------------------------- victims


def test_r53_only_strictly_lower_priority_of_the_own_namespace_is_a_victim() -> None:
    state = a_cluster()
    request = a_request("urgent", priority=60)
    for name, namespace, priority in (("low", TEAM_A, 59), ("equal", TEAM_A, 60), ("other", TEAM_B, 0)):
        happened(state, placed(a_request(name, namespace=namespace, priority=priority), "n1"))
    low, equal, other = state.cluster.allocations.values()

    assert entitlement.lawful(state, request, [low], state.at) is None
    for victims in ([equal], [low, equal], [other]):
        refused = entitlement.lawful(state, request, victims, state.at)
        assert refused is not None
        assert refused.code is RefusalCode.CLASS


def test_preemption_never_evicts_nobody() -> None:
    state = a_cluster()
    happened(state, placed(a_request("low", priority=0), "n1"))
    (victim,) = state.cluster.allocations.values()

    refused = entitlement.lawful(state, a_request("urgent", preemption="never"), [victim], state.at)
    assert refused is not None
    happened(state, a_quota(preemption="never"))
    assert entitlement.lawful(state, a_request("urgent"), [victim], state.at) is not None


def test_a_victim_that_is_gone_is_stale() -> None:
    state = a_cluster()
    low = a_request("low", priority=0)
    happened(state, placed(low, "n1"))
    happened(state, ended(state, low.key))
    (victim,) = state.cluster.allocations.values()

    refused = entitlement.lawful(state, a_request("urgent"), [victim], state.at)
    assert refused is not None
    assert refused.code is RefusalCode.STALE_VICTIM


# ---------------------------------------------------------------- configurations


def problem_paths(state: State) -> list[str]:
    return [problem.path for problem in entitlement.configuration_problems(state.quotas.quotas, state.quotas.cohorts)]


def test_numbers_that_contradict_each_other_are_named_with_their_path() -> None:
    state = a_cluster(
        a_quota(TEAM_A, soft=cores(5), hard=cores(4)),
        a_quota(TEAM_B, soft=cores(5), lending_limit={CPU: 6_000, "ram_mb": 7}),
    )

    assert problem_paths(state) == ["quotas.team-a.soft.cpu_millicores", "quotas.team-b.lending_limit.cpu_millicores"]
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
