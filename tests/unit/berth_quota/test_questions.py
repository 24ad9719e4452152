"""What clients ask while they wait: `requests` (DESIGN sections 2 and 5)."""

from berth.ids import Sequence
from berth.messages.commands import QueryAnswer, RefusalCode
from berth_quota.bounds import Bounds
from tests.builders import TEAM_A, TEAM_B
from tests.unit.berth_quota.settings_of_walks import a_walk, wants
from tests.unit.berth_quota.walk import Walk


def a_busy_walk() -> Walk:
    walk = a_walk(room=1)
    walk.submit(wants("full"))
    walk.submit(wants("b"), wants("a"), wants("urgent", priority=90))
    walk.submit(wants("other", namespace=TEAM_B))
    return walk


def ids(answer: QueryAnswer) -> list[str]:
    return [str(row["id"]) for row in answer.items]


def test_a_row_says_where_a_request_stands() -> None:
    walk = a_busy_walk()

    (row,) = walk.requests(TEAM_A, ids=["a"]).items

    assert row == {
        "id": "a",
        "namespace": TEAM_A,
        "status": "queued",
        "attempt": 1,
        "sequence": walk.leader.queue.requests[wants("a").key].decided,
        "trace_id": None,
        "reasons": [{"code": "insufficient_cpu", "nodes": 1}],
        "queue_position": 3,
        "ahead": [
            {"namespace": TEAM_A, "id": "urgent", "because": "priority"},
            {"namespace": TEAM_A, "id": "b", "because": "age"},
        ],
        "ahead_because": {"priority": 1, "age": 1},
        "earliest_start": None,
    }


def test_positions_follow_priority_and_then_age() -> None:
    walk = a_busy_walk()

    rows = {row["id"]: row["queue_position"] for row in walk.requests().items}

    assert rows == {"full": None, "urgent": 1, "b": 2, "a": 3, "other": 4}


def test_a_namespace_sees_its_own_and_the_cluster_all() -> None:
    walk = a_busy_walk()

    assert ids(walk.requests(TEAM_B)) == ["other"]
    assert ids(walk.requests(TEAM_B, ids=["a", f"{TEAM_A}/b"])) == []
    assert ids(walk.requests(ids=["a", f"{TEAM_B}/other", "nobody"])) == ["a", "other"]


def test_pages_come_to_an_end() -> None:
    walk = a_busy_walk()

    first = walk.requests(limit=2)
    second = walk.requests(limit=2, after=first.next)
    third = walk.requests(limit=2, after=second.next)

    assert [ids(page) for page in (first, second, third)] == [["a", "b"], ["full", "urgent"], ["other"]]
    assert third.next is None
    assert first.sequence == walk.leader.sequence


def test_a_settled_request_is_known_until_it_is_forgotten() -> None:
    walk = a_walk()
    walk.submit(wants("web"))
    walk.release("web")

    (row,) = walk.requests(TEAM_A).items

    assert (row["status"], row["attempt"], row["queue_position"]) == ("released", 2, None)


def test_a_standby_answers_too() -> None:
    walk = a_walk()
    walk.submit(wants("web"))
    walk.lose_pin()

    assert ids(walk.requests()) == ["web"]


def test_an_answer_waits_for_the_state_that_it_was_asked_of() -> None:
    walk = a_walk()
    walk.submit(wants("web"))
    asked = Sequence(walk.leader.sequence + 1)
    before = len(walk.replies)
    walk.question(min_sequence=asked)
    assert len(walk.replies) == before

    walk.submit(wants("next"))

    answer = walk.replies[-1]
    assert isinstance(answer, QueryAnswer)
    assert (ids(answer), answer.sequence) == (["next", "web"], asked)


def test_a_state_that_does_not_come_is_not_waited_for_long() -> None:
    walk = a_walk(bounds=Bounds(waiting_max=1))
    walk.question(min_sequence=99)
    walk.question(min_sequence=99)
    (refused,) = walk.replies
    assert isinstance(refused, QueryAnswer)
    assert refused.refusal is not None
    assert refused.refusal.code is RefusalCode.OVERLOADED

    walk.wait(walk.bounds.proposal_ms)

    late = walk.replies[-1]
    assert isinstance(late, QueryAnswer)
    assert late.refusal is not None
    assert late.refusal.code is RefusalCode.UNKNOWN
