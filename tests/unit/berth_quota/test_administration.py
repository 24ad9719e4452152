"""Quotas as operators set them: one transaction, answered after the commit, refused with its path."""

from typing import Any

import pytest

from berth import subjects
from berth.messages.commands import ADMIN_QUOTA, AdminAnswer, RefusalCode
from berth.model.read_models import quota_explanation
from tests.builders import TEAM_A, TEAM_B, a_cohort, a_quota
from tests.unit.berth_quota.settings_of_walks import a_walk, cores, wants
from tests.unit.berth_quota.walk import Walk


def tell(walk: Walk, **command: Any) -> AdminAnswer | None:
    """What an operator says, and what is answered at once."""
    before = len(walk.replies)
    walk.ask(subjects.ADMIN_QUOTA, ADMIN_QUOTA.validate_python(command, strict=False))
    return last(walk) if len(walk.replies) > before else None


def last(walk: Walk) -> AdminAnswer:
    answer = walk.replies[-1]
    assert isinstance(answer, AdminAnswer)
    return answer


def apply(walk: Walk, *quotas: dict[str, Any], cohorts: tuple[dict[str, Any], ...] = ()) -> AdminAnswer | None:
    return tell(walk, command="apply", quotas=list(quotas), cohorts=list(cohorts))


def a_document(namespace: str = TEAM_A, **more: Any) -> dict[str, Any]:
    return {"namespace": namespace, **more}


def test_a_document_is_one_transaction_answered_after_the_commit() -> None:
    walk = a_walk()

    answer = apply(
        walk,
        a_document(hard={"cpu_cores": 4}, soft={"cpu_cores": 2.5}, cohort="research"),
        a_document(TEAM_B, hard={"ram_mb": 0}),
        cohorts=({"name": "research", "weight": 0.5},),
    )

    assert answer is not None
    assert (answer.refusal, answer.sequence) == (None, walk.leader.sequence)
    assert len(walk.record(walk.leader.sequence).transactions) == 1
    assert walk.leader.quotas.quotas[TEAM_A].soft == {"cpu_millicores": 2_500}
    assert walk.leader.quotas.quotas[TEAM_B].hard == {"ram_mb": 0}


def test_a_standby_carries_it_out_as_well() -> None:
    walk = a_walk()
    assert not walk.quota.is_active

    answer = apply(walk, a_document(hard={"cpu_cores": 4}))

    assert answer is not None
    assert answer.refusal is None


def test_a_new_limit_drives_who_waits_for_it() -> None:
    walk = a_walk(a_quota(hard=cores(1)))
    walk.submit(wants("a"), wants("b"))

    apply(walk, a_document(hard={"cpu_cores": 2}))

    assert walk.said("b") == [("queued", 1), ("placed", 2)]


def test_a_dry_run_says_what_would_change_and_changes_nothing() -> None:
    walk = a_walk(a_quota(hard=cores(4), soft=cores(2)))
    before = walk.leader.sequence

    answer = tell(
        walk,
        command="apply",
        dry_run=True,
        quotas=[a_document(hard={"cpu_cores": 8}, soft={"cpu_cores": 2}, reclaim="never"), a_document(TEAM_B)],
        cohorts=[{"name": "research", "parent": "company"}],
    )

    assert answer is not None
    assert answer.sequence is None
    assert [(one.path, one.before, one.after) for one in answer.changes] == [
        ("cohorts.research", None, "new"),
        ("cohorts.research.parent", None, "company"),
        ("quotas.team-a.hard.cpu_millicores", 4_000, 8_000),
        ("quotas.team-a.reclaim", "any", "never"),
        ("quotas.team-b", None, "new"),
    ]
    assert walk.leader.sequence == before
    refused = tell(walk, command="apply", dry_run=True, cohorts=[{"name": "a", "parent": "a"}])
    assert refused is not None
    assert refused.refusal is not None
    assert "circle" in refused.refusal.detail


def test_what_is_so_already_is_not_written_again() -> None:
    walk = a_walk(a_quota(hard=cores(4)), a_cohort("research"))
    before = walk.leader.sequence

    answer = apply(walk, a_document(hard={"cpu_cores": 4}), cohorts=({"name": "research"},))

    assert answer is not None
    assert (answer.sequence, answer.refusal) == (None, None)
    assert walk.leader.sequence == before


