"""Whose work may be taken, as the leader judges it: own work by priority (R53), others' above soft (R60–R65)."""

from typing import Any

import pytest

from berth.ids import Namespace, NodeId, RequestId
from berth.messages.commands import Grant, Refusal, RefusalCode
from berth.messages.requests import Request
from berth.model import victims
from berth.model.claims import claim_of
from berth.model.cluster import Allocation
from berth.model.ledger import State
from tests.builders import (
    SECOND,
    T0,
    TEAM_A,
    TEAM_B,
    a_cohort,
    a_node,
    a_quota,
    a_request,
    a_state,
    ended,
    happened,
    placed,
)
from tests.unit.model.quota_clusters import CPU, a_cluster, cores

TEAM_C = Namespace("team-c")


def lawful(state: State, request: Request, those: list[Allocation], at: int | None = None) -> Refusal | None:
    """As it is judged when every instance of `request` goes to n1."""
    nodes = [NodeId("n1")] * request.count
    return victims.lawful(state, request, those, state.at if at is None else at, nodes=nodes)


# ---------------------------------------------------------------- victims


def test_r53_only_strictly_lower_priority_of_the_own_namespace_is_a_victim() -> None:
    state = a_cluster()
    request = a_request("urgent", priority=60)
    for name, namespace, priority in (("low", TEAM_A, 59), ("equal", TEAM_A, 60), ("other", TEAM_B, 0)):
        happened(state, placed(a_request(name, namespace=namespace, priority=priority), "n1"))
    low, equal, other = state.cluster.allocations.values()

    assert lawful(state, request, [low]) is None
    for those in ([equal], [low, equal], [other]):
        refused = lawful(state, request, those)
        assert refused is not None
        assert refused.code is RefusalCode.CLASS


def test_preemption_never_evicts_nobody() -> None:
    state = a_cluster()
    happened(state, placed(a_request("low", priority=0), "n1"))
    (victim,) = state.cluster.allocations.values()

    refused = lawful(state, a_request("urgent", preemption="never"), [victim])
    assert refused is not None
    happened(state, a_quota(preemption="never"))
    assert lawful(state, a_request("urgent"), [victim]) is not None


def test_a_victim_that_is_gone_is_stale() -> None:
    state = a_cluster()
    low = a_request("low", priority=0)
    happened(state, placed(low, "n1"))
    happened(state, ended(state, low.key))
    (victim,) = state.cluster.allocations.values()

    refused = lawful(state, a_request("urgent"), [victim])
    assert refused is not None
    assert refused.code is RefusalCode.STALE_VICTIM


# ---------------------------------------------------------------- reclaim: three teams, 4 cores each


def three_teams(*more: Any, **of_team_a: Any) -> State:
    """team-a, team-b and team-c are guaranteed 4 cores each in one cohort; the node has 12, b and c use 6 each."""
    teams = [a_quota(team, soft=cores(4), cohort="lab") for team in (TEAM_B, TEAM_C)]
    state = a_state(a_node("n1", cpu=12_000), a_quota(soft=cores(4), cohort="lab", **of_team_a), *teams, *more)
    for number, team in enumerate((TEAM_B, TEAM_B, TEAM_B, TEAM_C, TEAM_C, TEAM_C)):
        happened(state, placed(a_request(f"r{number}", namespace=team, cpu=2_000), "n1"), at=T0 + number * SECOND)
    return state


def running(state: State, *names: str) -> list[Allocation]:
    return [one for one in state.cluster.allocations.values() if one.request in names]


MINE = a_request("mine", cpu=2_000)


def test_r61_what_is_above_soft_may_be_taken_back_and_nothing_below() -> None:
    state = three_teams()

    assert lawful(state, MINE, running(state, "r0")) is None
    refused = lawful(state, a_request("mine", cpu=4_000), running(state, "r0", "r1"))
    assert refused is not None
    assert refused.code is RefusalCode.CLASS
    assert "uses no more than its quota" in refused.detail, "the second would leave team-b 2 of its 4 cores"
    assert lawful(state, a_request("mine", cpu=4_000), running(state, "r0", "r3")) is None


def test_r61_nobody_is_pushed_below_soft_by_one_that_is_too_large() -> None:
    state = three_teams()
    for name in ("r0", "r1"):
        happened(state, ended(state, (TEAM_B, RequestId(name))))
    happened(state, placed(a_request("large", namespace=TEAM_B, cpu=3_000), "n1"))

    refused = lawful(state, MINE, running(state, "large"))

    assert refused is not None
    assert "its soft is 4000" in refused.detail


