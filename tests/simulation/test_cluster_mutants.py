"""Whether the cluster's seeds mean anything: services with one rule taken out, each of which must be found.

And one that must not be: what a scheduler assumes spares refusals, it is no part of the law.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from berth.effects import Acknowledge, Effect, Message
from berth.ids import Sequence, Term
from berth.messages.commands import Refusal
from berth.model.ledger import ChangeKey
from berth.wire import snapshots
from berth.wire.codec import OfferedTransaction
from berth.wire.snapshots import SnapshotUnusable
from berth_quota.service import QuotaService
from berth_quota.waitlist import Waitlist
from berth_raft.commit import Committer
from berth_raft.leadership import Leadership, Stored
from berth_scheduler.assumed import Assumptions
from tests.simulation.cluster_world import SERVICES
from tests.simulation.test_cluster import storm

SEEDS_ENOUGH = 12


def first_violation(services: Mapping[str, type] | None = None) -> str | None:
    """What the first seed that finds something says."""
    for seed in range(SEEDS_ENOUGH):
        try:
            storm(seed, services={**SERVICES, **(services or {})})
        except (AssertionError, TimeoutError, SnapshotUnusable) as found:
            return repr(found)
    return None


class AcknowledgesBeforeTheOutcome(QuotaService):
    """What it had in hand when it was killed does not come again."""

    def handle(self, message: Message, now_ms: int) -> list[Effect]:
        effects = super().handle(message, now_ms)
        return effects if message.delivery is None else [*effects, Acknowledge(delivery=message.delivery)]


@pytest.mark.slow
def test_quota_that_acknowledges_before_the_outcome_is_found() -> None:
    mutants = {"quota-1": AcknowledgesBeforeTheOutcome, "quota-2": AcknowledgesBeforeTheOutcome}

    assert first_violation(mutants) is not None


class WakesNobody(Waitlist):
    """Takes no notice of what changed."""

    def changed(self, conditions: Iterable[ChangeKey]) -> None:
        del conditions


@pytest.mark.slow
def test_quota_that_wakes_nobody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berth_quota.evaluations.Waitlist", WakesNobody)

    found = first_violation()

    assert found is not None and "there is a place" in found


class AcceptsEverything(Committer):
    """Trusts the proposers' views."""

    def _outcome(self, transaction: OfferedTransaction, at: int, sequence: Sequence) -> Refusal | None:
        refusal = super()._outcome(transaction, at, sequence)
        if refusal is None:
            return None
        try:
            self.state.fold_transaction(transaction.events, at=at, sequence=sequence)
        except (AssertionError, LookupError):
            return refusal
        return None


@pytest.mark.slow
def test_a_leader_that_does_not_check_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berth_raft.leadership.Committer", AcceptsEverything)

    assert first_violation() is not None


class AnswersBeforeTheAppend(Leadership):
    """Says yes to what may never be stored."""

    async def _store(self, payload: bytes, expected: Sequence, term: Term) -> Stored:
        flush = self._committer.in_flight if self._committer is not None else None
        for answer in flush.answers if flush is not None else ():
            self._answer(answer)
        return await super()._store(payload, expected, term)


@pytest.mark.slow
def test_a_leader_that_answers_before_the_append_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berth_raft.process.Leadership", AnswersBeforeTheAppend)

    assert first_violation() is not None


def forgets(member: str) -> Callable[[Any], Any]:
    """What a snapshot is written with, but without one member of whatever has it."""
    whole = snapshots.plain

    def plain(value: Any) -> Any:
        found = whole(value)
        if hasattr(found, "pop"):
            found.pop(member, None)
        return found

    return plain


@pytest.mark.slow
def test_a_snapshot_that_forgets_why_requests_ended_is_found_by_whoever_wrote_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("berth.wire.snapshots.plain", forgets("ended"))

    found = first_violation()

    assert found is not None and "snapshot" in found


@pytest.mark.slow
@pytest.mark.parametrize("member", ["ended", "until"])
def test_a_snapshot_that_forgets_something_is_found_where_it_was_used(
    member: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("berth.wire.snapshots.plain", forgets(member))
    monkeypatch.setattr("berth.wire.snapshots.encode_verified", snapshots.encode)

    assert first_violation() is not None


class AssumesNothing(Assumptions):
    """Sees only what is committed, so siblings of one batch are offered the same room."""

    def add(self, *_: object, **__: object) -> None:
        return


@pytest.mark.slow
def test_a_scheduler_that_assumes_nothing_only_loses_races(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berth_scheduler.service.Assumptions", AssumesNothing)

    for seed in range(3):
        storm(seed)
