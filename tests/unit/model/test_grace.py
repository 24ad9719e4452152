"""Grace above `soft`: begins at the first crossing, is clear on return, and then soft is as hard as hard (R85)."""

from berth.messages.commands import RefusalCode
from berth.messages.reasons import ReasonCode
from berth.model import entitlement
from berth.model.check import check
from berth.model.ledger import State
from tests.builders import MINUTE, SECOND, T0, TEAM_A, TEAM_B, a_quota, a_request, ended, happened, placed
from tests.unit.model.quota_clusters import CPU, a_cluster, cores


def graced(seconds: int = 60) -> State:
    """team-a is guaranteed 4 of 8 cores, may burst to 8, and has so many seconds of grace."""
    return a_cluster(a_quota(soft=cores(4) | {"ram_mb": 100}, burst_percent=100, grace_seconds=seconds))


def asked(state: State, cpu: int, at: int, ram: int = 0) -> ReasonCode | None:
    """Why `cpu` more cores are refused at `at`, by the quota and by the leader: both say the same."""
    request = a_request(f"asked-{state.sequence}", cpu=cpu * 1_000, ram=ram)
    reasons = entitlement.shortfall(state, request, request.total, at=at)
    refused = check(state, placed(request, "n1"), at)
    assert (refused is None) is (not reasons)
    assert refused is None or refused.code is RefusalCode.QUOTA
    return reasons[0].code if reasons else None


def runs(state: State, name: str, cpu: int, at: int, ram: int = 0) -> None:
    happened(state, placed(a_request(name, cpu=cpu * 1_000, ram=ram), "n1"), at=at)


def test_r85_above_soft_new_work_is_let_in_while_grace_lasts_and_then_as_if_soft_were_hard() -> None:
    state = graced()
    runs(state, "first", 5, T0)

    assert asked(state, 1, T0 + 59 * SECOND) is None
    assert asked(state, 1, T0 + 60 * SECOND) is ReasonCode.QUOTA_GRACE_OVER
    assert entitlement.available(state, TEAM_A, T0 + 59 * SECOND)[CPU] == 3_000
    assert entitlement.available(state, TEAM_A, T0 + 60 * SECOND)[CPU] == -1_000
    assert state.quotas.used_by(TEAM_A).cpu_millicores == 5_000, "what runs goes on (R83)"


def test_r85_grace_begins_with_the_first_crossing_and_more_of_it_does_not_renew_it() -> None:
    state = graced()
    runs(state, "first", 4, T0)
    runs(state, "second", 1, T0 + MINUTE)
    runs(state, "third", 1, T0 + MINUTE + 30 * SECOND)

    assert state.quotas.grace_ends(TEAM_A, CPU) == T0 + 2 * MINUTE


def test_r85_grace_is_clear_on_return_below_soft_and_starts_anew_with_the_next_crossing() -> None:
    state = graced()
    runs(state, "first", 4, T0)
    runs(state, "second", 1, T0)
    happened(state, ended(state, (TEAM_A, a_request("second").id)), at=T0 + 90 * SECOND)

    assert state.quotas.grace_ends(TEAM_A, CPU) is None
    assert asked(state, 1, T0 + 2 * MINUTE) is None
    runs(state, "third", 1, T0 + 3 * MINUTE)
    assert state.quotas.grace_ends(TEAM_A, CPU) == T0 + 4 * MINUTE


def test_r85_grace_is_counted_for_each_dimension_by_itself() -> None:
    state = graced()
    runs(state, "first", 5, T0)
    runs(state, "second", 0, T0 + 50 * SECOND, ram=150)

    assert asked(state, 0, T0 + MINUTE, ram=10) is None
    assert asked(state, 1, T0 + MINUTE) is ReasonCode.QUOTA_GRACE_OVER
    assert asked(state, 0, T0 + 2 * MINUTE, ram=10) is ReasonCode.QUOTA_GRACE_OVER


def test_r85_no_grace_at_all_makes_soft_hard_at_once_and_none_said_never_runs_out() -> None:
    assert asked(graced(0), 4, T0) is None
    assert asked(graced(0), 5, T0) is ReasonCode.QUOTA_GRACE_OVER

    state = a_cluster(a_quota(soft=cores(4), burst_percent=100))
    runs(state, "first", 5, T0)
    assert asked(state, 1, T0 + 10**9) is None


def test_r85_a_grace_that_is_given_while_above_begins_then_and_goes_with_the_quota() -> None:
    state = a_cluster(a_quota(soft=cores(4), burst_percent=100), a_quota(TEAM_B, soft=cores(1), grace_seconds=5))
    runs(state, "first", 5, T0)

    happened(state, a_quota(soft=cores(4), burst_percent=100, grace_seconds=60), at=T0 + MINUTE)
    assert state.quotas.grace_ends(TEAM_A, CPU) == T0 + 2 * MINUTE
    happened(state, a_quota(soft=cores(5), burst_percent=100, grace_seconds=60), at=T0 + 2 * MINUTE)
    assert state.quotas.grace_ends(TEAM_A, CPU) is None
    happened(state, a_quota(soft={"ram_mb": 1}, grace_seconds=60), at=T0 + 2 * MINUTE)
    happened(state, a_quota(soft=cores(3)), at=T0 + 3 * MINUTE)
    assert dict(state.quotas.above) == {}


def test_a_transaction_that_is_refused_leaves_no_grace_behind() -> None:
    state = graced()
    before = state.digest()

    assert check(state, placed(a_request("large", cpu=9_000), "n1"), T0) is not None

    assert dict(state.quotas.above) == {}
    assert state.digest() == before