def test_r61_a_dimension_that_is_not_short_grounds_nothing() -> None:
    """team-b uses more RAM than its share, but CPU is what is short; and work that uses none of it is no victim."""
    ram = {"ram_mb": 100}
    state = a_state(
        a_node("n1", cpu=4_000),
        a_quota(soft=cores(4) | ram, cohort="lab"),
        a_quota(TEAM_B, soft=cores(4) | ram, cohort="lab"),
        placed(a_request("heavy", namespace=TEAM_B, cpu=4_000, ram=150), "n1"),
    )

    refused = lawful(state, a_request("mine", cpu=1_000, ram=1), running(state, "heavy"))

    assert refused is not None
    assert "cpu_millicores" in refused.detail


def test_r62_lower_priority_takes_back_only_from_lower() -> None:
    state = three_teams(reclaim="lower_priority")

    assert lawful(state, MINE, running(state, "r0")) is not None, "both have priority 50"
    assert lawful(state, a_request("mine", cpu=2_000, priority=51), running(state, "r0")) is None


@pytest.mark.parametrize("never", [{"reclaim": "never"}, {"preemption": "never"}])
def test_r62_who_must_not_reclaim_does_not(never: dict[str, Any]) -> None:
    by_quota = "reclaim" in never
    state = three_teams(**(never if by_quota else {}))
    request = MINE if by_quota else a_request("mine", cpu=2_000, **never)

    refused = lawful(state, request, running(state, "r0"))

    assert refused is not None
    assert refused.code is RefusalCode.CLASS


def test_r62_a_quota_that_protects_its_own_work_may_still_take_back() -> None:
    state = three_teams(preemption="never")

    assert lawful(state, MINE, running(state, "r0")) is None


def test_r63_who_would_borrow_takes_nothing_back() -> None:
    state = three_teams()

    refused = lawful(state, a_request("mine", cpu=5_000), running(state, "r0", "r3"))

    assert refused is not None
    assert "would still borrow" in refused.detail


def test_r64_another_tree_is_out_of_reach() -> None:
    state = three_teams()
    happened(state, a_quota(TEAM_B, soft=cores(4), cohort="elsewhere"))

    refused = lawful(state, MINE, running(state, "r0"))

    assert refused is not None
    assert "shares no cohort" in refused.detail


def test_r65_what_has_just_begun_is_spared_as_long_as_its_quota_says() -> None:
    state = three_teams()
    happened(state, a_quota(TEAM_B, soft=cores(4), cohort="lab", min_run_seconds=30))

    assert lawful(state, MINE, running(state, "r0"), T0 + 29 * SECOND) is not None
    assert lawful(state, MINE, running(state, "r0"), T0 + 30 * SECOND) is None
    assert victims.spared_until(state, MINE, T0 + 29 * SECOND) == T0 + 30 * SECOND
    assert victims.spared_until(state, MINE, T0 + 40 * SECOND) == T0 + 70 * SECOND, "what begins now"
    assert victims.spared_until(three_teams(), MINE, T0) is None


def test_no_more_may_leave_than_the_quota_allows() -> None:
    state = three_teams(max_evictions=1)

    refused = lawful(state, a_request("mine", cpu=4_000), running(state, "r0", "r3"))

    assert refused is not None
    assert "allows 1" in refused.detail
    assert lawful(state, MINE, running(state, "r0")) is None


def test_nothing_is_taken_back_while_there_is_room() -> None:
    state = three_teams(a_node("n2", cpu=8_000), a_cohort("lab", soft=cores(8)))

    refused = victims.lawful(state, MINE, running(state, "r0"), state.at, nodes=[NodeId("n2")])

    assert refused is not None


def test_what_is_short_is_known_from_the_quota_first_and_then_from_the_nodes() -> None:
    state = three_teams()

    assert victims.short_of(state, MINE, MINE.charge, state.at) == (CPU,), "all 12 cores of the cohort are lent or used"
    assert victims.lacking(state, MINE, [NodeId("n1")]) == (CPU,)
    assert victims.lacking(state, a_request("mine", cpu=0), [NodeId("n1")]) == ()


# ---------------------------------------------------------------- nested cohorts

FACULTY = {"parent": "university"}


