"""What a namespace may be charged: hard limits, the ladder above soft, the law (SEMANTICS R53, R70, R83)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.messages.commands import RefusalCode
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Request
from berth.model import entitlement
from berth.model.entitlement import Assumed
from berth.model.lending import Lending
from berth.resources import Resources
from tests.builders import TEAM_A, TEAM_B, a_quota, a_request, happened, placed
from tests.unit.model.quota_clusters import CPU, RESEARCH, a_cluster, asks, available, codes, cores, uses

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

    (reason,) = entitlement.shortfall(state, request := asks(**asked), request.total)

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
