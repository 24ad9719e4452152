"""Quotas and cohorts as operators set them: one transaction for a whole document, refused with its path.

Lowering a limit or removing a quota kills nothing (R83); what is used stays counted, because every
allocation carries its own charge.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from berth.effects import Effect, Message, Reply
from berth.errors import Problem
from berth.ids import CohortName, Namespace, Sequence
from berth.messages.commands import (
    AdminAnswer,
    ApplyQuotas,
    ProposalAnswer,
    QuotaCommand,
    Refusal,
    RefusalCode,
    RemoveQuota,
    SettingChange,
    StopNamespace,
)
from berth.messages.documents import CohortDocument, Queueing, QuotaDocument, StopPolicy
from berth.messages.events import CohortRemoved, CohortSet, Event, QuotaRemoved, QuotaSet, Transaction
from berth.messages.requests import Capacity
from berth.model.entitlement import configuration_problems
from berth.model.ledger import State
from berth.model.quota import Cohort, Quota
from berth.resources import NOTHING
from berth_quota.bounds import Bounds
from berth_quota.differences import differences
from berth_quota.proposals import EVENT_BYTES, PASSING, Answered, Proposals


def quota_set(document: QuotaDocument, stopped: StopPolicy = StopPolicy.NONE) -> Event:
    """The event that states the whole document; `stopped`: what holds where it does not say."""
    return stated(quota_of(document, stopped=stopped))


def stated(quota: Quota) -> Event:
    """The event that brings `quota` about."""
    data = QuotaSet(
        hard=dict(quota.hard),
        soft=dict(quota.soft),
        cohort=quota.cohort,
        burst_percent=quota.burst_percent,
        grace_seconds=quota.grace_seconds,
        borrowing_limit=None if quota.borrowing_limit is None else dict(quota.borrowing_limit),
        lending_limit=None if quota.lending_limit is None else dict(quota.lending_limit),
        weight_permille=quota.weight_permille,
        reclaim=quota.reclaim,
        preemption=quota.preemption,
        queueing=None if quota.queueing is Queueing.BEST_EFFORT_FIFO else quota.queueing,
        usage_half_life_seconds=quota.usage_half_life_seconds,
        stop_policy=None if quota.stop_policy is StopPolicy.NONE else quota.stop_policy,
        min_run_seconds=quota.min_run_seconds,
        max_evictions=quota.max_evictions,
    )
    return Event(data, quota.namespace)


def cohort_set(document: CohortDocument) -> Event:
    """The event that states the whole document."""
    return Event(
        CohortSet(
            name=document.name,
            parent=document.parent,
            soft=document.soft.said(),
            borrowing_limit=_limit(document.borrowing_limit),
            lending_limit=_limit(document.lending_limit),
            weight_permille=document.weight_permille,
        )
    )


def _limit(amounts: Capacity | None) -> dict[str, int] | None:
    return None if amounts is None else amounts.said()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An operator's command, proposed until it is committed or refused. `give_up_at`: milliseconds UTC."""

    command: QuotaCommand
    number: int
    reply_to: str | None
    give_up_at: int
    traceparent: str | None

    @property
    def id(self) -> Hashable:
        return self.number

    @property
    def size(self) -> int:
        if not isinstance(self.command, ApplyQuotas):
            return 0
        return 2 * EVENT_BYTES * (len(self.command.quotas) + len(self.command.cohorts))

    def transaction(self, state: State, now_ms: int) -> Transaction | None:
        """What differs from the state; None when it is so already."""
        del now_ms
        return changes(state, self.command) or None


def refusal_of(state: State, command: QuotaCommand) -> Refusal | None:
    """Why the command makes no sense on this state; every problem with its path."""
    match command:
        case ApplyQuotas():
            problems = problems_of(state, command)
        case RemoveQuota():
            problems = _removal_problems(command)
        case StopNamespace():
            problems = []
    if problems:
        return Refusal(code=RefusalCode.INVALID, detail="\n".join(map(str, problems)))
    if isinstance(command, RemoveQuota) and not changes(state, command):
        what = f"no cohort {command.cohort}" if command.cohort else f"{command.namespace} has no quota"
        return Refusal(code=RefusalCode.NOT_FOUND, detail=what)
    return None


def _removal_problems(command: RemoveQuota) -> list[Problem]:
    if (command.namespace is None) == (command.cohort is None):
        return [Problem(path="namespace", expected="expected either a namespace or a cohort")]
    return []


