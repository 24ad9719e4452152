"""One order: not borrowing before borrowing, then priority, then dominant share, then age (R72)."""

from berth_quota.bounds import Bounds
from tests.builders import HOUR, TEAM_A, TEAM_B, a_quota
from tests.unit.berth_quota.settings_of_walks import a_walk, cores, wants
from tests.unit.berth_quota.walk import Walk


def together(walk: Walk, *requests: object) -> list[str]:
    """The order in which requests that arrive at one time are sent to be evaluated."""
    walk.evaluations.clear()
    walk.hold_scheduler = True
    for request in requests:
        walk.submit(request, run=False)  # pyright: ignore[reportArgumentType]
    walk.run()
    return walk.evaluated()


def two_teams(**more: object) -> Walk:
    return a_walk(
        a_quota(TEAM_A, soft=cores(2), cohort="research", **more),
        a_quota(TEAM_B, soft=cores(2), cohort="research"),
        room=100,
    )


def test_by_age_where_nothing_else_decides() -> None:
    assert together(a_walk(), wants("c"), wants("a"), wants("b")) == ["c", "a", "b"]


def test_by_priority_before_age() -> None:
    walk = a_walk()

    assert together(walk, wants("low", priority=1), wants("high", priority=99), wants("usual")) == [
        "high",
        "usual",
        "low",
    ]


def test_who_stays_within_soft_comes_before_who_borrows_whatever_the_priority() -> None:
    walk = two_teams()

    assert together(walk, wants("borrows", 3, priority=99), wants("own", 1, namespace=TEAM_B, priority=1)) == [
        "own",
        "borrows",
    ]


def test_among_who_borrow_the_smaller_dominant_share_comes_first() -> None:
    walk = two_teams()
    walk.happened(a_quota("lender", soft=cores(3), cohort="research"))
    walk.submit(wants("before", 2))
    walk.submit(wants("other", 1, namespace=TEAM_B))

    assert together(walk, wants("more", 2), wants("less", 2, namespace=TEAM_B)) == ["less", "more"]


def test_what_is_in_flight_counts_so_namespaces_take_turns() -> None:
    walk = a_walk(
        a_quota(TEAM_A, soft=cores(0), cohort="research"),
        a_quota(TEAM_B, soft=cores(0), cohort="research"),
        a_quota("lender", soft=cores(50), cohort="research"),
        room=100,
    )
    a = [wants(f"a-{number}") for number in range(3)]
    b = [wants(f"b-{number}", namespace=TEAM_B) for number in range(3)]

    assert together(walk, *a, *b) == ["a-0", "b-0", "a-1", "b-1", "a-2", "b-2"]


def test_all_that_a_namespace_wants_counts_whatever_its_shape() -> None:
    walk = a_walk(
        a_quota(TEAM_A, soft=cores(0), cohort="research"),
        a_quota(TEAM_B, soft=cores(0), cohort="research"),
        a_quota("lender", soft=cores(50), cohort="research"),
        room=100,
    )
    a = [wants("a-big", 4), wants("a-small", 5)]
    b = [wants("b-0", 8, namespace=TEAM_B)]

    assert together(walk, *a, *b) == ["a-big", "b-0", "a-small"], "4 and 5 are more than 8"


def test_a_smaller_weight_comes_later() -> None:
    walk = a_walk(
        a_quota(TEAM_A, soft=cores(0), cohort="research", weight_permille=500),
        a_quota(TEAM_B, soft=cores(0), cohort="research"),
        a_quota("lender", soft=cores(50), cohort="research"),
        room=100,
    )
    a = [wants(f"a-{number}") for number in range(3)]
    b = [wants(f"b-{number}", namespace=TEAM_B) for number in range(4)]

    assert together(walk, *a, *b) == ["b-0", "a-0", "b-1", "b-2", "a-1", "b-3", "a-2"]


def test_an_evicted_request_keeps_the_place_of_its_submission() -> None:
    walk = a_walk(room=1)
    walk.submit(wants("full"))
    walk.submit(wants("b"), wants("a"))
    walk.evaluations.clear()

    walk.release("full")

    assert walk.evaluated() == ["b", "a"], "by their place in the message, not by name"


def test_who_would_not_borrow_any_more_is_not_kept_behind_others() -> None:
    walk = a_walk(
        a_quota(TEAM_A, soft=cores(2), cohort="research"),
        a_quota("lender", soft=cores(9), cohort="research"),
        room=100,
        bounds=Bounds(in_flight_max=1),
    )
    walk.submit(wants("before", 2))
    walk.hold_scheduler = True
    walk.submit(wants("under-way", namespace=TEAM_B))
    walk.submit(wants("usual", namespace=TEAM_B))
    walk.submit(wants("urgent", 2, priority=90))  # borrows, so it would come last

    walk.release("before")
    walk.hold_scheduler = False
    walk.run()

    assert walk.evaluated() == ["before", "under-way", "urgent", "usual"]


def test_who_used_much_lately_comes_after_who_did_not() -> None:
    walk = a_walk(
        a_quota(TEAM_A, soft=cores(0), cohort="research", usage_half_life_seconds=86_400),
        a_quota(TEAM_B, soft=cores(0), cohort="research", usage_half_life_seconds=86_400),
        a_quota("lender", soft=cores(50), cohort="research"),
        room=100,
    )
    walk.submit(wants("long", 10))
    walk.wait(24 * HOUR)
    walk.release("long")

    assert together(walk, wants("a"), wants("b", namespace=TEAM_B)) == ["b", "a"]


def test_the_place_in_the_queue_is_the_order_in_which_they_are_driven() -> None:
    walk = a_walk(
        a_quota(TEAM_A, soft=cores(10), hard=cores(20), cohort="research"),
        a_quota("lender", soft=cores(50), cohort="research"),
        room=1,
    )
    walk.submit(wants("full", namespace=TEAM_B))
    for name, priority, size in (("a", 50, 1), ("b", 90, 3), ("c", 10, 2), ("d", 50, 12), ("e", 90, 1)):
        walk.submit(wants(name, size, priority=priority))
        walk.submit(wants(f"{name}-other", size, priority=priority, namespace=TEAM_B))
    rows = sorted((row["queue_position"], row["id"]) for row in walk.requests().items if row["queue_position"])
    walk.evaluations.clear()

    walk.release("full", namespace=TEAM_B)

    assert [name for _, name in rows][:3] == ["b", "b-other", "e"]
    assert walk.evaluated() == [name for _, name in rows]
