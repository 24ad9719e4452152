"""A release is a message of the same stream, proposed until it is done (DESIGN section 2, "Releases", "Attempts")."""

from berth import subjects
from berth.ids import NodeId, RequestId
from berth.messages.commands import ReleaseBatch
from berth.messages.events import (
    AllocationsEnded,
    AllocationsReleasing,
    Event,
    How,
    NodeChanged,
    RequestQueued,
    Wake,
    WakeOn,
    about,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.model.ledger import State
from tests.builders import SECOND, TEAM_A, TEAM_B, ended
from tests.unit.berth_quota.settings_of_walks import a_walk, wants

WEB = (TEAM_A, RequestId("web"))


def _drains(node: str) -> Event:
    return Event(NodeChanged(node=NodeId(node), draining=True))


def uses(state: State) -> int:
    return state.quotas.used_by(TEAM_A).cpu_millicores


def test_what_runs_ends_with_its_request_in_one_transaction() -> None:
    walk = a_walk()
    walk.submit(wants("web", count=2))

    walk.release("web")

    assert walk.types_of("web") == ["RequestSubmitted", "RequestPlaced", "AllocationsEnded", "RequestEnded"]
    assert walk.said("web")[-1] == ("released", 2)
    assert uses(walk.leader) == 0
    assert walk.log[-2:] == ["decision web", "acknowledge 2"]


def test_what_waits_leaves_the_queue() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"), wants("web"))

    walk.release("web")
    walk.release("full")

    assert walk.said("web") == [("queued", 1), ("released", 2)]
    assert walk.evaluated() == ["full", "web"]


def test_what_is_unknown_or_settled_or_another_namespaces_is_acknowledged_and_nothing_happens() -> None:
    walk = a_walk()
    walk.submit(wants("web"))
    walk.release("web")
    before = walk.leader.sequence

    walk.release("web", "nobody")
    walk.release("web", namespace=TEAM_B)

    assert walk.leader.sequence == before
    assert walk.acknowledged == [1, 2, 3, 4]


def test_what_is_in_flight_is_released_after_it_settled() -> None:
    walk = a_walk()
    walk.hold_scheduler = True
    walk.submit(wants("web"))
    walk.release("web")
    assert walk.acknowledged == []

    walk.hold_scheduler = False
    walk.run()

    assert walk.said("web") == [("placed", 1), ("released", 2)]
    assert walk.acknowledged == [1, 2]


def test_what_is_driven_meanwhile_is_released_whichever_comes_first() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"), wants("web"))
    walk.hold_scheduler = True
    walk.happened(ended(walk.leader, (TEAM_A, RequestId("full"))))
    assert walk.evaluated() == ["full", "web", "web"]

    walk.release("web")
    walk.hold_scheduler = False
    walk.run()

    assert walk.said("web") == [("queued", 1), ("released", 2)]
    assert uses(walk.leader) == 0


def test_a_release_that_was_overtaken_is_proposed_again_on_the_newer_state_until_done() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"), wants("web"))
    walk.hold_scheduler = walk.hold_leader = True
    walk.happened(ended(walk.leader, (TEAM_A, RequestId("full"))))
    walk.release("web")
    walk.hold_scheduler = False
    walk.run()
    assert walk.said("web")[-1] == ("placed", 2), "the placement was first"

    walk.hold_leader = False
    walk.run()

    assert walk.said("web")[-1] == ("released", 3)
    assert uses(walk.leader) == 0
    assert walk.acknowledged == [1, 2]


def test_a_release_whose_answer_was_lost_is_harmless() -> None:
    walk = a_walk()
    walk.submit(wants("web"))
    walk.hold_leader = True
    walk.release("web")
    walk.wait(walk.bounds.proposal_ms)
    walk.wait(walk.bounds.proposal_ms)

    walk.hold_leader = False
    walk.run()
    walk.wait(10 * SECOND)

    assert walk.types_of("web").count("AllocationsEnded") == 1
    assert walk.acknowledged == [1, 2]


def test_with_grace_it_is_releasing_first_and_still_consumes() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("web", grace_seconds=30))
    walk.submit(wants("next"))

    walk.release("web")
    assert walk.acknowledged == [1, 2, 3]
    assert uses(walk.leader) == 1_000
    walk.wait(29 * SECOND)
    assert walk.types_of("web")[-1] == "AllocationsReleasing"
    walk.wait(2 * SECOND)

    assert walk.types_of("web")[-2:] == ["AllocationsEnded", "RequestEnded"]
    assert walk.said("web")[-1] == ("released", 3)
    assert walk.said("next")[-1] == ("placed", 2)


