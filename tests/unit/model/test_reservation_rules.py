"""What may become of a reservation, as the leader checks it."""

from berth.ids import AllocationId, Attempt, Namespace, NodeId, RequestKey, ReservationId
from berth.messages.commands import RefusalCode
from berth.messages.documents import OnExpiry
from berth.messages.events import (
    AllocationPlaced,
    AllocationsEnded,
    Event,
    How,
    NodeLeft,
    RequestEnded,
    RequestPlaced,
    RequestQueued,
    RequestStatus,
    ReservationActivated,
    ReservationEnded,
    ReservationHeld,
    Transaction,
    Wake,
    WakeOn,
    about,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.reservation_events import HeldOnNode, ReservationStatus
from berth.model.charging import recount_usage
from berth.model.check import check
from berth.model.ledger import State
from tests.builders import (
    HOUR,
    MINUTE,
    T0,
    TEAM_A,
    TEAM_B,
    a_node,
    a_quota,
    a_request,
    a_reservation,
    a_state,
    activated,
    ended,
    happened,
    placed,
)

RES1 = ReservationId("res1")
LATER = T0 + HOUR
OVER = T0 + 2 * HOUR


def code(state: State, *transactions: Transaction, at: int | None = None) -> RefusalCode | None:
    """What the leader says to all of it as one transaction, at `at` (default: domain time)."""
    events = tuple(event for transaction in transactions for event in transaction)
    refusal = check(state, events, state.at if at is None else at)
    return None if refusal is None else refusal.code


def over(status: ReservationStatus, *, namespace: Namespace = TEAM_A) -> Transaction:
    return (Event(ReservationEnded(reservation=RES1, status=status), namespace),)


def held_on(**nodes: int) -> Transaction:
    held = tuple(HeldOnNode(node=NodeId(node), count=count) for node, count in nodes.items())
    return (Event(ReservationHeld(reservation=RES1, nodes=held), TEAM_A),)


def displaced(state: State, key: RequestKey, *names: str, reason: ReasonCode = ReasonCode.PREEMPTED) -> Transaction:
    """All or some allocations of a request are evicted, and what is left of it waits again."""
    known = state.queue.requests[key]
    ids = tuple(name for name in known.live if not names or name in names)
    waiting = RequestQueued(
        reasons=(Reason(code=reason),), wake=(Wake(on=WakeOn.CAPACITY),), evaluated_at=state.sequence
    )
    return (
        about(key, AllocationsEnded(ids=ids, how=How.EVICTED, reason=reason)),
        *([about(key, waiting)] if len(ids) == len(known.live) else []),
    )


# ---------------------------------------------------------------- created and held


def test_a_window_that_fits_beside_what_runs_is_lawful() -> None:
    state = a_state(a_node(cpu=8_000), placed(a_request(cpu=4_000), "n1"))

    assert code(state, a_reservation(start=LATER, end=OVER, on={"n1": 1}, cpu=4_000)) is None
    assert code(state, a_reservation(start=LATER, end=OVER, on={"n1": 1}, cpu=4_001)) is RefusalCode.WINDOW


def test_r89_a_window_never_overlaps_what_another_holds() -> None:
    state = a_state(a_node(cpu=8_000), a_reservation("other", start=LATER, end=OVER, on={"n1": 1}, cpu=6_000))

    assert code(state, a_reservation(start=LATER + 1, end=OVER + 1, on={"n1": 1}, cpu=4_000)) is RefusalCode.WINDOW
    assert code(state, a_reservation(start=OVER, end=OVER + 1, on={"n1": 1}, cpu=4_000)) is None


def test_r106_the_same_reservation_again_is_done_already_and_another_body_a_conflict() -> None:
    state = a_state(a_node())
    created, held = a_reservation(start=LATER, end=OVER, on={"n1": 1})
    happened(state, (created, held))

    assert code(state, (created, held)) is RefusalCode.ALREADY_DONE
    assert code(state, a_reservation(start=LATER, end=OVER, on={"n1": 1}, namespace=TEAM_B)) is RefusalCode.CONFLICT


def test_a_reservation_holds_all_its_units_on_nodes_that_are_known() -> None:
    state = a_state(a_node("n1"), a_node("n2"))
    created, _ = a_reservation(start=LATER, end=OVER, on={"n1": 2})

    assert code(state, (created,), held_on(n1=1)) is RefusalCode.INVALID
    assert code(state, (created,), held_on(n1=1, n2=1)) is RefusalCode.INVALID, "it named n1 alone"
    assert code(state, a_reservation(start=LATER, end=OVER, on={"n9": 1})) is RefusalCode.NOT_FOUND


def test_a_window_in_the_past_is_invalid() -> None:
    state = a_state(a_node())

    assert code(state, a_reservation(start=T0 - HOUR, end=T0, on={"n1": 1})) is RefusalCode.INVALID
    assert code(state, a_reservation(start=T0, end=T0, on={"n1": 1})) is RefusalCode.INVALID


def test_a_reservation_of_nothing_is_invalid() -> None:
    state = a_state(a_node())

    assert code(state, a_reservation(start=LATER, end=OVER, on={"n1": 1}, cpu=0)) is RefusalCode.INVALID


# ---------------------------------------------------------------- the namespace's hard limit


def test_a_window_to_come_is_checked_against_hard_with_what_runs_into_it() -> None:
    state = a_state(a_node(cpu=64_000), a_quota(hard={"cpu_millicores": 8_000}))
    happened(state, placed(a_request("endless", cpu=3_000), "n1"))
    happened(state, placed(a_request("short", cpu=5_000, duration_seconds=1_800), "n1"))

    assert code(state, a_reservation(start=LATER, end=OVER, on={"n1": 1}, cpu=5_000)) is None
    assert code(state, a_reservation(start=LATER, end=OVER, on={"n1": 1}, cpu=5_001)) is RefusalCode.QUOTA
    assert code(state, a_reservation(start=T0 + MINUTE, end=OVER, on={"n1": 1}, cpu=1_000)) is RefusalCode.QUOTA


def test_windows_of_one_namespace_count_together_where_they_overlap() -> None:
    state = a_state(a_node(cpu=64_000), a_quota(hard={"cpu_millicores": 8_000}))
    happened(state, a_reservation("other", start=LATER, end=OVER, on={"n1": 1}, cpu=5_000))

    assert code(state, a_reservation(start=T0 + 1, end=LATER + 1, on={"n1": 1}, cpu=4_000)) is RefusalCode.QUOTA
    assert code(state, a_reservation(start=T0 + 1, end=LATER, on={"n1": 1}, cpu=4_000)) is None
    theirs = a_reservation(start=LATER, end=OVER, on={"n1": 1}, cpu=4_000, namespace=TEAM_B)
    assert code(state, theirs) is None, "another namespace has its own limit"


def test_r93_an_active_reservation_charges_its_namespace_drawn_or_not() -> None:
    state = a_state(a_node(cpu=64_000), a_quota(hard={"cpu_millicores": 8_000}))
    happened(state, a_reservation(start=T0, end=OVER, on={"n1": 1}, cpu=6_000), activated())
    assert state.quotas.used_by(TEAM_A).cpu_millicores == 6_000

    happened(state, placed(a_request(cpu=4_000, reservation="res1"), "n1"))
    assert state.quotas.used_by(TEAM_A).cpu_millicores == 6_000
    assert code(state, placed(a_request("more", cpu=3_000), "n1")) is RefusalCode.QUOTA


def test_an_activation_never_exceeds_hard() -> None:
    state = a_state(a_node(cpu=64_000), a_quota(hard={"cpu_millicores": 8_000}))
    happened(state, a_reservation(start=LATER, end=OVER, on={"n1": 1}, cpu=6_000))
    happened(state, placed(a_request(cpu=4_000), "n1"))

    assert code(state, activated(), at=LATER) is RefusalCode.QUOTA


# ---------------------------------------------------------------- active


def test_a_reservation_becomes_active_once_and_not_before_its_start() -> None:
    state = a_state(a_node(), a_reservation(start=LATER, end=OVER, on={"n1": 1}))

    assert code(state, activated(), at=LATER - 1) is RefusalCode.TOO_EARLY
    assert code(state, activated(), at=OVER) is RefusalCode.WINDOW
    assert code(state, activated(), at=LATER) is None
    happened(state, activated(), at=LATER)
    assert code(state, activated()) is RefusalCode.ALREADY_DONE


def test_what_is_in_the_way_of_a_start_is_evicted_with_it() -> None:
    state = a_state(a_node(cpu=8_000), a_reservation(start=LATER, end=OVER, on={"n1": 1}, cpu=6_000))
    in_the_way = a_request("in-the-way", cpu=4_000)
    happened(state, placed(in_the_way, "n1"))

    assert code(state, activated(), at=LATER) is RefusalCode.CAPACITY
    assert code(state, displaced(state, in_the_way.key), activated(), at=LATER) is None


def test_who_is_not_in_the_way_of_a_start_is_not_evicted() -> None:
    state = a_state(a_node(cpu=8_000), a_node("n2"), a_reservation(start=LATER, end=OVER, on={"n1": 1}, cpu=6_000))
    harmless, elsewhere = a_request("harmless", cpu=2_000), a_request("elsewhere", cpu=4_000)
    happened(state, placed(harmless, "n1"), placed(elsewhere, "n2"))

    assert code(state, displaced(state, harmless.key), activated(), at=LATER) is RefusalCode.CLASS
    assert code(state, displaced(state, elsewhere.key), activated(), at=LATER) is RefusalCode.CLASS


def test_a_start_never_evicts_what_draws_on_another_reservation() -> None:
    state = a_state(
        a_node(cpu=8_000),
        a_reservation("other", start=T0, end=OVER, on={"n1": 1}, cpu=4_000),
        activated("other"),
        a_reservation(start=LATER, end=OVER, on={"n1": 1}, cpu=6_000),
    )
    drawing = a_request("drawing", cpu=4_000, reservation="other")
    happened(state, placed(drawing, "n1"))

    assert code(state, displaced(state, drawing.key), activated(), at=LATER) is RefusalCode.CLASS


def test_the_rest_of_a_gang_leaves_with_its_part_that_is_in_the_way() -> None:
    state = a_state(a_node(cpu=8_000), a_node("n2"), a_reservation(start=LATER, end=OVER, on={"n1": 1}, cpu=6_000))
    gang = a_request("gang", cpu=4_000, count=2)
    happened(state, placed(gang, "n1", "n2"))

    assert code(state, displaced(state, gang.key), activated(), at=LATER) is None
    assert code(state, displaced(state, gang.key, "gang.0"), activated(), at=LATER) is RefusalCode.RULE


def test_a_hold_shrinks_to_what_is_left_of_its_nodes_but_never_grows() -> None:
    state = a_state(a_node("n1"), a_node("n2"), a_reservation(start=LATER, end=OVER, on={"n1": 1, "n2": 1}))
    happened(state, (Event(NodeLeft(node=NodeId("n2"))),))

    assert code(state, activated(), at=LATER) is RefusalCode.NOT_FOUND
    assert code(state, held_on(n1=1), activated(), at=LATER) is None
    assert code(state, held_on(n1=3), activated(), at=LATER) is RefusalCode.INVALID


def test_r95_no_more_is_drawn_than_is_held() -> None:
    state = a_state(a_node(cpu=16_000), a_reservation(start=T0, end=OVER, on={"n1": 1}, cpu=4_000), activated())

    assert code(state, placed(a_request(cpu=2_000, count=2, reservation="res1"), "n1", "n1")) is None
    assert code(state, placed(a_request(cpu=5_000, reservation="res1"), "n1")) is RefusalCode.CAPACITY


# ---------------------------------------------------------------- over


def test_a_reservation_expires_at_its_end_and_not_before() -> None:
    state = a_state(a_node(), a_reservation(start=T0, end=OVER, on={"n1": 1}), activated())

    assert code(state, over(ReservationStatus.EXPIRED), at=OVER - 1) is RefusalCode.TOO_EARLY
    assert code(state, over(ReservationStatus.EXPIRED), at=OVER) is None


def test_r96_a_reservation_that_was_never_active_expires_too() -> None:
    state = a_state(a_node(), a_reservation(start=LATER, end=OVER, on={"n1": 1}))

    assert code(state, over(ReservationStatus.EXPIRED), at=OVER) is None


def test_r96_an_ended_reservation_never_changes_again() -> None:
    state = a_state(a_node(), a_reservation(start=LATER, end=OVER, on={"n1": 1}))
    happened(state, over(ReservationStatus.CANCELLED))

    for late in (over(ReservationStatus.EXPIRED), over(ReservationStatus.RELEASED), activated(), held_on(n1=1)):
        assert code(state, late, at=OVER) is RefusalCode.ALREADY_DONE


def test_a_held_reservation_is_cancelled_and_an_active_one_released() -> None:
    state = a_state(a_node(), a_reservation(start=T0, end=OVER, on={"n1": 1}))
    assert code(state, over(ReservationStatus.RELEASED)) is RefusalCode.RULE
    assert code(state, over(ReservationStatus.CANCELLED)) is None

    happened(state, activated())
    assert code(state, over(ReservationStatus.CANCELLED)) is RefusalCode.RULE
    assert code(state, over(ReservationStatus.RELEASED)) is None
    assert code(state, over(ReservationStatus.RELEASED, namespace=TEAM_B)) is RefusalCode.INVALID


def test_r90_a_reservation_in_use_is_not_released() -> None:
    state = a_state(a_node(), a_reservation(start=T0, end=OVER, on={"n1": 1}), activated())
    request = a_request(cpu=1_000, reservation="res1")
    happened(state, placed(request, "n1"))
    assert code(state, over(ReservationStatus.RELEASED)) is RefusalCode.RULE

    happened(state, ended(state, request.key))
    assert code(state, over(ReservationStatus.RELEASED)) is None


def test_r94_a_reservation_to_be_used_once_is_released_while_it_is_in_use() -> None:
    state = a_state(a_node(), a_reservation(start=T0, end=OVER, on={"n1": 2}, allocate_once=True), activated())
    happened(state, placed(a_request(cpu=1_000, reservation="res1"), "n1"))

    assert code(state, over(ReservationStatus.RELEASED)) is None


def test_what_named_the_reservation_before_it_was_active_draws_on_it_from_then_on() -> None:
    state = a_state(a_node("n1"), a_node("n2"), a_reservation(start=T0, end=OVER, on={"n1": 1}, cpu=4_000))
    here, elsewhere = a_request("here", reservation="res1"), a_request("elsewhere", reservation="res1")
    happened(state, placed(here, "n1"), placed(elsewhere, "n2"))

    happened(state, activated())

    assert state.reservations.drawn_on(RES1, NodeId("n1")) == here.charge
    assert state.quotas.used_by(TEAM_A).cpu_millicores == 5_000, "what runs where nothing is held is charged besides"
    assert recount_usage(state) == dict(state.quotas.used)
    happened(state, ended(state, here.key), ended(state, elsewhere.key))
    assert recount_usage(state) == dict(state.quotas.used)


def test_what_is_kept_beyond_the_end_is_charged_to_its_own_namespace() -> None:
    state = a_state(
        a_node(),
        a_reservation(start=T0, end=OVER, on={"n1": 1}, cpu=4_000, owners=({"namespace": TEAM_B},)),
        activated(),
    )
    happened(state, placed(a_request(cpu=1_000, namespace=TEAM_B, reservation="res1"), "n1"))
    assert (state.quotas.used_by(TEAM_A).cpu_millicores, state.quotas.used_by(TEAM_B).cpu_millicores) == (4_000, 0)

    happened(state, over(ReservationStatus.EXPIRED), at=OVER)

    assert (state.quotas.used_by(TEAM_A).cpu_millicores, state.quotas.used_by(TEAM_B).cpu_millicores) == (0, 1_000)


def test_where_the_end_evicts_nothing_stays_that_draws_on_it() -> None:
    state = a_state(a_node(), a_reservation(start=T0, end=OVER, on={"n1": 1}, on_expiry=OnExpiry.EVICT), activated())
    request = a_request(cpu=1_000, reservation="res1")
    happened(state, placed(request, "n1"))
    assert code(state, over(ReservationStatus.EXPIRED), at=OVER) is RefusalCode.STALE_VICTIM

    gone = (
        about(
            request.key,
            AllocationsEnded(
                ids=state.queue.requests[request.key].live, how=How.EXPIRED, reason=ReasonCode.RESERVATION_OVER
            ),
        ),
        about(request.key, RequestEnded(status=RequestStatus.EXPIRED, reason=ReasonCode.RESERVATION_OVER)),
    )
    assert code(state, gone, at=OVER - 1) is RefusalCode.TOO_EARLY
    assert code(state, gone, over(ReservationStatus.EXPIRED), at=OVER) is None


# ---------------------------------------------------------------- durations


def test_an_allocation_expires_when_its_duration_is_over_and_not_before() -> None:
    request = a_request(duration_seconds=60)
    state = a_state(a_node(), placed(request, "n1"))

    assert code(state, ended(state, request.key, How.EXPIRED), at=T0 + MINUTE - 1) is RefusalCode.TOO_EARLY
    assert code(state, ended(state, request.key, How.EXPIRED), at=T0 + MINUTE) is None


def test_an_endless_allocation_never_expires() -> None:
    request = a_request()
    state = a_state(a_node(), placed(request, "n1"))

    assert code(state, ended(state, request.key, How.EXPIRED), at=T0 + 1000 * HOUR) is RefusalCode.TOO_EARLY


def test_instances_without_which_the_request_cannot_run_expire_with_those_that_are_due() -> None:
    request = a_request(duration_seconds=60, count=3, min_count=2)
    state = a_state(a_node(), placed(request, "n1", "n1"))
    late = AllocationPlaced(id=AllocationId("web.2"), node=NodeId("n1"), charge=request.charge)
    happened(state, (about(request.key, RequestPlaced(allocations=(late,)), attempt=Attempt(2)),), at=T0 + MINUTE // 2)

    assert code(state, ended(state, request.key, How.EXPIRED), at=T0 + MINUTE - 1) is RefusalCode.TOO_EARLY
    assert code(state, ended(state, request.key, How.EXPIRED), at=T0 + MINUTE) is None


def test_activation_names_the_namespace_it_belongs_to() -> None:
    state = a_state(a_node(), a_reservation(start=T0, end=OVER, on={"n1": 1}))

    assert code(state, (Event(ReservationActivated(reservation=RES1), TEAM_B),)) is RefusalCode.INVALID
