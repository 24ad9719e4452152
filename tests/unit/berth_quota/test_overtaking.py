"""What comes twice, late, or before what it follows: a release before its request, an answer after a new drive."""

from berth import subjects
from berth.effects import Delivery
from berth.ids import RequestId
from berth.messages.commands import ReleaseBatch, RequestBatch, Verdict
from berth.messages.events import Wake, WakeOn
from berth.messages.reasons import Reason, ReasonCode
from berth_quota.admission import ON_QUEUE
from tests.builders import SECOND, TEAM_A, a_node, ended
from tests.unit.berth_quota.settings_of_walks import a_walk, wants
from tests.unit.berth_quota.walk import CAPACITY, NO_ROOM, Walk, verdict


def a_delivery(place: int) -> Delivery:
    return Delivery(stream="REQUESTS", stream_sequence=place, count=0, handle=f"d{place}")


def deliver_release(walk: Walk, request: str, place: int) -> None:
    body = ReleaseBatch(namespace=TEAM_A, requests=(RequestId(request),))
    walk.redeliver(subjects.RELEASE, body, TEAM_A, a_delivery(place))


def deliver_request(walk: Walk, request: str, place: int) -> None:
    body = RequestBatch(namespace=TEAM_A, requests=(wants(request),))
    walk.redeliver(subjects.REQUEST, body, TEAM_A, a_delivery(place))


def test_what_this_view_does_not_know_yet_is_released_when_the_leader_knows_it() -> None:
    walk = a_walk()
    behind = walk.start()
    walk.services.remove(behind)
    walk.submit(wants("web"))
    asleep, walk.services = walk.services, [behind]

    deliver_release(walk, "web", 2)
    assert walk.acknowledged == [1], "refused as superseded: it may not be taken for unknown"
    for sequence in range(behind.sequence + 1, walk.leader.sequence + 1):
        behind.fold(walk.record(sequence), walk.now)
    walk.run()

    assert walk.said("web")[-1] == ("released", 2)
    assert walk.acknowledged == [1, 2]
    assert asleep[0].sequence < walk.leader.sequence


def test_a_request_that_comes_again_after_its_release_is_released() -> None:
    walk = a_walk()
    deliver_release(walk, "web", 7)
    assert walk.acknowledged == [], "what was stored before it may still come: the place before it is missing"

    walk.wait(24 * SECOND)
    deliver_request(walk, "web", 6)

    assert walk.said("web") == [("placed", 1), ("released", 2)]
    assert walk.acknowledged == [6, 7]


def test_what_nobody_knows_waits_only_as_long_as_something_may_come_again() -> None:
    walk = a_walk()
    deliver_release(walk, "nobody", 7)

    walk.wait(25 * SECOND)
    assert walk.acknowledged == [7]
    proposed = len(walk.proposals)

    deliver_release(walk, "nobody", 8)
    assert walk.acknowledged == [7, 8]
    assert proposed == 2, "asked once, and once more when everything has come"


def test_who_is_driven_again_while_its_new_reasons_are_proposed_is_in_flight_once() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"), wants("web"))
    reasons = (Reason(code=ReasonCode.NODE_CORDONED, nodes=1),)
    newer = walk.leader.sequence + 1
    other = verdict("web", Verdict.UNPLACEABLE, reasons=reasons, wake=CAPACITY, evaluated_at=newer)
    walk.scheduler.verdicts["web"] = other
    walk.hold_leader = True
    walk.happened(a_node("small", cpu=1))
    walk.hold_scheduler = True
    walk.happened(a_node("smaller", cpu=1))
    assert walk.evaluated() == ["full", "web", "web", "web"]

    walk.wait(3 * SECOND)
    walk.hold_leader = walk.hold_scheduler = False
    walk.happened(ended(walk.leader, (TEAM_A, RequestId("full"))))

    assert walk.said("web")[-1] == ("placed", walk.leader.queue.requests[TEAM_A, RequestId("web")].attempt - 1)


def test_the_same_reasons_are_written_again_when_more_would_wake_it() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"), wants("web"))
    more = (*CAPACITY, Wake(on=WakeOn.NODES))

    for number, wake in enumerate((more, CAPACITY, more)):
        newer = walk.leader.sequence + 1
        said = verdict("web", Verdict.UNPLACEABLE, reasons=NO_ROOM, wake=wake, evaluated_at=newer)
        walk.scheduler.verdicts["web"] = said
        walk.happened(a_node(f"small-{number}", cpu=1))

    assert walk.evaluated() == ["full", "web", "web", "web", "web"]
    assert walk.types_of("web") == ["RequestSubmitted", "RequestQueued", "RequestQueued"]
    assert walk.leader.queue.requests[TEAM_A, RequestId("web")].wake == (*more, *ON_QUEUE)
