"""Held capacity over time: what fits now, and what fits beside windows to come."""

from berth.ids import NodeId, ReservationId
from berth.messages.documents import OnExpiry
from berth.messages.events import AllocationsReleasing, How, about
from berth.messages.reasons import ReasonCode
from berth.model.cluster import Node
from berth.model.ledger import State
from berth.model.windows import (
    free_now,
    overheld,
    reservation_full,
    units_that_fit,
    window_reason,
    windows_of,
)
from berth.resources import Resources
from tests.builders import (
    HOUR,
    MINUTE,
    T0,
    a_node,
    a_request,
    a_reservation,
    a_state,
    activated,
    ended,
    happened,
    placed,
)

RES1 = ReservationId("res1")


def node_of(state: State, name: str = "n1") -> Node:
    return state.cluster.nodes[NodeId(name)]


def charge(*, cpu: int, ram: int = 0) -> Resources:
    return Resources(cpu_millicores=cpu, ram_mb=ram, instances=1)


# ---------------------------------------------------------------- now


def test_what_an_active_reservation_holds_is_not_free_for_others() -> None:
    state = a_state(a_node(cpu=8_000), a_reservation(start=T0, end=T0 + HOUR, on={"n1": 1}, cpu=6_000), activated())

    assert free_now(state, node_of(state)).cpu_millicores == 2_000


def test_a_window_to_come_leaves_everything_free_now() -> None:
    state = a_state(a_node(cpu=8_000), a_reservation(start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1}, cpu=6_000))

    assert free_now(state, node_of(state)).cpu_millicores == 8_000


def test_drawing_moves_what_is_held_to_what_is_used_and_never_counts_it_twice() -> None:
    state = a_state(a_node(cpu=8_000), a_reservation(start=T0, end=T0 + HOUR, on={"n1": 1}, cpu=6_000), activated())

    happened(state, placed(a_request(cpu=4_000, reservation="res1"), "n1"))

    assert free_now(state, node_of(state)).cpu_millicores == 2_000
    assert free_now(state, node_of(state), RES1).cpu_millicores == 2_000, "of the six held, four are drawn"


def test_r95_a_reserved_dimension_comes_from_the_reservation_alone_the_others_from_the_node() -> None:
    state = a_state(
        a_node(cpu=8_000, ram=1_000),
        a_reservation(start=T0, end=T0 + HOUR, on={"n1": 1}, cpu=3_000),
        activated(),
    )

    free = free_now(state, node_of(state), RES1)

    assert (free.cpu_millicores, free.ram_mb) == (3_000, 1_000), "five more cores are free, but not for it"
    assert reservation_full(state, node_of(state), charge(cpu=3_000, ram=900), RES1) is None
    full = reservation_full(state, node_of(state), charge(cpu=3_500), RES1)
    assert full is not None
    assert (full.code, full.needed, full.best_available) == (ReasonCode.RESERVATION_FULL, 3_500, 3_000)


def test_a_unit_may_be_drawn_in_several_pieces() -> None:
    state = a_state(a_node(cpu=8_000), a_reservation(start=T0, end=T0 + HOUR, on={"n1": 1}, cpu=8_000), activated())

    happened(state, placed(a_request(cpu=2_000, count=4, reservation="res1"), "n1", "n1", "n1", "n1"))

    assert free_now(state, node_of(state), RES1).cpu_millicores == 0
    assert free_now(state, node_of(state)).instances == 106, "instances beyond those held come from the node"


def test_a_reservation_that_is_not_active_yet_gives_nothing() -> None:
    state = a_state(
        a_node(cpu=8_000),
        a_reservation("other", start=T0, end=T0 + HOUR, on={"n1": 1}, cpu=5_000),
        activated("other"),
        a_reservation(start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1}, cpu=6_000),
    )

    assert free_now(state, node_of(state), RES1).cpu_millicores == 3_000


def test_an_over_committed_node_has_less_than_nothing() -> None:
    state = a_state(a_node(cpu=8_000), a_reservation(start=T0, end=T0 + HOUR, on={"n1": 1}, cpu=6_000), activated())

    happened(state, a_node(cpu=4_000))

    assert free_now(state, node_of(state)).cpu_millicores == -2_000