@pytest.mark.parametrize(
    ("quotas", "cohorts", "path"),
    [
        ([a_document(soft={"cpu_cores": 2}, lending_limit={"cpu_cores": 3})], [], "quotas[0].lending_limit.cpu_cores"),
        ([a_document(), a_document()], [], "quotas[1]"),
        ([], [{"name": "a", "parent": "b"}, {"name": "b", "parent": "a"}], "cohorts[0].parent"),
        ([], [{"name": "a"}, {"name": "a"}], "cohorts[1]"),
        ([], [{"name": "top", "parent": "below"}], "cohorts[0].parent"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_with_their_path(
    quotas: list[dict[str, Any]], cohorts: list[dict[str, Any]], path: str
) -> None:
    walk = a_walk(a_cohort("below", parent="top"))
    before = walk.leader.sequence

    answer = tell(walk, command="apply", quotas=quotas, cohorts=cohorts)

    assert answer is not None
    assert answer.refusal is not None
    assert answer.refusal.code is RefusalCode.INVALID
    assert answer.refusal.detail.startswith(path + ": ")
    assert walk.leader.sequence == before


def test_removing_a_quota_with_running_work_keeps_counting_what_it_uses() -> None:
    walk = a_walk(a_quota(hard=cores(2)))
    walk.submit(wants("a", 2), wants("b"))

    answer = tell(walk, command="remove", namespace=TEAM_A)

    assert answer is not None
    assert "unlimited" in answer.detail
    assert "2000 cpu_millicores" in answer.detail
    assert walk.said("b")[-1] == ("placed", 2)
    walk.release("a")
    walk.release("b")
    assert walk.leader.quotas.used == {}


def test_removing_a_cohort_leaves_its_members_to_themselves() -> None:
    walk = a_walk(a_cohort("research", soft=cores(4)), a_quota(soft=cores(1), cohort="research"))
    walk.submit(wants("a", 4))

    answer = tell(walk, command="remove", cohort="research")

    assert answer is not None
    assert answer.refusal is None
    walk.submit(wants("b"))
    assert walk.decision("b").status == "queued"
    assert walk.leader.quotas.used_by(TEAM_A).cpu_millicores == 4_000


def test_what_is_not_there_cannot_be_removed() -> None:
    walk = a_walk()

    for command in ({"namespace": TEAM_A}, {"cohort": "research"}):
        answer = tell(walk, command="remove", **command)
        assert answer is not None
        assert answer.refusal is not None
        assert answer.refusal.code is RefusalCode.NOT_FOUND
    answer = tell(walk, command="remove")
    assert answer is not None
    assert answer.refusal is not None
    assert answer.refusal.code is RefusalCode.INVALID


def test_without_a_leader_it_is_proposed_again_until_there_is_one() -> None:
    walk = a_walk(nobody_leads=True)
    assert apply(walk, a_document(hard={"cpu_cores": 4})) is None
    walk.wait(1_000)
    assert walk.replies == []

    walk.nobody_leads = False
    walk.wait(1_000)

    assert last(walk).sequence == walk.leader.sequence


def test_without_a_leader_for_long_it_says_that_nobody_knows() -> None:
    walk = a_walk(nobody_leads=True)
    apply(walk, a_document(hard={"cpu_cores": 4}))

    walk.wait(walk.bounds.administration_ms + 1_000)

    refusal = last(walk).refusal
    assert refusal is not None
    assert refusal.code in (RefusalCode.UNKNOWN, RefusalCode.NOT_LEADER)
    assert len(walk.replies) == 1


def test_an_answer_that_was_lost_is_found_in_the_state() -> None:
    walk = a_walk()
    walk.hold_leader = True
    apply(walk, a_document(hard={"cpu_cores": 4}))
    walk.happened(a_quota(hard=cores(4)))

    walk.wait(walk.bounds.proposal_ms + 1_000)

    assert last(walk).refusal is None
    assert last(walk).sequence == walk.leader.sequence


def test_the_explanation_shows_the_numbers_up_to_the_root() -> None:
    walk = a_walk(
        a_cohort("research", parent="company", borrowing_limit=cores(3)),
        a_quota(soft=cores(2), hard=cores(9), burst_percent=50, cohort="research"),
        a_quota(TEAM_B, soft=cores(6), cohort="company"),
    )
    walk.submit(wants("web", 3))

    row = quota_explanation(walk.leader, TEAM_A)

    assert row["formula"] == {
        "cpu_millicores": "ceiling 6000 = min(9000, 2000 + 3000 + 1000) (hard, soft + borrowable + burst)"
    }
    assert (row["guaranteed"]["cpu_millicores"], row["borrowed"]["cpu_millicores"]) == (2_000, 1_000)
    assert row["available"]["cpu_millicores"] == 3_000
    assert row["share"] == {"permille": 200, "dimension": "cpu_millicores"}, "1 of the 5 that research could have"
    assert [(level["cohort"], level["used"], level["available"]) for level in row["levels"]] == [
        ("research", cores(3), cores(2)),
        ("company", cores(3), cores(5)),
    ]
    assert (row["borrowed_from"], row["lent_to"]) == ({TEAM_B: cores(1)}, {})
    assert quota_explanation(walk.leader, TEAM_B)["lent_to"] == {TEAM_A: cores(1)}
    assert row["levels"][1]["share"] == {"permille": 0, "dimension": None}


def test_a_namespace_without_a_quota_is_explained_as_unlimited() -> None:
    walk = a_walk()
    walk.submit(wants("web"))

    row = quota_explanation(walk.leader, TEAM_A)

    assert row["available"]["cpu_millicores"] is None
    assert (row["formula"], row["levels"], row["share"]) == ({}, [], {"permille": 0, "dimension": None})