def problems_of(state: State, command: ApplyQuotas) -> list[Problem]:
    """What the whole configuration would contradict itself in, with the paths of the document."""
    quotas: dict[Namespace, Quota] = dict(state.quotas.quotas)
    cohorts: dict[CohortName, Cohort] = dict(state.quotas.cohorts)
    paths: dict[str, str] = {}
    problems: list[Problem] = []
    for place, quota in enumerate(command.quotas):
        path = f"quotas[{place}]"
        if quota.namespace in paths:
            problems.append(Problem(path=path, expected=f"expected each once, found {quota.namespace!r} again"))
        paths[quota.namespace] = path
        quotas[quota.namespace] = quota_of(quota)
    named: dict[str, str] = {}
    for place, cohort in enumerate(command.cohorts):
        path = f"cohorts[{place}]"
        if cohort.name in named:
            problems.append(Problem(path=path, expected=f"expected each once, found {cohort.name!r} again"))
        named[cohort.name] = path
        cohorts[CohortName(cohort.name)] = cohort_of(cohort)
    return problems + configuration_problems(quotas, cohorts, quota_paths=paths, cohort_paths=named)


def changes(state: State, command: QuotaCommand) -> Transaction:
    """The events that bring the command about; () when nothing differs."""
    match command:
        case RemoveQuota():
            return _removed(state, command)
        case StopNamespace():
            return _stopped(state, command)
        case ApplyQuotas():
            events = [cohort_set(one) for one in command.cohorts if not _is_same_cohort(state, one)]
            events += [
                quota_set(one, stop_policy_of(state, one.namespace))
                for one in command.quotas
                if not _is_same_quota(state, one)
            ]
            return tuple(events)


def _differences(state: State, command: ApplyQuotas) -> tuple[SettingChange, ...]:
    """What applying it would change, cohorts first."""
    found: list[SettingChange] = []
    for cohort in command.cohorts:
        before = state.quotas.cohorts.get(CohortName(cohort.name))
        found += differences(f"cohorts.{cohort.name}", before, cohort_of(cohort))
    for quota in command.quotas:
        after = quota_of(quota, stopped=stop_policy_of(state, quota.namespace))
        found += differences(f"quotas.{quota.namespace}", state.quotas.quotas.get(quota.namespace), after)
    return tuple(found)


def stop_policy_of(state: State, namespace: Namespace) -> StopPolicy:
    quota = state.quotas.quotas.get(namespace)
    return StopPolicy.NONE if quota is None else quota.stop_policy


def _stopped(state: State, command: StopNamespace) -> Transaction:
    """The namespace's quota with another stop policy. A quota that says nothing else is removed when it is resumed."""
    namespace, policy = command.namespace, command.policy
    if stop_policy_of(state, namespace) is policy:
        return ()
    silent = quota_of(QuotaDocument(namespace=namespace))
    wanted = replace(state.quotas.quotas.get(namespace, silent), stop_policy=policy)
    if wanted == replace(silent, sequence=wanted.sequence):
        return (Event(QuotaRemoved(), namespace),)
    return (stated(wanted),)


def _removed(state: State, command: RemoveQuota) -> Transaction:
    if command.namespace is not None:
        known = command.namespace in state.quotas.quotas
        return (Event(QuotaRemoved(), command.namespace),) if known else ()
    name = CohortName(command.cohort or "")
    return (Event(CohortRemoved(name=name)),) if name in state.quotas.cohorts else ()


def _is_same_quota(state: State, document: QuotaDocument) -> bool:
    known = state.quotas.quotas.get(document.namespace)
    return known is not None and quota_of(document, known.sequence, stopped=known.stop_policy) == known


def _is_same_cohort(state: State, document: CohortDocument) -> bool:
    known = state.quotas.cohorts.get(CohortName(document.name))
    return known is not None and cohort_of(document, known.sequence) == known


def quota_of(
    document: QuotaDocument, sequence: Sequence = Sequence(0), *, stopped: StopPolicy = StopPolicy.NONE
) -> Quota:
    return Quota(
        namespace=document.namespace,
        hard=document.hard.said(),
        soft=document.soft.said(),
        burst_percent=document.burst_percent,
        grace_seconds=document.grace_seconds,
        cohort=CohortName(document.cohort) if document.cohort else None,
        borrowing_limit=_limit(document.borrowing_limit),
        lending_limit=_limit(document.lending_limit),
        weight_permille=document.weight_permille,
        reclaim=document.reclaim,
        preemption=document.preemption,
        queueing=document.queueing,
        usage_half_life_seconds=document.usage_half_life_seconds,
        stop_policy=document.stop_policy or stopped,
        min_run_seconds=document.min_run_seconds,
        max_evictions=document.max_evictions,
        sequence=sequence,
    )


def cohort_of(document: CohortDocument, sequence: Sequence = Sequence(0)) -> Cohort:
    return Cohort(
        name=CohortName(document.name),
        parent=CohortName(document.parent) if document.parent else None,
        soft=document.soft.said(),
        borrowing_limit=_limit(document.borrowing_limit),
        lending_limit=_limit(document.lending_limit),
        weight_permille=document.weight_permille,
        sequence=sequence,
    )


