"""Random work in nested cohorts through the whole walk: sums, and what reclaim never does (R61, R63, R67)."""

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from berth import subjects
from berth.ids import Namespace, RequestId
from berth.messages.commands import ApplyQuotas
from berth.messages.documents import QUOTAS
from berth.messages.envelope import Record
from berth.messages.events import AllocationsEnded, Event, RequestPlaced, Transaction
from berth.messages.reasons import ReasonCode
from berth.model import entitlement
from berth.model.charging import recount_usage
from berth.model.ledger import State
from berth.model.lending import Lending, Member
from berth.wire.codec import decode_record
from berth_cell.cell import Cell
from tests.builders import T0, a_cohort, a_node, a_quota, a_request

CPU = "cpu_millicores"
TEAMS = [Namespace(name) for name in ("algebra", "biology", "cinema", "dance")]
COHORT = {"algebra": "science", "biology": "science", "cinema": "arts", "dance": "arts"}

SUBMIT = st.tuples(
    st.just("submit"), st.sampled_from(TEAMS), st.integers(1, 4), st.sampled_from((10, 50, 90)), st.integers(1, 2)
)
RELEASE = st.tuples(st.just("release"), st.integers(0, 30))
QUOTA = st.tuples(st.just("quota"), st.sampled_from(TEAMS), st.integers(0, 6), st.sampled_from((0, 50)))
LIMITS = st.tuples(
    *(st.tuples(st.integers(0, 6), st.sampled_from((0, 50)), st.sampled_from((None, 0, 2))) for _ in TEAMS)
)


@settings(max_examples=60, deadline=None)
@given(limits=LIMITS, operations=st.lists(st.one_of(SUBMIT, SUBMIT, SUBMIT, RELEASE, QUOTA), max_size=25))
def test_r61_r63_r67_whatever_happens_sums_hold_nobody_falls_below_soft_and_nobody_takes_in_turn(
    limits: tuple[tuple[int, int, int | None], ...], operations: list[tuple[object, ...]]
) -> None:
    cell = a_university(limits)
    for number, operation in enumerate(operations):
        before = len(cell.ledger)
        play(cell, number, operation)

        check_sums(cell.state)
        check_evictions(cell, since=before)


def a_university(limits: tuple[tuple[int, int, int | None], ...]) -> Cell:
    """Two faculties of two teams each on 14 cores; `limits`: soft, burst and what each lends at most."""
    history = [a_node("n1", cpu=8_000), a_node("n2", cpu=6_000)]
    history += [a_cohort(name, parent="university") for name in ("science", "arts")]
    history += [
        a_quota(
            team,
            hard={CPU: 9_000},
            soft={CPU: soft * 1_000},
            burst_percent=burst,
            lending_limit=None if lends is None else {CPU: min(soft, lends) * 1_000},
            cohort=COHORT[team],
        )
        for team, (soft, burst, lends) in zip(TEAMS, limits, strict=True)
    ]
    return Cell(at_ms=T0, history=[(T0, one) for one in history])


def play(cell: Cell, number: int, operation: tuple[object, ...]) -> None:
    match operation:
        case ("submit", str() as team, int() as cpu, int() as priority, int() as count):
            cell.submit([a_request(f"r{number}", namespace=team, cpu=cpu * 1_000, priority=priority, count=count)])
        case ("release", int() as which):
            known = [key for key, request in cell.state.queue.requests.items() if not request.is_settled]
            if known:
                namespace, request = known[which % len(known)]
                cell.release(namespace, [RequestId(request)])
        case ("quota", str() as team, int() as soft, int() as burst):
            document = {
                "namespace": team,
                "hard": {"cpu_cores": 9},
                "soft": {"cpu_cores": soft},
                "burst_percent": burst,
                "cohort": COHORT[team],
            }
            quotas = QUOTAS.validate_python({"quotas": [document]}, strict=False).quotas
            cell.ask(subjects.ADMIN_QUOTA, ApplyQuotas(quotas=quotas))
        case other:
            raise AssertionError(f"what is {other}?")


# ---------------------------------------------------------------- sums


def check_sums(state: State) -> None:
    """Used is what runs; parents are charged exactly what their children pass on; nobody above hard."""
    assert recount_usage(state) == dict(state.quotas.used), "I13"
    trees = entitlement.lending(state.quotas)
    for member in (*trees.namespaces.values(), *trees.cohorts.values()):
        assert member.used.get(CPU, 0) >= 0
    for cohort in trees.cohorts.values():
        passed_on = sum(max(0, one.used.get(CPU, 0) - one.local.get(CPU, 0)) for one in children(trees, cohort))
        assert cohort.used.get(CPU, 0) == passed_on, "R67: children sum to parent"
    borrowed = 0
    for team in TEAMS:
        assert state.quotas.used_by(team).amount(CPU) <= 9_000
        classed = entitlement.classes(state, team)
        parts = [part.get(CPU, 0) for part in (classed.guaranteed, classed.borrowed, classed.burst)]
        assert min(parts) >= 0
        assert sum(parts) == state.quotas.used_by(team).amount(CPU)
        borrowed += parts[1]
    lent = sum(max(0, one.nominal[CPU] - one.used.get(CPU, 0)) for one in trees.namespaces.values())
    assert borrowed <= lent, "nobody borrows what nobody left idle"


def children(trees: Lending, cohort: Member) -> Iterator[Member]:
    for one in (*trees.namespaces.values(), *trees.cohorts.values()):
        if one.parent is cohort:
            yield one


# ---------------------------------------------------------------- evictions


def check_evictions(cell: Cell, *, since: int) -> None:
    """Everything taken since then, one transaction after the other, on the state before each."""
    records = [decode_record(payload) for payload in cell.ledger]
    state = State()
    taken: list[tuple[Namespace, Namespace]] = []
    for number, record in enumerate(records):
        if number >= since:
            taken += [pair for one in record.transactions for pair in check_taken(state, one, record)]
        state.fold(record)
    for taker, loser in set(taken):
        assert (loser, taker) not in taken, f"R63: {taker} and {loser} take from each other in turn"


def check_taken(state: State, transaction: Transaction, record: Record) -> Iterator[tuple[Namespace, Namespace]]:
    """Whoever lost something was above soft, and is not below it now; several transactions of one record agree."""
    losses: dict[Namespace, int] = {}
    takers = [event.namespace for event in transaction if isinstance(event.data, RequestPlaced)]
    for event in transaction:
        if is_reclaimed(event):
            assert event.namespace is not None
            assert isinstance(event.data, AllocationsEnded)
            for name in event.data.ids:
                gone = state.cluster.allocations[event.namespace, name].charge.amount(CPU)
                losses[event.namespace] = losses.get(event.namespace, 0) + gone
    for loser, amount in losses.items():
        (taker,) = takers
        assert taker is not None
        assert taker != loser
        soft, used = state.quotas.quotas[loser].soft[CPU], state.quotas.used_by(loser).amount(CPU)
        raised = sum(amounts_placed(one, loser) for one in record.transactions)
        assert used + raised - amount >= soft, f"R61: {loser} falls to {used - amount}, its soft is {soft}"
        yield taker, loser


def is_reclaimed(event: Event) -> bool:
    return isinstance(event.data, AllocationsEnded) and event.data.reason is ReasonCode.RECLAIMED


def amounts_placed(transaction: Transaction, namespace: Namespace) -> int:
    return sum(
        one.charge.amount(CPU)
        for event in transaction
        if isinstance(event.data, RequestPlaced) and event.namespace == namespace
        for one in event.data.allocations
    )
