"""What has had its time ends, with its request when nothing of it is left."""

from berth.ids import AllocationId, Attempt, Namespace, NodeId, RequestId
from berth.messages.commands import RefusalCode
from berth.messages.events import (
    AllocationPlaced,
    AllocationsEnded,
    How,
    RequestEnded,
    RequestPlaced,
    RequestStatus,
    about,
)
from berth.messages.reasons import ReasonCode
from berth.model.ledger import State
from tests.builders import (
    MINUTE,
    SECOND,
    T0,
    TEAM_A,
    a_node,
    a_request,
    ended,
    placed,
)
from tests.unit.berth_reservation.scene import Scene


def status(state: State, request: str = "web", *, namespace: Namespace = TEAM_A) -> RequestStatus:
    return state.queue.requests[namespace, RequestId(request)].status


def test_a_duration_that_is_over_ends_allocations_and_request() -> None:
    request = a_request(count=2, duration_seconds=60)
    scene = Scene(a_node(), placed(request, "n1", "n1"), replicas=2)

    scene.advance(T0 + MINUTE - 1)
    assert scene.records == []
    scene.advance(T0 + MINUTE)

    (transaction,) = scene.records[0].transactions
    assert [event.data for event in transaction] == [
        AllocationsEnded(
            ids=(AllocationId("web.0"), AllocationId("web.1")), how=How.EXPIRED, reason=ReasonCode.DURATION_OVER
        ),
        RequestEnded(status=RequestStatus.EXPIRED, reason=ReasonCode.DURATION_OVER),
    ]
    assert [event.attempt for event in transaction] == [2, 2]
    assert len(scene.records) == 1


def test_instances_end_one_after_the_other_as_long_as_enough_stay() -> None:
    request = a_request(count=3, min_count=1, duration_seconds=60)
    scene = Scene(a_node(), placed(request, "n1"))
    for index in (1, 2):
        scene.advance(T0 + 20 * index * SECOND)
        more = AllocationPlaced(id=AllocationId(f"web.{index}"), node=NodeId("n1"), charge=request.charge)
        scene.commit((about(request.key, RequestPlaced(allocations=(more,)), attempt=Attempt(index + 1)),))

    scene.advance(T0 + 2 * MINUTE)

    assert [one.ids for one in scene.data(AllocationsEnded)] == [("web.0",), ("web.1",), ("web.2",)]
    assert [one.at - T0 for one in scene.records[2:]] == [60_000, 80_000, 100_000]
    assert status(scene.leader) is RequestStatus.EXPIRED


def test_instances_that_too_few_others_would_stay_with_end_together() -> None:
    request = a_request(count=3, min_count=2, duration_seconds=60)
    scene = Scene(a_node(), placed(request, "n1", "n1"))
    scene.advance(T0 + 20 * SECOND)
    more = AllocationPlaced(id=AllocationId("web.2"), node=NodeId("n1"), charge=request.charge)
    scene.commit((about(request.key, RequestPlaced(allocations=(more,)), attempt=Attempt(2)),))

    scene.advance(T0 + MINUTE)

    assert status(scene.leader) is RequestStatus.EXPIRED
    assert scene.refusals == []


def test_what_was_placed_again_lives_its_whole_duration() -> None:
    request = a_request(duration_seconds=60)
    scene = Scene(a_node(), placed(request, "n1"))
    gone = AllocationsEnded(ids=(AllocationId("web.0"),), how=How.EVICTED, reason=ReasonCode.DRAINED)
    again = AllocationPlaced(id=AllocationId("web.0.1"), node=NodeId("n1"), charge=request.charge)
    scene.advance(T0 + 30 * SECOND)
    scene.commit((about(request.key, gone), about(request.key, RequestPlaced(allocations=(again,)))))

    scene.advance(T0 + MINUTE)
    assert status(scene.leader) is RequestStatus.PLACED
    scene.advance(T0 + MINUTE + 30 * SECOND)

    assert status(scene.leader) is RequestStatus.EXPIRED


def test_a_release_in_the_same_moment_is_not_undone() -> None:
    request = a_request(duration_seconds=60)
    scene = Scene(a_node(), placed(request, "n1"))
    scene.behind = {0}
    scene.commit(ended(scene.leader, request.key))

    scene.advance(T0 + 2 * MINUTE)
    scene.catch_up(0)
    scene.advance(T0 + 3 * MINUTE)

    assert status(scene.leader) is RequestStatus.RELEASED
    assert {refusal.code for refusal in scene.refusals} <= {RefusalCode.SUPERSEDED, RefusalCode.STALE_VICTIM}
    assert scene.services[0].deadline() is None, "nothing is due any more"


def test_a_thousand_durations_end_with_a_bounded_number_of_offers_on_their_way() -> None:
    requests = [placed(a_request(f"r{number}", cpu=10, duration_seconds=60), "n1") for number in range(1_000)]
    scene = Scene(a_node(cpu=64_000, instances=2_000), *requests)
    scene.nobody_leads = True
    scene.advance(T0 + MINUTE)
    scene.nobody_leads = False

    scene.advance(T0 + 2 * MINUTE)

    assert len(scene.data(RequestEnded)) == 1_000
    assert max(len(offer.transactions) for offer in scene.offers) <= 128