def done(state: State, command: QuotaCommand, sequence: Sequence) -> AdminAnswer:
    """What to say when it is committed at `sequence`."""
    if isinstance(command, ApplyQuotas):
        detail = f"{len(command.quotas)} quotas and {len(command.cohorts)} cohorts are set"
        return AdminAnswer(sequence=sequence, detail=detail)
    if isinstance(command, StopNamespace):
        return AdminAnswer(sequence=sequence, detail=f"{command.namespace}{_SPOKEN_POLICY[command.policy]}")
    if command.cohort is not None:
        detail = f"cohort {command.cohort} is removed; its members lend to each other still, without its limits"
        return AdminAnswer(sequence=sequence, detail=detail)
    assert command.namespace is not None
    used = state.quotas.used_by(command.namespace)
    stays = "" if used == NOTHING else f"; what it uses stays counted: {_spoken(dict(used.dimensions()))}"
    return AdminAnswer(sequence=sequence, detail=f"{command.namespace} is unlimited now{stays}")


_SPOKEN_POLICY = {
    StopPolicy.NONE: " places new work again",
    StopPolicy.HOLD: " places nothing new until it is resumed; what runs goes on",
    StopPolicy.HOLD_AND_DRAIN: " places nothing new until it is resumed; what runs leaves and is queued again",
}


def _spoken(amounts: dict[str, int]) -> str:
    return ", ".join(f"{amount} {dimension}" for dimension, amount in amounts.items())


class Administration:
    """Commands of operators. Whichever quota service receives one carries it out, active or not."""

    def __init__(self, state: State, bounds: Bounds, next_id: Callable[[], str]) -> None:
        self._state = state
        self._bounds = bounds
        self._next_id = next_id
        self._proposals = Proposals(bounds)
        self._open: dict[int, Change] = {}
        self._again: list[Change] = []
        self._again_at = 0
        self._number = 0

    def command(self, message: Message, now_ms: int) -> list[Effect]:
        """Refused, done already, or proposed: then it is answered after the commit."""
        command = message.body
        assert isinstance(command, ApplyQuotas | RemoveQuota | StopNamespace), "the caller matched the body"
        self._number += 1
        change = Change(
            command=command,
            number=self._number,
            reply_to=message.reply_to,
            give_up_at=now_ms + self._bounds.administration_ms,
            traceparent=message.traceparent,
        )
        if len(self._open) >= self._bounds.waiting_max:
            detail = f"{len(self._open)} changes wait; try again later"
            return _say(change, AdminAnswer(refusal=Refusal(code=RefusalCode.OVERLOADED, detail=detail)))
        return self._begin(change)

    def _begin(self, change: Change) -> list[Effect]:
        refusal = refusal_of(self._state, change.command)
        if refusal is not None:
            return self._end(change, AdminAnswer(refusal=refusal))
        if isinstance(change.command, ApplyQuotas) and change.command.dry_run:
            return self._end(
                change, AdminAnswer(detail="nothing is changed", changes=_differences(self._state, change.command))
            )
        if not changes(self._state, change.command):
            return self._end(change, AdminAnswer(detail="nothing to change: it is so already"))
        self._open[change.number] = change
        self._proposals.want(change)
        return []

    def answered(self, answer: ProposalAnswer, now_ms: int) -> list[Effect]:
        return self._landed(self._proposals.answered(answer), now_ms)

    def nobody(self, token: str, now_ms: int) -> list[Effect]:
        return self._landed(self._proposals.nobody(token), now_ms)

    def _landed(self, answers: list[Answered], now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        for answered in answers:
            change = answered.task
            assert isinstance(change, Change), "only changes are proposed here"
            refusal = answered.refusal
            if answered.sequence is not None:
                effects += self._end(change, done(self._state, change.command, answered.sequence))
            elif refusal is not None and refusal.code not in PASSING:
                effects += self._end(change, AdminAnswer(refusal=refusal))
            elif now_ms >= change.give_up_at:
                unknown = refusal or Refusal(
                    code=RefusalCode.UNKNOWN, detail="no leader answered; look, then try again"
                )
                effects += self._end(change, AdminAnswer(refusal=unknown))
            else:
                self._again.append(change)
                self._again_at = now_ms + self._bounds.backoff_ms
        return effects

    def drive(self, now_ms: int) -> list[Effect]:
        """Propose what is new, and again what nobody answered: it may have been committed meanwhile."""
        effects = self._landed(self._proposals.overdue(now_ms), now_ms)
        if self._again and self._again_at <= now_ms:
            again, self._again = self._again, []
            for change in again:
                if refusal_of(self._state, change.command) is None and not changes(self._state, change.command):
                    effects += self._end(change, done(self._state, change.command, self._state.sequence))
                else:
                    effects += self._begin(change)
        return [*effects, *self._proposals.collect(self._state, now_ms, self._next_id)]

    def _end(self, change: Change, answer: AdminAnswer) -> list[Effect]:
        self._open.pop(change.number, None)
        return _say(change, answer)

    def deadline(self) -> int | None:
        times = [self._proposals.deadline(), self._again_at if self._again else None]
        return min((time for time in times if time is not None), default=None)


def _say(change: Change, answer: AdminAnswer) -> list[Effect]:
    return [Reply(to=change.reply_to, body=answer)] if change.reply_to is not None else []
