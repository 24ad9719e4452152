"""The way of requests through the quota service, sentence by sentence of DESIGN section 2."""

from typing import Any

from tests.builders import TEAM_A, a_node, a_quota, a_request, ended
from tests.unit.berth_quota.walk import Walk


def cores(count: int) -> dict[str, int]:
    return {"cpu_millicores": count * 1_000}


def a_walk(*setting: Any, **more: Any) -> Walk:
    return Walk((a_node(cpu=8_000), *setting), **more)


def test_a_request_within_quota_is_evaluated_placed_decided_and_acknowledged() -> None:
    walk = a_walk()

    walk.submit(a_request("web-1"))

    assert walk.said("web-1") == [("placed", 1)]
    assert walk.log[-2:] == ["decision web-1", "acknowledge 1"]


def test_a_request_over_quota_is_queued_with_reasons_and_placed_after_a_release() -> None:
    walk = a_walk(a_quota(hard=cores(2)))
    walk.submit(a_request("web-1", cpu=2_000))
    walk.submit(a_request("web-2", cpu=2_000))
    assert walk.said("web-2") == [("queued", 1)]
    assert walk.evaluated() == ["web-1"]

    walk.release("web-1")

    assert walk.said("web-1") == [("placed", 1), ("released", 2)]
    assert walk.said("web-2") == [("queued", 1), ("placed", 2)]
    assert walk.acknowledged == [1, 2, 3]


def test_what_has_no_place_is_queued_and_driven_when_room_is_there() -> None:
    walk = a_walk()
    walk.submit(a_request("web-1", cpu=8_000))
    walk.submit(a_request("web-2", cpu=8_000))
    assert walk.said("web-2") == [("queued", 1)]

    walk.happened(ended(walk.leader, (TEAM_A, a_request("web-1").id)))

    assert walk.said("web-2") == [("queued", 1), ("placed", 2)]