def test_released_a_second_time_during_its_grace_it_is_on_its_way_already() -> None:
    walk = a_walk()
    walk.submit(wants("web", grace_seconds=30))
    walk.release("web")
    before = walk.leader.sequence

    walk.release("web")

    assert walk.leader.sequence == before
    assert walk.acknowledged == [1, 2, 3]


def test_what_others_take_from_it_leaves_first_and_then_the_request_ends() -> None:
    walk = a_walk()
    walk.submit(wants("web", grace_seconds=30, reschedule="never"))
    known = walk.leader.queue.requests[WEB]
    node = walk.leader.cluster.nodes[next(iter(walk.leader.cluster.nodes))]
    walk.happened((_drains(node.id),))
    until = walk.now + 30 * SECOND
    releasing = AllocationsReleasing(ids=known.live, how=How.EVICTED, reason=ReasonCode.DRAINED, until=until)
    walk.happened((about(WEB, releasing),))

    walk.release("web")
    assert walk.acknowledged == [1], "it is still leaving"
    walk.wait(31 * SECOND)

    assert walk.decision("web").status == "evicted"
    assert walk.acknowledged == [1, 2]


def test_what_was_taken_with_grace_is_queued_again_when_its_grace_is_over() -> None:
    walk = a_walk()
    walk.submit(wants("web", grace_seconds=30))
    known = walk.leader.queue.requests[WEB]
    walk.happened((_drains("n1"),))
    until = walk.now + 30 * SECOND
    releasing = AllocationsReleasing(ids=known.live, how=How.EVICTED, reason=ReasonCode.DRAINED, until=until)
    walk.happened((about(WEB, releasing),))

    walk.wait(31 * SECOND)

    assert ("queued", 3) in walk.said("web")


def test_what_is_queued_again_already_only_loses_what_was_leaving() -> None:
    walk = a_walk()
    walk.submit(wants("web", grace_seconds=30))
    known = walk.leader.queue.requests[WEB]
    walk.happened((_drains("n1"),))
    until = walk.now + 30 * SECOND
    releasing = AllocationsReleasing(ids=known.live, how=How.EVICTED, reason=ReasonCode.DRAINED, until=until)
    queued = RequestQueued(
        reasons=(Reason(code=ReasonCode.DRAINED),), wake=(Wake(on=WakeOn.NODES),), evaluated_at=walk.leader.sequence
    )
    walk.happened((about(WEB, releasing), about(WEB, queued)))
    before = walk.types_of("web")

    walk.wait(31 * SECOND)

    assert walk.types_of("web")[len(before) :] == ["AllocationsEnded"]
    assert walk.decision("web").status == "queued"


def test_an_agent_that_stopped_it_sooner_leaves_nothing_to_do_for_the_timer() -> None:
    walk = a_walk()
    walk.submit(wants("web", grace_seconds=30))
    walk.release("web")
    known = walk.leader.queue.requests[WEB]
    stopped = AllocationsEnded(ids=known.live, how=How.RELEASED, reason=ReasonCode.RELEASED)
    (_, over) = ended(walk.leader, WEB)
    walk.happened((about(WEB, stopped), about(WEB, over.data)))
    before = walk.leader.sequence

    walk.wait(60 * SECOND)

    assert walk.leader.sequence == before


def test_a_release_that_is_delivered_again_is_the_same_one() -> None:
    walk = a_walk()
    walk.submit(wants("web"))
    walk.hold_leader = True
    delivery = walk.release("web")
    body = ReleaseBatch(namespace=TEAM_A, requests=(RequestId("web"),))
    walk.redeliver(subjects.RELEASE, body, TEAM_A, delivery)

    walk.hold_leader = False
    walk.run()

    assert walk.types_of("web").count("RequestEnded") == 1
    assert walk.acknowledged == [1, 2]