def two_faculties() -> State:
    """Below `university`: `science` with team-a and team-b, `arts` with team-c; 4 cores each on a node of 12."""
    return a_state(
        a_node("n1", cpu=12_000),
        a_cohort("science", **FACULTY),
        a_cohort("arts", **FACULTY),
        *(a_quota(team, soft=cores(4), cohort="science") for team in (TEAM_A, TEAM_B)),
        a_quota(TEAM_C, soft=cores(4), cohort="arts"),
    )


def test_advantage_reaches_what_a_faculty_lent_to_another() -> None:
    """team-a borrows from team-b within science; together they are within their quota, so arts must give back."""
    state = two_faculties()
    happened(state, placed(a_request("a", cpu=4_000), "n1"))
    happened(state, placed(a_request("c", namespace=TEAM_C, cpu=2_000, count=4, min_count=1), "n1", "n1", "n1", "n1"))
    claim = claim_of(state, MINE, MINE.charge)
    assert claim is not None
    assert claim.fits_at == 1, "not team-a itself, but science"

    assert lawful(state, MINE, running(state, "c")[:1]) is None


def test_without_advantage_siblings_keep_what_they_borrowed() -> None:
    state = two_faculties()
    happened(state, placed(a_request("a", cpu=4_000), "n1"))
    happened(state, placed(a_request("b", namespace=TEAM_B, cpu=2_000, count=4, min_count=1), "n1", "n1", "n1", "n1"))

    refused = lawful(state, MINE, running(state, "b")[:1])

    assert refused is not None
    assert "would still borrow" in refused.detail


def test_r61_a_cohort_within_its_quota_gives_nothing_back() -> None:
    """team-b borrows team-a's share, but science as a whole uses no more than its own: arts has no claim on it."""
    state = two_faculties()
    happened(state, placed(a_request("b", namespace=TEAM_B, cpu=2_000, count=4, min_count=1), "n1", "n1", "n1", "n1"))
    happened(state, placed(a_request("c", namespace=TEAM_C, cpu=1_000), "n1"))
    happened(state, a_node("n1", cpu=9_000))

    refused = lawful(state, a_request("more", namespace=TEAM_C, cpu=2_000), running(state, "b")[:1])

    assert refused is not None
    assert "science uses no more than its quota" in refused.detail


# ---------------------------------------------------------------- order


def test_r60_burst_goes_first_then_borrowed_then_own_and_each_by_priority_and_age() -> None:
    state = a_state(
        a_node("n1", cpu=20_000),
        a_quota(soft=cores(4), cohort="lab"),
        a_quota(TEAM_B, soft=cores(2), cohort="lab"),
        a_quota(TEAM_C, soft=cores(2), cohort="lab", burst_percent=100),
    )
    for number, (team, priority) in enumerate(
        ((TEAM_B, 50), (TEAM_B, 10), (TEAM_B, 50), (TEAM_C, 90), (TEAM_C, 90), (TEAM_C, 90), (TEAM_A, 0))
    ):
        request = a_request(f"r{number}", namespace=team, cpu=2_000, priority=priority)
        happened(state, placed(request, "n1"), at=T0 + number * SECOND)
    request = a_request("mine", cpu=2_000, priority=60)
    claim = claim_of(state, request, request.charge)
    grant = Grant(preempt=True, reclaim=True, max_evictions=9)

    found = victims.candidates(state, request, grant, state.at, claim)

    assert [one.request for one in found] == ["r5", "r4", "r3", "r1", "r2", "r0", "r6"]
    assert [one.request for one in victims.candidates(state, request, grant, state.at)] == ["r6"]


def test_r60_whose_burst_is_used_up_comes_with_the_borrowers() -> None:
    state = a_state(
        a_node("n1", cpu=20_000),
        a_quota(soft=cores(5), cohort="lab"),
        a_quota(TEAM_B, soft=cores(2), cohort="lab", burst_percent=100),
        a_quota(TEAM_C, soft=cores(1), cohort="lab"),
    )
    for number, (team, priority) in enumerate(((TEAM_B, 50), (TEAM_B, 50), (TEAM_B, 50), (TEAM_B, 50), (TEAM_C, 40))):
        request = a_request(f"r{number}", namespace=team, cpu=2_000, priority=priority)
        happened(state, placed(request, "n1"), at=T0 + number * SECOND)
    claim = claim_of(state, MINE, MINE.charge)
    order: list[str] = []

    with state.journal.trial():
        for one in victims.in_order(state, claim, running(state, "r0", "r1", "r4")):
            order.append(one.request)
            state.quotas.release(one.namespace, one.charge)

    assert order == ["r1", "r4", "r0"]
