"""A drain with a deadline: until then nothing is evicted for no other place; afterwards nothing is left."""

from berth.ids import NodeId
from berth.messages.commands import RefusalCode
from berth.messages.events import AllocationsEnded, Event, How, NodeChanged, RequestQueued, about
from berth.messages.reasons import Reason, ReasonCode
from berth.model.check import check
from berth.model.cluster import Drain
from berth_scheduler.departure import ROOM
from tests.builders import SECOND, T0, a_node, a_quota, a_request, ended, placed
from tests.unit.berth_scheduler.stage import Stage, attempt_of

WEB = a_request("web", cpu=1_000)
OTHER = a_request("other", cpu=1_000)
ONCE = a_request("once", cpu=1_000, reschedule="never")
ALL = ("n1", "n2", "n3")


def full(*more: tuple[Event, ...]) -> Stage:
    """`web` runs on n1, and n2 has no room for it."""
    return Stage(a_node("n1"), a_node("n2", cpu=1_000), placed(OTHER, "n2"), placed(WEB, "n1"), *more)


def drain_of(stage: Stage, node: str = "n1") -> Drain:
    drain = stage.leader.state.cluster.nodes[NodeId(node)].drain
    assert drain is not None
    return drain


def drained_ends(stage: Stage) -> list[tuple[str, ...]]:
    """What was evicted by drains, in order."""
    return [
        event.data.ids
        for record in stage.leader.records
        for transaction in record.transactions
        for event in transaction
        if isinstance(event.data, AllocationsEnded) and event.data.reason is ReasonCode.DRAINED
    ]


def test_what_has_no_other_place_stays_until_the_deadline_and_is_queued_again_then() -> None:
    stage = full()

    stage.set_node("n1", draining=True, deadline_seconds=30)
    assert drain_of(stage) == Drain(since=T0, until=T0 + 30 * SECOND)
    stage.advance(29_500, beating=ALL)
    assert (stage.where(WEB), stage.status(WEB)) == (["n1"], "placed")

    stage.advance(1_000, beating=ALL)

    assert (stage.where(WEB), stage.status(WEB)) == ([], "queued")
    (transaction,) = stage.leader.records[-1].transactions
    assert [type(event.data) for event in transaction] == [AllocationsEnded, RequestQueued]
    assert stage.leader.state.at >= T0 + 30 * SECOND
    assert (drain_of(stage).departed, drain_of(stage).moved) == (1, 0)


def test_what_has_a_place_moves_at_once_and_is_not_touched_again_at_the_deadline() -> None:
    requests = [a_request(f"r{number}", cpu=100) for number in range(20)]
    stage = Stage(a_node("n1"), a_node("n2"), *(placed(request, "n1") for request in requests))

    stage.set_node("n1", draining=True, deadline_seconds=5)
    stage.advance(500, beating=ALL)
    assert (drain_of(stage).departed, drain_of(stage).moved) == (20, 20)
    stage.advance(10_000, beating=ALL)

    assert {attempt_of(stage.leader.state, request.key) for request in requests} == {3}, "each moved exactly once"
    assert {tuple(stage.where(request)) for request in requests} == {("n2",)}
    assert stage.state.digest() == stage.leader.state.digest()


def test_what_gets_room_before_the_deadline_moves_then() -> None:
    stage = full()
    stage.set_node("n1", draining=True, deadline_seconds=60)
    stage.advance(10_000, beating=ALL)

    stage.leader.happened(ended(stage.leader.state, OTHER.key), at=stage.now)
    stage.advance(1_000, beating=ALL)

    assert stage.where(WEB) == ["n2"]
    assert drain_of(stage).moved == 1


def test_a_request_that_must_not_be_rescheduled_runs_on_until_the_deadline() -> None:
    stage = Stage(a_node("n1"), a_node("n2"), placed(ONCE, "n1"))

    stage.set_node("n1", draining=True, deadline_seconds=10)
    stage.advance(9_500, beating=ALL)
    assert (stage.where(ONCE), stage.status(ONCE)) == (["n1"], "placed")
    stage.advance(1_000, beating=ALL)

    known = stage.leader.state.queue.requests[ONCE.key]
    assert (known.status.value, known.ended) == ("evicted", ReasonCode.DRAINED)


def test_a_deadline_of_nothing_moves_what_it_can_and_evicts_the_rest_at_once() -> None:
    stage = Stage(a_node("n1"), a_node("n2", cpu=1_000), placed(WEB, "n1"), placed(a_request("big", cpu=4_000), "n1"))

    stage.set_node("n1", draining=True, deadline_seconds=0)
    stage.advance(1_000, beating=ALL)

    assert stage.where(WEB) == ["n2"]
    assert stage.status(a_request("big", cpu=4_000)) == "queued"
    assert (drain_of(stage).departed, drain_of(stage).moved) == (2, 1)


