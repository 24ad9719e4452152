"""I12: a snapshot and the tail fold to what everything folds to; what is no snapshot of ours leaves no trace."""

from collections.abc import Callable
from functools import cache
from typing import Any

import orjson
import pytest

from berth.ids import AllocationId, Attempt, LedgerId, NodeId, RequestId, ReservationId, Sequence
from berth.messages.events import (
    AllocationsEnded,
    AllocationsReleasing,
    DigestsRecorded,
    Event,
    How,
    LedgerCreated,
    NodeChanged,
    NodeLost,
    RequestQueued,
    RequestsForgotten,
    StartPromised,
    Transaction,
    Wake,
    WakeOn,
    about,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Effect, Taint
from berth.messages.reservation_events import ReservationEnded, ReservationStatus
from berth.model.ledger import State
from berth.wire import snapshots
from berth.wire.codec import decode_event, encode_event
from berth.wire.snapshots import SnapshotUnusable
from tests.builders import (
    HOUR,
    T0,
    TEAM_A,
    TEAM_B,
    a_cohort,
    a_node,
    a_quota,
    a_record,
    a_request,
    a_reservation,
    activated,
    ended,
    placed,
    submitted,
)
from tests.same_state import assert_same, tables

APART = [{"match_labels": {"app": "web"}, "topology_key": "node", "mode": "required"}]


def _queued(name: str) -> Transaction:
    request = a_request(name, cpu=90_000, labels={"app": "big"}, queue_deadline_seconds=60)
    queued = RequestQueued(
        reasons=(Reason(code=ReasonCode.INSUFFICIENT_CPU, nodes=2, needed=90_000, best_available=8_000),),
        wake=(Wake(on=WakeOn.CAPACITY), Wake(on=WakeOn.RESERVATION, name="res1")),
        evaluated_at=Sequence(3),
    )
    return (submitted(request), about(request.key, queued, attempt=Attempt(1)))


def _releasing(name: str) -> Transaction:
    releasing = AllocationsReleasing(
        ids=(AllocationId(f"{name}.0"),), how=How.RELEASED, reason=ReasonCode.RELEASED, until=T0 + HOUR
    )
    return (about((TEAM_A, RequestId(name)), releasing, attempt=Attempt(2)),)


def _evicting(victim: str, name: str) -> Transaction:
    gone = AllocationsEnded(ids=(AllocationId(f"{victim}.0"),), how=How.EVICTED, reason=ReasonCode.PREEMPTED)
    again = RequestQueued(reasons=(), wake=(Wake(on=WakeOn.CAPACITY),), evaluated_at=Sequence(0))
    return (
        about((TEAM_B, RequestId(victim)), gone),
        about((TEAM_B, RequestId(victim)), again),
        *placed(a_request(name, priority=90), "n1"),
    )


STORY: tuple[Callable[[State], Transaction], ...] = (
    lambda _: (Event(LedgerCreated(ledger_id=LedgerId("tests"), members=("raft-1",), level="ledger")),),
    lambda _: a_node("n1", labels={"zone": "a"}, extended={"gpu": 2}),
    lambda _: a_node("n2", taints=(Taint(key="dedicated", value="gpu", effect=Effect.NO_EXECUTE),)),
    lambda _: a_node("n3"),
    lambda _: a_cohort("research", soft={"cpu_millicores": 4_000}),
    lambda _: a_quota(
        hard={"cpu_millicores": 8_000, "gpu": 0},
        soft={"cpu_millicores": 500},
        cohort="research",
        lending_limit={},
        grace_seconds=60,
        usage_half_life_seconds=600,
    ),
    lambda _: a_quota(TEAM_B, hard={"cpu_millicores": 8_000}, borrowing_limit=None, weight_permille=500),
    lambda _: placed(
        a_request("web", count=2, labels={"app": "web"}, anti_affinity=APART, extended={"gpu": 1}), "n1", "n2"
    ),
    lambda _: placed(a_request("short", namespace=TEAM_B, duration_seconds=60), "n1"),
    lambda _: _queued("later"),
    lambda _: _queued("promised"),
    lambda _: (about((TEAM_A, RequestId("promised")), StartPromised(start=T0 + HOUR), attempt=Attempt(2)),),
    lambda _: placed(a_request("going"), "n3"),
    lambda _: _releasing("going"),
    lambda _: placed(a_request("done"), "n3"),
    lambda state: ended(state, (TEAM_A, RequestId("done"))),
    lambda _: placed(a_request("old"), "n3"),
    lambda state: ended(state, (TEAM_A, RequestId("old"))),
    lambda _: (Event(RequestsForgotten(requests=(RequestId("old"),)), TEAM_A),),
    lambda _: a_reservation("res1", start=T0, end=T0 + HOUR, on={"n3": 2}, cpu=1_000),
    lambda _: activated("res1"),
    lambda _: placed(a_request("drawing", reservation="res1"), "n3"),
    lambda _: a_reservation("res2", start=T0 + HOUR, end=T0 + 2 * HOUR, on={"n1": 1}),
    lambda _: a_reservation("res3", start=T0, end=T0 + HOUR, on={"n1": 1}),
    lambda _: (Event(ReservationEnded(reservation=ReservationId("res3"), status=ReservationStatus.CANCELLED), TEAM_A),),
    lambda _: _evicting("short", "urgent"),
    lambda _: (Event(NodeChanged(node=NodeId("n3"), schedulable=False, draining=True)),),
    lambda _: (Event(NodeLost(node=NodeId("n2"))),),
    lambda state: (Event(DigestsRecorded(digests=state.digests())),),
)
"""A bit of everything. Each is read back from its bytes, as every process reads it."""


def _step(state: State, number: int) -> None:
    said = STORY[number](state)
    events = tuple(decode_event(orjson.loads(encode_event(event))) for event in said)
    state.fold(a_record(number + 1, events, at=T0 + number))


def _after(steps: int) -> State:
    state = State()
    for number in range(steps):
        _step(state, number)
    return state


@cache
def _whole() -> bytes:
    return snapshots.encode(_after(len(STORY)))


def _restored(payload: bytes) -> State:
    state = State()
    snapshots.decode_into(state, payload, snapshots.read_head(payload))
    return state


@pytest.mark.parametrize("cut", range(1, len(STORY)))
def test_a_snapshot_and_the_tail_fold_to_the_bytes_that_everything_folds_to(cut: int) -> None:
    state = _restored(snapshots.encode_verified(_after(cut)))

    for number in range(cut, len(STORY)):
        _step(state, number)

    assert_same(state, _after(len(STORY)))
    assert snapshots.encode(state) == _whole()


def test_every_table_of_a_state_is_stored_or_follows_from_those_that_are() -> None:
    state = State()
    stored = {id(one.table(state)) for one in snapshots.TABLES}

    assert {path for path, table in tables(state).items() if table not in stored} == {
        "state.cluster.used",  # of live allocations
        "state.cluster.repelling",
        "state.cluster.ending",
        "state.queue.promised",  # of requests that wait
    }


def test_rows_can_be_changed_and_hashed_again_after_they_were_restored() -> None:
    state = _restored(_whole())

    for table in (state.cluster.nodes, state.cluster.allocations, state.queue.requests, state.quotas.used):
        for key, row in list(table.items()):
            table.put(key, row)  # pyright: ignore[reportArgumentType] its own row

    assert state.digests() == _after(len(STORY)).digests()


@pytest.mark.parametrize("place", [0, 8, 20, 73, 90, 400, 2_000, -2])
def test_one_wrong_byte_anywhere_makes_it_unusable(place: int) -> None:
    damaged = bytearray(_whole())
    damaged[place] ^= 1

    with pytest.raises(SnapshotUnusable):
        snapshots.read_head(bytes(damaged))


@pytest.mark.parametrize("length", [0, 8, 75, 500, -1])
def test_one_that_was_cut_off_is_unusable(length: int) -> None:
    with pytest.raises(SnapshotUnusable):
        snapshots.read_head(_whole()[:length])


def _rewritten(change: Callable[[bytes], bytes]) -> bytes:
    """Somebody wrote other bytes and their hash."""
    body = change(b"{" + _whole()[75:])
    return b'{"hash":"%s",' % snapshots.digest_of(body).encode() + body[1:]


def test_one_of_another_release_is_unusable() -> None:
    other = _rewritten(lambda body: body.replace(snapshots.schema().encode(), b"0" * 16))

    with pytest.raises(SnapshotUnusable, match="another release"):
        snapshots.read_head(other)


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        (b'"cpu_millicores":8000', b'"cpu_millicores":8001'),  # a row, whose hash says otherwise
        (b'"state":"placed"', b'"state":"gone"'),
        (b'"lines":["nodes",', b'"lines":["nodes","nodes",'),
        (b'"members":["raft-1"]', b'"members":7'),
    ],
)
def test_rows_that_are_not_what_the_head_says_are_refused_and_leave_no_trace(said: bytes, instead: bytes) -> None:
    assert said in _whole()
    wrong = _rewritten(lambda body: body.replace(said, instead, 1))
    state = State()

    with pytest.raises(SnapshotUnusable):
        snapshots.decode_into(state, wrong, snapshots.read_head(wrong))

    for number in range(len(STORY)):
        _step(state, number)
    assert_same(state, _after(len(STORY)))


@pytest.mark.parametrize("member", ["ended", "victims", "promise", "promised", "until", "how", "drain", "lost_at"])
def test_whoever_writes_one_that_forgets_something_notices(member: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = snapshots.plain

    def forgetful(value: object) -> object:
        found: Any = whole(value)
        if hasattr(found, "pop"):
            found.pop(member, None)
        return found

    monkeypatch.setattr(snapshots, "plain", forgetful)

    with pytest.raises((AssertionError, SnapshotUnusable)):
        snapshots.encode_verified(_after(len(STORY)))
