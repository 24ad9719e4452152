"""A namespace that is held places nothing new; one that is drained loses what runs, too (R75)."""

from berth import subjects
from berth.messages.commands import ADMIN_QUOTA, AdminAnswer
from berth.messages.documents import StopPolicy
from berth.messages.reasons import ReasonCode
from tests.builders import TEAM_A, TEAM_B, a_quota
from tests.unit.berth_quota.settings_of_walks import a_walk, cores, wants
from tests.unit.berth_quota.walk import Walk


def stop(walk: Walk, policy: str) -> AdminAnswer:
    command = {"command": "stop", "namespace": TEAM_A, "policy": policy}
    walk.ask(subjects.ADMIN_QUOTA, ADMIN_QUOTA.validate_python(command, strict=False))
    answer = walk.replies[-1]
    assert isinstance(answer, AdminAnswer)
    return answer


def apply(walk: Walk, **document: object) -> None:
    command = {"command": "apply", "quotas": [{"namespace": TEAM_A, **document}]}
    walk.ask(subjects.ADMIN_QUOTA, ADMIN_QUOTA.validate_python(command, strict=False))


def why(walk: Walk, request: str) -> list[ReasonCode]:
    return [reason.code for reason in walk.decision(request).reasons]


def test_r75_held_it_places_nothing_new_and_what_runs_goes_on() -> None:
    walk = a_walk()
    walk.submit(wants("runs"))

    answer = stop(walk, "hold")
    walk.submit(wants("later"), wants("later-2"))

    assert answer.detail == "team-a places nothing new until it is resumed; what runs goes on"
    assert walk.said("runs") == [("placed", 1)]
    assert why(walk, "later") == why(walk, "later-2") == [ReasonCode.NAMESPACE_STOPPED]
    assert walk.evaluated() == ["runs"]


def test_others_do_not_notice() -> None:
    walk = a_walk()
    stop(walk, "hold")

    walk.submit(wants("theirs", namespace=TEAM_B))

    assert walk.said("theirs") == [("placed", 1)]


def test_resumed_what_is_queued_is_driven_in_its_order() -> None:
    walk = a_walk(room=1)
    stop(walk, "hold")
    walk.submit(wants("low", priority=10), wants("high", priority=90))

    stop(walk, "none")

    assert walk.evaluated()[0] == "high"
    assert walk.said("high")[-1] == ("placed", 2)
    assert why(walk, "low") == [ReasonCode.INSUFFICIENT_CPU]


def test_what_waits_for_something_else_says_at_once_that_it_is_held() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"))
    walk.submit(wants("waits"))
    assert why(walk, "waits") == [ReasonCode.INSUFFICIENT_CPU]

    stop(walk, "hold")

    assert why(walk, "waits") == [ReasonCode.NAMESPACE_STOPPED]


def test_what_is_under_way_when_it_is_held_is_refused_by_the_leader_and_waits() -> None:
    walk = a_walk()
    walk.hold_scheduler = True
    walk.submit(wants("late"))
    walk.happened(a_quota(TEAM_A, stop_policy="hold"))

    walk.hold_scheduler = False
    walk.run()

    assert why(walk, "late") == [ReasonCode.NAMESPACE_STOPPED]
    assert not walk.leader.cluster.allocations


def test_r75_drained_what_runs_leaves_with_its_grace_and_waits() -> None:
    walk = a_walk()
    walk.submit(wants("web"), wants("slow", grace_seconds=30), wants("once", reschedule="never"))

    stop(walk, "hold_and_drain")

    assert why(walk, "web") == [ReasonCode.NAMESPACE_STOPPED]
    assert walk.said("once")[-1] == ("evicted", 2)
    assert walk.leader.quotas.used_by(TEAM_A).amount("cpu_millicores") == 1_000

    walk.wait(30_000)

    assert why(walk, "slow") == [ReasonCode.NAMESPACE_STOPPED]
    assert walk.leader.quotas.used_by(TEAM_A).amount("cpu_millicores") == 0

    stop(walk, "none")

    assert [walk.said(name)[-1][0] for name in ("web", "slow")] == ["placed", "placed"]


def test_a_standby_that_hears_of_a_drain_finds_somebody_who_does_it() -> None:
    walk = a_walk()
    walk.submit(wants("web"))
    walk.kill()
    standby = walk.start()

    stop(walk, "hold_and_drain")
    walk.wait(walk.bounds.nudge_ms)
    assert walk.nudges
    assert walk.leader.cluster.allocations[TEAM_A, "web.0"].is_live  # pyright: ignore[reportArgumentType]

    walk.nudged()

    assert standby.is_active
    assert why(walk, "web") == [ReasonCode.NAMESPACE_STOPPED]


def test_a_document_that_is_applied_again_does_not_resume_a_namespace() -> None:
    walk = a_walk()
    apply(walk, hard={"cpu_cores": 4})
    stop(walk, "hold")

    apply(walk, hard={"cpu_cores": 5})
    walk.submit(wants("web"))

    assert walk.leader.quotas.quotas[TEAM_A].hard == cores(5)
    assert why(walk, "web") == [ReasonCode.NAMESPACE_STOPPED]

    apply(walk, hard={"cpu_cores": 5}, stop_policy="none")

    assert walk.said("web")[-1] == ("placed", 2)


def test_a_namespace_without_a_quota_is_without_one_again_when_it_is_resumed() -> None:
    walk = a_walk()

    stop(walk, "hold")
    assert walk.leader.quotas.quotas[TEAM_A].stop_policy is StopPolicy.HOLD

    stop(walk, "none")

    assert TEAM_A not in walk.leader.quotas.quotas


def test_who_is_held_already_is_told_so() -> None:
    walk = a_walk()
    stop(walk, "hold")

    assert stop(walk, "hold").detail == "nothing to change: it is so already"