# ---------------------------------------------------------------- later


def held_for_an_hour(*, cpu: int = 6_000) -> State:
    """Eight cores; `cpu` of them are promised from one to two o'clock."""
    return a_state(a_node(cpu=8_000), a_reservation(start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1}, cpu=cpu))


def test_r87_work_that_ends_by_the_start_of_a_window_may_use_what_it_will_hold() -> None:
    state = held_for_an_hour()

    assert window_reason(state, node_of(state), charge(cpu=8_000), at=T0, ends_at=T0 + HOUR) is None


def test_r87_work_that_runs_into_a_window_must_fit_beside_it() -> None:
    state = held_for_an_hour()

    reason = window_reason(state, node_of(state), charge(cpu=2_001), at=T0, ends_at=T0 + HOUR + 1)

    assert reason is not None
    assert (reason.code, reason.dimension) == (ReasonCode.HELD_BY_RESERVATION, "cpu_millicores")
    assert (reason.needed, reason.best_available) == (2_001, 2_000)
    assert reason.detail == "res1 from 2026-01-01T01:00:00Z"
    assert window_reason(state, node_of(state), charge(cpu=2_000), at=T0, ends_at=T0 + HOUR + 1) is None


def test_r87_work_without_an_end_runs_into_every_window() -> None:
    state = held_for_an_hour()

    assert window_reason(state, node_of(state), charge(cpu=3_000), at=T0, ends_at=None) is not None


def test_what_runs_beyond_the_start_of_a_window_is_committed_there() -> None:
    state = held_for_an_hour(cpu=4_000)
    happened(state, placed(a_request("endless", cpu=2_000), "n1"))
    happened(state, placed(a_request("short", cpu=2_000, duration_seconds=1_800), "n1"))

    (window,) = windows_of(state, NodeId("n1"))

    assert window.load.committed == charge(cpu=2_000)
    assert window_reason(state, node_of(state), charge(cpu=2_000), at=T0, ends_at=None) is None
    assert window_reason(state, node_of(state), charge(cpu=2_001), at=T0, ends_at=None) is not None


def test_what_is_being_released_is_gone_when_its_grace_is_over() -> None:
    state = held_for_an_hour(cpu=8_000)
    request = a_request("endless", cpu=2_000, grace_seconds=60)
    happened(state, placed(request, "n1"))
    assert overheld(state, node_of(state), at=T0) is not None

    until = T0 + MINUTE
    gone = AllocationsReleasing(
        ids=state.queue.requests[request.key].live, how=How.RELEASED, reason=ReasonCode.RELEASED, until=until
    )
    happened(state, (about(request.key, gone),))

    assert overheld(state, node_of(state), at=T0) is None


def test_an_active_reservation_that_goes_on_counts_in_the_windows_that_begin_meanwhile() -> None:
    state = a_state(
        a_node(cpu=8_000),
        a_reservation("long", start=T0, end=T0 + 3 * HOUR, on={"n1": 1}, cpu=3_000),
        activated("long"),
        a_reservation(start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1}, cpu=3_000),
    )

    assert window_reason(state, node_of(state), charge(cpu=2_000), at=T0, ends_at=None) is None
    assert window_reason(state, node_of(state), charge(cpu=2_001), at=T0, ends_at=None) is not None


def test_what_draws_on_a_reservation_that_evicts_is_gone_when_the_next_window_begins() -> None:
    state = a_state(
        a_node(cpu=8_000),
        a_reservation("first", start=T0, end=T0 + HOUR, on={"n1": 1}, cpu=8_000, on_expiry=OnExpiry.EVICT),
        activated("first"),
        a_reservation("next", start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1}, cpu=8_000),
    )
    first = ReservationId("first")

    assert window_reason(state, node_of(state), charge(cpu=8_000), at=T0, ends_at=None, drawing=first) is None
    happened(state, placed(a_request(cpu=8_000, reservation="first"), "n1"))
    assert overheld(state, node_of(state), at=T0) is None