def test_the_deadline_may_be_moved_and_taken_away_and_the_progress_stays() -> None:
    stage = full(placed(a_request("small", cpu=0), "n1"))
    stage.set_node("n1", draining=True, deadline_seconds=5)
    stage.advance(1_000, beating=ALL)
    assert drain_of(stage).moved == 1

    stage.set_node("n1", draining=True, deadline_seconds=60)
    assert drain_of(stage) == Drain(since=T0, until=stage.now + 60 * SECOND, departed=1, moved=1)
    stage.set_node("n1", draining=True)
    assert drain_of(stage).until is None
    assert stage.set_node("n1", draining=True).sequence is None, "it is so already"
    stage.advance(100_000, beating=ALL)

    assert stage.where(WEB) == ["n1"]


def test_a_drain_that_is_ended_before_its_deadline_evicts_nothing() -> None:
    stage = full()
    stage.set_node("n1", schedulable=False, draining=True, deadline_seconds=5)

    stage.set_node("n1", schedulable=True, draining=False)
    stage.advance(10_000, beating=ALL)

    assert stage.where(WEB) == ["n1"]
    assert stage.leader.state.cluster.nodes[NodeId("n1")].drain is None


def test_a_deadline_survives_the_scheduler_that_was_told_of_it() -> None:
    told = full()
    told.set_node("n1", draining=True, deadline_seconds=5)

    successor = Stage(leader=told.leader)
    successor.now = T0 + 4_000
    successor.scheduler.started(successor.now)
    successor.advance(500, beating=ALL)
    assert successor.where(WEB) == ["n1"]
    successor.advance(1_000, beating=ALL)

    assert successor.status(WEB) == "queued"


def test_the_leader_refuses_an_eviction_that_comes_too_early_however_fast_the_clock_of_who_proposes_it() -> None:
    stage = full()
    stage.set_node("n1", draining=True, deadline_seconds=30)
    allocation = stage.leader.state.queue.requests[WEB.key].live[0]
    evicted = AllocationsEnded(ids=(allocation,), how=How.EVICTED, reason=ReasonCode.DRAINED)
    reasons = (Reason(code=ReasonCode.DRAINED),)
    queued = RequestQueued(reasons=reasons, wake=ROOM, evaluated_at=stage.leader.state.sequence)
    transaction = (about(WEB.key, evicted), about(WEB.key, queued))

    early = check(stage.leader.state, transaction, T0 + 30 * SECOND - 1)
    in_time = check(stage.leader.state, transaction, T0 + 30 * SECOND)

    assert early is not None and early.code is RefusalCode.TOO_EARLY
    assert in_time is None


def test_where_quota_holds_only_one_of_two_for_a_moment_it_is_evicted_at_the_deadline_and_not_before() -> None:
    slow = a_request("slow", cpu=1_000, grace_seconds=2)
    stage = Stage(a_node("n1"), a_node("n2"), a_quota(hard={"cpu_millicores": 1_000}), placed(slow, "n1"))

    stage.set_node("n1", draining=True, deadline_seconds=20)
    stage.advance(19_500, beating=ALL)
    offers = len(stage.sent)
    assert stage.where(slow) == ["n1"]
    assert offers < 10, "what the leader has refused is not offered again until something changes"
    stage.advance(1_000, beating=ALL)

    assert stage.status(slow) == "queued"


def test_of_a_gang_that_must_leave_as_a_whole_the_siblings_on_a_node_with_time_left_leave_too() -> None:
    gang = a_request("gang", count=2, cpu=8_000)
    stage = Stage(a_node("n1"), a_node("n2"), placed(gang, "n1", "n2"))

    stage.set_node("n2", draining=True, deadline_seconds=600)
    stage.set_node("n1", draining=True, deadline_seconds=5)
    stage.advance(6_000, beating=ALL)

    assert (stage.where(gang), stage.status(gang)) == ([], "queued")


def test_two_schedulers_pass_one_deadline_and_each_allocation_leaves_once() -> None:
    requests = [a_request(f"r{number}", cpu=1_000) for number in range(6)]
    one = Stage(a_node("n1"), a_node("n2", cpu=3_000), *(placed(request, "n1") for request in requests))
    other = Stage(leader=one.leader)
    one.set_node("n1", draining=True, deadline_seconds=2)
    other.fold()

    for _ in range(6):
        for stage in (one, other):
            stage.now += 500
            stage.settle()
        for stage in (one, other):
            stage.commit()
        for stage in (one, other):
            stage.run()

    gone = [name for names in drained_ends(one) for name in names]
    assert sorted(gone) == sorted(f"r{number}.0" for number in range(6))
    assert one.state.digest() == other.state.digest() == one.leader.state.digest()


def test_a_move_counts_as_one_and_a_sibling_that_leaves_elsewhere_is_nobodys_progress() -> None:
    gang = a_request("gang", count=2, cpu=6_000)
    stage = Stage(a_node("n1"), a_node("n2"), placed(gang, "n1", "n2"))

    stage.set_node("n1", draining=True, deadline_seconds=1)
    stage.advance(2_000, beating=ALL)

    assert stage.status(gang) == "queued"
    assert (drain_of(stage).departed, drain_of(stage).moved) == (1, 0)


def test_a_deadline_without_a_drain_is_no_event() -> None:
    stage = full()

    refusal = check(stage.leader.state, (Event(NodeChanged(node=NodeId("n1"), drain_until=T0)),), T0)

    assert refusal is not None and refusal.code is RefusalCode.INVALID
