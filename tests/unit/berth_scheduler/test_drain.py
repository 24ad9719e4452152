"""Draining a node: what runs there moves, each request in one transaction, and only when it has another place."""

from berth.ids import NodeId
from berth.messages.events import AllocationsEnded, AllocationsReleasing, Event, How, NodeChanged, RequestPlaced
from berth.messages.reasons import ReasonCode
from berth.model.cluster import AllocationState
from tests.builders import HOUR, SECOND, T0, a_node, a_quota, a_request, a_reservation, activated, ended, placed
from tests.unit.berth_scheduler.evicting import URGENT, asked, low
from tests.unit.berth_scheduler.stage import Stage, attempt_of, item

WEB = a_request("web", cpu=1_000)
ALL = ("n1", "n2", "n3")


def drain(stage: Stage, node: str = "n1") -> None:
    stage.set_node(node, draining=True)
    stage.advance(1_000, beating=ALL)


def test_what_runs_on_a_draining_node_is_evicted_and_placed_again_in_one_transaction() -> None:
    stage = Stage(a_node("n1"), a_node("n2"), placed(WEB, "n1"))

    drain(stage)

    assert stage.where(WEB) == ["n2"]
    (transaction,) = stage.leader.records[-1].transactions
    assert [type(event.data) for event in transaction] == [AllocationsEnded, RequestPlaced]
    assert {event.attempt for event in transaction} == {2}
    ended_ = transaction[0].data
    assert isinstance(ended_, AllocationsEnded)
    assert (ended_.ids, ended_.how, ended_.reason) == (("web.0",), How.EVICTED, ReasonCode.DRAINED)
    assert stage.leader.state.queue.requests[WEB.key].live == ("web.0.1",)
    assert attempt_of(stage.leader.state, WEB.key) == 3


def test_a_drain_moves_each_allocation_exactly_once() -> None:
    requests = [a_request(f"r{number}", cpu=100) for number in range(50)]
    stage = Stage(a_node("n1"), a_node("n2"), a_node("n3"), *(placed(request, "n1") for request in requests))

    drain(stage)
    stage.advance(3_000, beating=ALL)

    assert all(stage.where(request)[0] in ("n2", "n3") for request in requests)
    assert {attempt_of(stage.leader.state, request.key) for request in requests} == {3}
    assert stage.state.digest() == stage.leader.state.digest()


def test_what_has_no_other_place_stays_until_there_is_one() -> None:
    stage = Stage(a_node("n1"), a_node("n2", cpu=1_000), placed(WEB, "n1"), placed(a_request("other"), "n2"))

    drain(stage)
    stage.advance(2_000, beating=ALL)
    assert stage.where(WEB) == ["n1"]

    stage.leader.happened(ended(stage.leader.state, a_request("other").key), at=stage.now)
    stage.advance(1_000, beating=ALL)
    assert stage.where(WEB) == ["n2"]


def test_a_move_needs_no_second_quota_and_during_its_grace_waits_in_the_queue_instead() -> None:
    graceful = a_request("slow", cpu=1_000, grace_seconds=30)
    stage = Stage(
        a_node("n1"),
        a_node("n2"),
        a_quota(hard={"cpu_millicores": 2_000}),
        placed(WEB, "n1"),
        placed(graceful, "n1"),
    )

    drain(stage)
    stage.advance(2_000, beating=ALL)

    assert stage.where(WEB) == ["n2"]
    assert (stage.where(graceful), stage.status(graceful)) == ([], "queued"), "twice would exceed the quota"


def test_a_graceful_request_runs_at_its_new_place_while_the_old_one_ends() -> None:
    graceful = a_request("slow", cpu=1_000, grace_seconds=30)
    stage = Stage(a_node("n1"), a_node("n2"), placed(graceful, "n1"))

    drain(stage)

    assert stage.where(graceful) == ["n2"]
    old = stage.leader.state.cluster.allocations[
        graceful.namespace, stage.leader.state.queue.requests[graceful.key].live[0]
    ]
    assert (old.state, old.node, old.reason) == (AllocationState.RELEASING, "n1", ReasonCode.DRAINED)
    assert old.until is not None and T0 + 30 * SECOND <= old.until <= stage.now + 30 * SECOND
    released = [
        event.data
        for record in stage.leader.records
        for transaction in record.transactions
        for event in transaction
        if isinstance(event.data, AllocationsReleasing)
    ]
    assert len(released) == 1, "what is releasing already is left alone"


