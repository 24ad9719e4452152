"""Taking back what others use above soft: who leaves, and that the leader refuses what is not lawful (R60–R63)."""

from typing import Any

import pytest

from berth.ids import AllocationId, Namespace, NodeId
from berth.messages.commands import Grant, RefusalCode
from berth.messages.events import AllocationPlaced, AllocationsEnded, How, RequestPlaced, RequestQueued, about
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.model.check import check
from berth.model.ledger import State
from tests.builders import (
    HOUR,
    SECOND,
    T0,
    TEAM_A,
    TEAM_B,
    a_node,
    a_quota,
    a_request,
    a_state,
    happened,
    placed,
    submitted,
)
from tests.unit.berth_scheduler.evicting import asked, found, victims
from tests.unit.berth_scheduler.stage import Stage

TEAM_C = Namespace("team-c")
TAKES_BACK = Grant(preempt=True, reclaim=True, max_evictions=100)
SHORT = TAKES_BACK.model_copy(update={"quota_short": True})


def soft(cores: int, **document: Any) -> dict[str, Any]:
    return {"soft": {"cpu_millicores": cores * 1_000}, "cohort": "lab", **document}


def a_lab(*runs: tuple[str, str, int, str, int], nodes: int = 2, size: int = 6, **team_a: Any) -> State:
    """Three teams of 4 cores on nodes of `size`; `runs`: name, team, cores, node and priority, one second apart."""
    state = a_state(
        *(a_node(f"n{number}", cpu=size * 1_000) for number in range(1, nodes + 1)),
        a_quota(TEAM_A, **soft(4, **team_a)),
        a_quota(TEAM_B, **soft(4)),
        a_quota(TEAM_C, **soft(4, burst_percent=100)),
    )
    for number, (name, team, cores, node, priority) in enumerate(runs):
        request = a_request(name, namespace=team, cpu=cores * 1_000, priority=priority)
        happened(state, placed(request, node), at=T0 + number * SECOND)
    return state


def mine(cores: int, **document: Any) -> Request:
    return a_request("mine", cpu=cores * 1_000, **document)


FULL = (
    ("b1", TEAM_B, 2, "n1", 50),
    ("b2", TEAM_B, 2, "n1", 50),
    ("b3", TEAM_B, 2, "n1", 50),
    ("c1", TEAM_C, 2, "n2", 50),
    ("c2", TEAM_C, 2, "n2", 50),
    ("c3", TEAM_C, 2, "n2", 50),
)


def test_an_owner_gets_its_share_back_from_whoever_is_above_theirs() -> None:
    state = a_lab(*FULL)

    assert victims(state, mine(2), SHORT, T0 + HOUR) == ["c3.0"], "of equals, who came last"
    assert victims(state, a_request("both", cpu=2_000, count=2), SHORT, T0 + HOUR) == ["b3.0", "c3.0"]


def test_no_set_that_leaves_somebody_below_soft_is_chosen() -> None:
    """One node could be cleared of two that belong to the same team, which is above its share by one only."""
    state = a_lab(*FULL)

    assert victims(state, mine(4), SHORT, T0 + HOUR) == []


def test_without_the_grant_nobody_else_is_asked() -> None:
    state = a_lab(*FULL)

    assert victims(state, mine(2), Grant(preempt=True, max_evictions=9, quota_short=True), T0 + HOUR) == []


def test_capacity_alone_is_taken_back_too_and_from_who_bursts_first() -> None:
    """13 cores of 12 guaranteed: the quota would do, the nodes are full. team-c bursts, team-b only borrows."""
    state = a_lab(
        ("b1", TEAM_B, 2, "n1", 10),
        ("b2", TEAM_B, 4, "n1", 10),
        ("c1", TEAM_C, 4, "n2", 90),
        ("c2", TEAM_C, 3, "n2", 90),
        size=7,
    )

    assert victims(state, mine(2), TAKES_BACK, T0 + HOUR) == ["c2.0"]
    assert victims(a_lab(*FULL, size=7), mine(1), TAKES_BACK, T0 + HOUR) == [], "there is room"


