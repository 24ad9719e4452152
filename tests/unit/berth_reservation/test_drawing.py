"""Who may draw on a reservation, what of it, and who pays (R88, R93–R95)."""

from typing import Any

import pytest

from berth.errors import InvalidCommand
from berth.ids import Namespace, NodeId, RequestKey
from berth.messages.commands import Refusal, RefusalCode
from berth.messages.documents import RESERVATION
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Request
from berth.messages.validation import parse
from berth.model.answers import reservation_row
from berth.model.check import check
from berth.model.feasibility import reservation_reason, why_not
from berth.model.windows import free_now
from tests.builders import HOUR, T0, TEAM_A, TEAM_B, a_node, a_quota, a_request, ended, placed
from tests.unit.berth_reservation.scene import Scene


def active(*, hard: int = 8_000, **document: Any) -> Scene:
    scene = Scene(a_node("n1", cpu=8_000), a_node("n2", cpu=8_000), a_quota(hard={"cpu_millicores": hard}))
    scene.create(nodes=["n1"], duration_seconds=3_600, **document)
    scene.run()
    return scene


def drawing(name: str = "drawer", *, cpu: int, **document: Any) -> Request:
    return a_request(name, cpu=cpu, reservation="res1", **document)


def refusal(scene: Scene, request: Request, node: str = "n1") -> Refusal | None:
    return check(scene.leader, placed(request, node), scene.now)


def used(scene: Scene, namespace: str = TEAM_A) -> int:
    return scene.leader.quotas.used_by(Namespace(namespace)).cpu_millicores


def row(scene: Scene) -> dict[str, Any]:
    return reservation_row(scene.leader, scene.reservation())


def test_r93_unused_time_is_charged_to_the_owner_and_drawing_charges_nothing_more() -> None:
    scene = active()
    assert (used(scene), row(scene)["charged"]["cpu_millicores"]) == (4_000, 4_000)

    request = drawing(cpu=3_000)
    scene.commit(placed(request, "n1"))
    assert used(scene) == 4_000
    assert (row(scene)["used"]["cpu_millicores"], row(scene)["free"]["cpu_millicores"]) == (3_000, 1_000)

    scene.commit(ended(scene.leader, request.key))
    assert (used(scene), row(scene)["free"]["cpu_millicores"]) == (4_000, 4_000), "what is released comes back"
    scene.advance(T0 + HOUR)
    assert used(scene) == 0


def test_r94_owners_are_ored_and_the_fields_of_one_are_anded() -> None:
    scene = active(owners=[{"namespace": "team-b"}, {"labels": {"tier": "gold"}}])

    def may_draw(**document: Any) -> bool:
        return reservation_reason(scene.leader, drawing(cpu=1_000, **document)) is None

    assert may_draw(namespace="team-b")
    assert may_draw(namespace="team-c", labels={"tier": "gold", "app": "web"})
    assert not may_draw(namespace="team-a"), "owners are named, so the namespace itself is none"
    assert not may_draw(namespace="team-c", labels={"tier": "silver"})


def test_an_owner_names_a_namespace_or_labels() -> None:
    document = '{"id": "r", "namespace": "team-a", "resources": {}, "duration_seconds": 60, "owners": [{}]}'

    with pytest.raises(InvalidCommand, match=r"reservation.owners\[0\]: expected a namespace, labels or both"):
        parse(RESERVATION, document, root="reservation")


def test_r95_restricted_use_takes_what_is_reserved_from_the_reservation_only() -> None:
    scene = active(use="restricted")

    refused = refusal(scene, drawing(cpu=6_000))

    assert refused is not None
    assert refused.code is RefusalCode.CAPACITY
    node = scene.leader.cluster.nodes[NodeId("n1")]
    reasons = why_not(scene.leader, node, drawing(cpu=6_000), scene.now)
    assert reasons[0].code is ReasonCode.RESERVATION_FULL


def test_r95_aligned_use_takes_the_rest_from_the_node_and_charges_it() -> None:
    scene = active(use="aligned")
    node = scene.leader.cluster.nodes[NodeId("n1")]
    assert free_now(scene.leader, node, scene.reservation().id).cpu_millicores == 8_000
    assert why_not(scene.leader, node, drawing(cpu=6_000), scene.now) == []

    scene.commit(placed(drawing(cpu=6_000), "n1"))

    assert used(scene) == 6_000, "4000 were charged already"
    assert row(scene)["free"]["cpu_millicores"] == 0
    assert refusal(scene, drawing("more", cpu=3_000)) is not None, "the node has 2000 left"


def test_aligned_use_beyond_the_hold_stays_within_the_owner_s_limit() -> None:
    scene = active(use="aligned", hard=5_000)

    refused = refusal(scene, drawing(cpu=6_000))

    assert refused is not None
    assert refused.code is RefusalCode.QUOTA
    assert refusal(scene, drawing(cpu=5_000)) is None


def test_aligned_use_takes_nothing_that_is_held_for_others() -> None:
    scene = active(use="aligned", count=1)
    half_past: dict[str, Any] = {"start": "2026-01-01T00:30:00Z", "duration_seconds": 60}
    scene.create(id="other", nodes=["n1"], namespace=Namespace(TEAM_B), **half_past)
    scene.run()

    refused = refusal(scene, drawing(cpu=6_000))

    assert refused is not None
    assert refused.code is RefusalCode.WINDOW
    assert refusal(scene, drawing(cpu=6_000, duration_seconds=1_800)) is None, "that ends in time"


def test_r88_who_draws_stays_on_the_held_nodes_and_with_evict_in_the_window() -> None:
    scene = active(on_expiry="evict")
    outside = refusal(scene, drawing(cpu=1_000), "n2")
    assert outside is not None
    assert outside.code is RefusalCode.RULE

    scene.commit(placed(drawing(cpu=1_000), "n1"))
    scene.advance(T0 + HOUR)

    key: RequestKey = drawing(cpu=1_000).key
    assert not scene.leader.queue.requests[key].live


def test_a_second_namespace_draws_at_the_cost_of_the_first() -> None:
    scene = active(owners=[{"namespace": "team-b"}])

    scene.commit(placed(drawing(cpu=4_000, namespace="team-b"), "n1"))

    assert (used(scene, TEAM_A), used(scene, TEAM_B)) == (4_000, 0)
