"""What tests begin with: nodes, requests, reservations, and a state that has folded what happened to them.

Each builder takes the numbers that matter to a test and supplies the rest. Amounts are those of
`berth.resources` (millicores, MB), times milliseconds UTC.
"""

from typing import Any

from berth.ids import (
    Attempt,
    LedgerId,
    Namespace,
    NodeId,
    RequestKey,
    ReservationId,
    Sequence,
    Term,
    allocation_id,
)
from berth.messages.envelope import NO_HASH, Record
from berth.messages.events import (
    AllocationPlaced,
    AllocationsEnded,
    CohortSet,
    Event,
    EventData,
    How,
    NodeRegistered,
    QuotaSet,
    RequestEnded,
    RequestPlaced,
    RequestStatus,
    RequestSubmitted,
    ReservationActivated,
    ReservationCreated,
    ReservationHeld,
    Transaction,
    about,
)
from berth.messages.reasons import ReasonCode
from berth.messages.requests import Request
from berth.messages.reservation_events import HeldOnNode, ReservationBody
from berth.model.ledger import State
from berth.resources import Resources
from berth.wire.codec import request_digest

T0 = 1_767_225_600_000
"""2026-01-01T00:00:00Z, when the tests' histories begin."""

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
TEAM_A = Namespace("team-a")
TEAM_B = Namespace("team-b")


def a_node(
    node: str = "n1", *, cpu: int = 8_000, ram: int = 16_384, disk: int = 100_000, instances: int = 110, **more: Any
) -> Transaction:
    """A node registers. `more`: extended resources under `extended`, and the event's other fields."""
    extended: dict[str, int] = more.pop("extended", {})
    capacity = Resources(cpu, ram, disk, instances, tuple(sorted(extended.items())))
    return (Event(NodeRegistered(node=NodeId(node), capacity=capacity, **more)),)


def a_quota(namespace: str = TEAM_A, **document: Any) -> Transaction:
    """A namespace gets its quota: `hard={"cpu_millicores": 8_000}`."""
    return (Event(QuotaSet(**document), Namespace(namespace)),)


def a_cohort(name: str, **document: Any) -> Transaction:
    """A cohort gets its document: `soft={"cpu_millicores": 4_000}`, `parent="company"`."""
    return (Event(CohortSet(name=name, **document)),)


def a_request(
    request: str = "web",
    *,
    namespace: str = TEAM_A,
    cpu: int = 1_000,
    ram: int = 0,
    extended: dict[str, int] | None = None,
    **document: Any,
) -> Request:
    """A request; `document`: the other fields as people write them, such as `duration_seconds=60`."""
    amounts = {"cpu_cores": cpu / 1000, "ram_mb": ram, "extended": extended or {}}
    written = {"id": request, "namespace": namespace, "resources": amounts, **document}
    return Request.model_validate(written, strict=False)


def submitted(request: Request) -> Event:
    """The event that opens a request's first transaction."""
    return about(request.key, RequestSubmitted(request=request, digest=request_digest(request)), attempt=Attempt(1))


def placed(request: Request, *nodes: str) -> Transaction:
    """A new request is submitted and its instances run on `nodes`, one each."""
    allocations = tuple(
        AllocationPlaced(id=allocation_id(request.id, index), node=NodeId(node), charge=request.charge)
        for index, node in enumerate(nodes)
    )
    return (submitted(request), about(request.key, RequestPlaced(allocations=allocations), attempt=Attempt(1)))


def ended(state: State, key: RequestKey, how: How = How.RELEASED) -> Transaction:
    """All that lives of a request ends, and the request with it."""
    known = state.queue.requests[key]
    reason = ReasonCode.RELEASED if how is How.RELEASED else ReasonCode.DURATION_OVER
    return (
        about(key, AllocationsEnded(ids=known.live, how=how, reason=reason), attempt=known.attempt),
        about(key, RequestEnded(status=RequestStatus(how.value), reason=reason), attempt=known.attempt),
    )


def a_reservation(
    reservation: str = "res1",
    *,
    start: int,
    end: int,
    on: dict[str, int],
    namespace: str = TEAM_A,
    cpu: int = 4_000,
    ram: int = 0,
    named: bool = True,
    **body: Any,
) -> Transaction:
    """A reservation is created and held: `on={"n1": 2}` holds two units on n1. `body`: its other fields.

    `named`: those nodes and no others will do.
    """
    name = ReservationId(reservation)
    written = ReservationBody(
        id=name,
        resources=Resources(cpu, ram),
        count=sum(on.values()),
        start=start,
        end=end,
        nodes=tuple(NodeId(node) for node in on) if named else (),
        **body,
    )
    held = tuple(HeldOnNode(node=NodeId(node), count=count) for node, count in on.items())
    return (
        Event(ReservationCreated(reservation=written, digest="0" * 64), Namespace(namespace)),
        Event(ReservationHeld(reservation=name, nodes=held), Namespace(namespace)),
    )


def activated(reservation: str = "res1", *, namespace: str = TEAM_A) -> Transaction:
    """A held reservation becomes active."""
    return (Event(ReservationActivated(reservation=ReservationId(reservation)), Namespace(namespace)),)


def a_record(sequence: int, *transactions: Transaction, at: int = T0) -> Record:
    """A record of term 1 whose hashes nobody checks."""
    return Record(
        hash=NO_HASH,
        ledger_id=LedgerId("tests"),
        sequence=Sequence(sequence),
        term=Term(1),
        leader="raft-1",
        barrier=Sequence(1),
        at=at,
        prev_hash=NO_HASH,
        transactions=transactions,
    )


def a_state(*transactions: Transaction, at: int = T0) -> State:
    """The state after one record with these transactions."""
    state = State()
    happened(state, *transactions, at=at)
    return state


def happened(state: State, *transactions: Transaction, at: int | None = None) -> None:
    """Fold one more record, at domain time `at` (default: no time has passed)."""
    state.fold(a_record(state.sequence + 1, *transactions, at=state.at if at is None else at))


def data_of(transaction: Transaction) -> list[EventData]:
    """The events' data alone, for comparing."""
    return [event.data for event in transaction]