def test_r88_what_draws_on_a_reservation_that_keeps_must_fit_beside_what_comes_after_it() -> None:
    state = a_state(
        a_node(cpu=8_000),
        a_reservation("first", start=T0, end=T0 + HOUR, on={"n1": 1}, cpu=8_000, on_expiry=OnExpiry.KEEP),
        activated("first"),
        a_reservation("next", start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1}, cpu=6_000),
    )
    first = ReservationId("first")

    assert window_reason(state, node_of(state), charge(cpu=8_000), at=T0, ends_at=T0 + HOUR, drawing=first) is None
    assert window_reason(state, node_of(state), charge(cpu=2_000), at=T0, ends_at=None, drawing=first) is None
    assert window_reason(state, node_of(state), charge(cpu=2_001), at=T0, ends_at=None, drawing=first) is not None


def test_a_window_whose_end_is_due_disturbs_nobody() -> None:
    state = held_for_an_hour()

    assert window_reason(state, node_of(state), charge(cpu=8_000), at=T0 + 2 * HOUR, ends_at=None) is None
    assert overheld(state, node_of(state), at=T0 + 2 * HOUR) is None


def test_a_window_that_was_not_activated_in_time_is_still_held() -> None:
    state = held_for_an_hour()
    late = T0 + HOUR + MINUTE

    assert window_reason(state, node_of(state), charge(cpu=3_000), at=late, ends_at=late + 1) is not None


def test_a_node_that_came_back_smaller_refuses_only_what_asks_for_what_it_lacks() -> None:
    state = a_state(
        a_node(cpu=8_000, ram=8_000),
        a_reservation(start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1}, cpu=2_000, ram=8_000),
    )

    happened(state, a_node(cpu=8_000, ram=4_000))

    assert overheld(state, node_of(state), at=T0) is not None
    assert overheld(state, node_of(state), at=T0, raised=charge(cpu=1_000)) is None
    assert overheld(state, node_of(state), at=T0, raised=charge(cpu=1_000, ram=1)) is not None


# ---------------------------------------------------------------- booking


def units(state: State, *, start: int, end: int, cpu: int = 4_000, at: int = T0) -> int:
    return units_that_fit(state, node_of(state), charge(cpu=cpu), start=start, end=end, at=at)


def test_r89_a_window_may_use_what_is_expected_free_at_its_start() -> None:
    state = a_state(a_node(cpu=8_000), placed(a_request("short", cpu=6_000, duration_seconds=1_800), "n1"))

    assert units(state, start=T0, end=T0 + HOUR) == 0
    assert units(state, start=T0 + HOUR, end=T0 + 2 * HOUR) == 2


def test_r89_windows_never_hold_the_same_capacity_at_the_same_time() -> None:
    state = held_for_an_hour(cpu=4_000)

    assert units(state, start=T0, end=T0 + HOUR) == 2, "it ends where the other begins"
    assert units(state, start=T0, end=T0 + HOUR + 1) == 1
    assert units(state, start=T0 + 2 * HOUR - 1, end=T0 + 5 * HOUR) == 1
    assert units(state, start=T0 + 2 * HOUR, end=T0 + 5 * HOUR) == 2


def test_a_window_that_has_begun_must_fit_now() -> None:
    state = a_state(a_node(cpu=8_000), placed(a_request("overdue", cpu=6_000, duration_seconds=60), "n1"))

    assert units(state, start=T0, end=T0 + HOUR, at=T0 + 2 * MINUTE) == 0, "its time is over, but it runs"


def test_the_calendar_follows_every_change_and_every_change_undone() -> None:
    state = held_for_an_hour(cpu=4_000)
    request = a_request("endless", cpu=2_000)
    before = windows_of(state, NodeId("n1"))

    with state.journal.trial():
        state.fold_transaction(placed(request, "n1"), at=T0, sequence=state.sequence)
        assert windows_of(state, NodeId("n1")) != before
    assert windows_of(state, NodeId("n1")) == before

    happened(state, placed(request, "n1"))
    happened(state, ended(state, request.key))
    assert windows_of(state, NodeId("n1")) == before
    happened(state, activated(), at=T0 + HOUR)
    assert windows_of(state, NodeId("n1")) == ()