def test_one_instance_of_a_gang_moves_without_its_siblings() -> None:
    gang = a_request("gang", count=3, cpu=1_000)
    stage = Stage(a_node("n1"), a_node("n2"), placed(gang, "n1", "n2", "n2"))

    drain(stage)

    assert stage.where(gang) == ["n2", "n2", "n2"]
    assert set(stage.leader.state.queue.requests[gang.key].live) == {"gang.0.1", "gang.1", "gang.2"}


def test_a_gang_keeps_its_anti_affinity_while_it_moves() -> None:
    apart = [{"match_labels": {"app": "db"}, "topology_key": "node"}]
    gang = a_request("gang", count=2, cpu=1_000, labels={"app": "db"}, anti_affinity=apart)
    stage = Stage(a_node("n1"), a_node("n2"), a_node("n3"), placed(gang, "n1", "n2"))

    drain(stage)

    assert sorted(stage.where(gang)) == ["n2", "n3"]


def test_what_leaves_is_no_neighbour_of_its_successor() -> None:
    zone = [{"match_labels": {"app": "db"}, "topology_key": "zone"}]
    single = a_request("single", cpu=1_000, labels={"app": "db"}, anti_affinity=zone)
    stage = Stage(a_node("n1", labels={"zone": "a"}), a_node("n2", labels={"zone": "a"}), placed(single, "n1"))

    drain(stage)

    assert stage.where(single) == ["n2"]


def test_a_request_that_must_not_be_rescheduled_ends_with_the_drain() -> None:
    once = a_request("once", reschedule="never")
    stage = Stage(a_node("n1"), a_node("n2"), placed(once, "n1"))

    drain(stage)

    known = stage.leader.state.queue.requests[once.key]
    assert (known.status.value, known.ended) == ("evicted", ReasonCode.DRAINED)


def test_a_drained_draw_moves_within_its_reservation() -> None:
    drawing = a_request("x", cpu=2_000, reservation="res1")
    stage = Stage(
        a_node("n1"),
        a_node("n2"),
        a_node("n3"),
        a_reservation(start=T0, end=T0 + HOUR, on={"n1": 1, "n3": 1}, cpu=2_000),
        activated(),
        placed(drawing, "n1"),
    )

    drain(stage)

    assert stage.where(drawing) == ["n3"]
    assert stage.state.digest() == stage.leader.state.digest()


def test_work_that_arrives_during_a_drain_goes_elsewhere_and_a_stopped_drain_moves_nothing_more() -> None:
    stage = Stage(a_node("n1"), a_node("n2", cpu=1_000))
    drain(stage)
    stage.evaluate(item(WEB))
    stage.run()
    assert stage.where(WEB) == ["n2"]

    stage.set_node("n1", draining=False)
    stage.set_node("n2", draining=True)
    stage.set_node("n2", draining=False)
    assert stage.leader.state.cluster.nodes[NodeId("n2")].draining is False
    stage.advance(1_000, beating=ALL)
    assert stage.where(WEB) in (["n1"], ["n2"])


def test_what_a_proposal_in_flight_would_evict_is_not_moved_as_well() -> None:
    stage = Stage(a_node("n1", cpu=4_000), a_node("n2", cpu=2_000), placed(low("victim", cpu=2_000), "n1"))
    stage.evaluate(asked(URGENT))
    stage.settle()
    assert stage.offered_nodes() == [["n1"]]
    stage.leader.happened((Event(NodeChanged(node=NodeId("n1"), draining=True)),), at=stage.now)
    stage.fold()

    stage.settle()
    assert len(stage.offers) == 1, "its victim may be gone any moment"
    stage.advance(1_000, beating=ALL)

    assert stage.where(low("victim", cpu=2_000)) == ["n2"], "the leader refused the eviction, and it moved"


def test_two_schedulers_drain_one_node_and_each_allocation_moves_once() -> None:
    requests = [a_request(f"r{number}", cpu=100) for number in range(20)]
    one = Stage(a_node("n1"), a_node("n2"), *(placed(request, "n1") for request in requests))
    other = Stage(leader=one.leader)

    one.set_node("n1", draining=True)
    other.fold()
    for stage in (one, other):
        stage.now += 500
        stage.settle()
    for stage in (one, other):
        stage.commit()
    for stage in (one, other):
        stage.run()

    assert {attempt_of(one.leader.state, request.key) for request in requests} == {3}
    assert one.state.digest() == other.state.digest() == one.leader.state.digest()