def test_who_may_not_be_taken_after_another_may_be_in_its_stead() -> None:
    """The small one comes first, but then the large one would go below its share; the large one alone will do."""
    state = a_lab(("b1", TEAM_B, 1, "n1", 10), ("b2", TEAM_B, 3, "n1", 20), ("b3", TEAM_B, 4, "n2", 50), size=4)

    assert victims(state, mine(3), TAKES_BACK, T0 + HOUR) == ["b2.0"]


def test_own_less_important_work_pays_for_what_exceeds_the_share() -> None:
    """team-a uses 3 of its 4 and wants 2 more: others owe it 1, and its own work of low priority gives the other."""
    state = a_lab(("a1", TEAM_A, 1, "n1", 0), ("a2", TEAM_A, 2, "n1", 90), ("b1", TEAM_B, 3, "n1", 50), *FULL[3:])

    assert victims(state, mine(2, priority=60), SHORT, T0 + HOUR) == ["a1.0", "c3.0"]
    assert victims(state, mine(2, priority=0), SHORT, T0 + HOUR) == [], (
        "it would borrow, and takes nothing back for that"
    )


def test_r63_who_was_evicted_does_not_evict_back() -> None:
    stage = Stage(
        *(a_node(node, cpu=6_000) for node in ("n1", "n2")),
        *(a_quota(team, **soft(4)) for team in (TEAM_A, TEAM_B, TEAM_C)),
        *(placed(a_request(n, namespace=t, cpu=c * 1_000), node) for n, t, c, node, _ in FULL),
    )

    stage.evaluate(asked(mine(2), SHORT))
    stage.run()

    assert stage.where(mine(2)) != []
    evicted = stage.leader.state.queue.requests[mine(2).key].victims[0]
    assert evicted[3] == ReasonCode.RECLAIMED
    back = a_request("back", namespace=evicted[1], cpu=2_000)
    assert victims(stage.leader.state, back, SHORT, T0 + HOUR) == []


def test_two_of_one_batch_do_not_take_back_the_same_excess() -> None:
    """team-b is above its share by 2: the second of two that are judged together sees it gone and asks team-c."""
    stage = Stage(
        *(a_node(node, cpu=6_000) for node in ("n1", "n2")),
        *(a_quota(team, **soft(4)) for team in (TEAM_A, TEAM_B, TEAM_C)),
        *(placed(a_request(n, namespace=t, cpu=c * 1_000), node) for n, t, c, node, _ in FULL),
    )
    first, second = mine(2), a_request("second", cpu=2_000)

    stage.evaluate(asked(first, SHORT), asked(second, SHORT))
    stage.run()

    assert stage.where(first) != []
    assert stage.where(second) != []
    assert len(stage.sent) == 1, "nobody was refused"


# ---------------------------------------------------------------- the law


def forged(state: State, *names: str) -> tuple[Any, ...]:
    """A proposal that evicts these for `mine`, lawful or not."""
    events: list[Any] = []
    for one in state.cluster.allocations.values():
        if one.request in names:
            ended = AllocationsEnded(ids=(one.id,), how=How.EVICTED, reason=ReasonCode.RECLAIMED)
            queued = RequestQueued(reasons=(Reason(code=ReasonCode.RECLAIMED),), wake=(), evaluated_at=state.sequence)
            events += [about(one.request_key, ended), about(one.request_key, queued)]
    request = mine(2 * len(names))
    data = RequestPlaced(
        allocations=(AllocationPlaced(id=AllocationId("mine.0"), node=NodeId("n1"), charge=request.charge),)
    )
    return (*events, submitted(request), about(request.key, data, attempt=submitted(request).attempt))


@pytest.mark.parametrize(("names", "is_lawful"), [(("b1",), True), (("b1", "b2"), False), (("b1", "b2", "b3"), False)])
def test_the_leader_refuses_a_forged_victim_set(names: tuple[str, ...], is_lawful: bool) -> None:
    state = a_lab(*FULL)
    before = state.digest()

    refused = check(state, forged(state, *names), T0 + HOUR)

    assert state.digest() == before
    if is_lawful:
        assert refused is None
    else:
        assert refused is not None
        assert refused.code is RefusalCode.CLASS
        assert "R61" in refused.detail


def test_r60_more_candidates_than_are_needed_are_given_back() -> None:
    state = a_lab(*FULL)

    answer = found(state, mine(2), SHORT, T0 + HOUR)

    assert answer is not None
    assert len(answer.evicted) == 1
