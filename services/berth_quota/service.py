"""The quota service: requests and releases in; evaluations, proposals and decisions out.

Deliveries make it active, a lost pin makes it passive; a passive one folds, and nudges when something
should be driven (DESIGN section 2, "Active quota service"). What is undecided lives in `Evaluations`, what
is to be committed in `Proposals`; here each message finds its way and each outcome its decision.
"""

from collections import deque

from berth import subjects
from berth.effects import Acknowledge, Effect, Identity, Message, Note, PinLost, Publish
from berth.ids import Namespace, RequestKey, Sequence
from berth.messages.commands import (
    ApplyQuotas,
    EvaluationAnswer,
    NoResponders,
    ProposalAnswer,
    Query,
    RefusalCode,
    ReleaseBatch,
    RemoveQuota,
    RequestBatch,
    StopNamespace,
)
from berth.messages.envelope import Record
from berth.messages.events import WakeOn
from berth.messages.requests import Request
from berth.model.charging import usage_drift
from berth.model.entitlement import is_stopped
from berth.model.ledger import ChangeKey, State
from berth.model.queue import RequestState
from berth.wire.codec import request_digest, request_shape
from berth_quota.administration import Administration
from berth_quota.bounds import USUAL, Bounds
from berth_quota.deliveries import RELEASE, Deliveries, Matter
from berth_quota.evaluations import Evaluations
from berth_quota.growth import wants_more
from berth_quota.nudges import Nudges
from berth_quota.proposals import Answered, Proposals
from berth_quota.questions import Questions
from berth_quota.records import limited, named
from berth_quota.tasks import Release, Ruled, drains
from berth_quota.telling import conflict, outcome
from berth_quota.timers import Timers
from berth_quota.transactions import is_released

CAPACITY: ChangeKey = (WakeOn.CAPACITY, "")


class QuotaService:
    """`replay`, then `started`, then messages and records; see `berth.effects.Service`."""

    role = subjects.QUOTA
    subscriptions = (subjects.REQUEST, subjects.RELEASE, subjects.ADMIN_QUOTA, subjects.QUERY)

    def __init__(self, identity: Identity, bounds: Bounds = USUAL) -> None:
        self.state = State()
        self.is_active = False
        self._bounds = bounds
        self._identity = identity
        self._ids = 0
        self._changes = self.state.changed.changes()
        self._proposals = Proposals(self._bounds)
        self._evaluations = Evaluations(
            self.state, self._bounds, self._proposals, next_id=self._next_id, shape_of=request_shape
        )
        self._deliveries = Deliveries()
        self._timers = Timers(self.state, self._bounds)
        self._administration = Administration(self.state, self._bounds, self._next_id)
        self._questions = Questions(self.state, self._bounds)
        self._nudges = Nudges(self._bounds, identity.boot)
        self._releases: dict[RequestKey, str | None] = {}
        self._others: dict[RequestKey, dict[str, tuple[Request, str | None]]] = {}
        self._notices: deque[RequestKey] = deque()

    @property
    def sequence(self) -> Sequence:
        return self.state.sequence

    @property
    def unsettled(self) -> int:
        """Messages held, requests undecided or in flight, proposals on their way: 0 at rest."""
        undecided = len(self._evaluations.undecided) + len(self._evaluations)
        return len(self._deliveries) + undecided + len(self._proposals)

    @property
    def wakeups_missed(self) -> int:
        """How many waited who should have been woken, as far as the sweep found them: 0, or there is a bug."""
        return self._evaluations.waitlist.sweep.missed

    def _next_id(self) -> str:
        self._ids += 1
        return self._identity.token(self._ids)

    # --- the ledger -------------------------------------------------------------------------------------

    def replay(self, record: Record) -> None:
        self.state.fold(record)

    def started(self, now_ms: int) -> list[Effect]:
        """Find what waits; whoever is active then drives it."""
        del now_ms
        self._changes.clear()
        for key in self.state.queue.waiting:
            self._evaluations.waitlist.queue(self.state.queue.requests[key])
        for known in self.state.queue.requests.values():
            if wants_more(self.state, known):
                self._evaluations.waitlist.grow(known)
        self._timers.load()
        self._evaluations.promises.load()
        if len(self._evaluations.waitlist):
            self._nudges.want_once()
        drift = usage_drift(self.state)
        return [Note(name="usage_drifted", fields={"by_namespace": drift})] if drift else []

    def fold(self, record: Record, now_ms: int) -> list[Effect]:
        self.state.fold(record)
        waitlist = self._evaluations.waitlist
        waitlist.changed(self._changes)
        room = CAPACITY in self._changes
        self._changes.clear()
        effects: list[Effect] = []
        for key, (traceparent, leaves) in named(record).items():
            known = self.state.queue.requests.get(key)
            if known is not None:  # else it was forgotten in the same record
                effects += self._decided(known, traceparent, leaves=leaves)
        for namespace in limited(record):
            if is_stopped(self.state, namespace):
                self._stopped(namespace)
        self._evaluations.news(record, now_ms, room=room)
        effects += [_missed(key) for key in self._evaluations.waitlist.sweep.take_found()]
        if record.elected is not None:
            self._proposals.leader_elected(now_ms)
        if not self.is_active and waitlist.wants_drive:
            waitlist.ignore_news()
            self._nudges.want(self.state.sequence)
        return effects + self._questions.answered(now_ms)

    def _stopped(self, namespace: Namespace) -> None:
        """All of it is judged anew, so that what waits says why; drained, what runs of it leaves."""
        if self.is_active:
            self._evaluations.waitlist.wake_namespace(namespace)
            for task in drains(self.state, namespace):
                self._proposals.want(task)
        else:
            self._nudges.want(self.state.sequence)

    def _decided(self, known: RequestState, traceparent: str | None, *, leaves: bool) -> list[Effect]:
        """The ledger has an outcome: tell it, and acknowledge what waited for it."""
        self._timers.note(known, leaves=leaves)
        waiting = self._evaluations.decided(known)
        if not self.is_active:
            return []
        effects: list[Effect] = [self._notice(known.key, traceparent)]
        effects += self._deliveries.settle((known.key, known.digest))
        others = self._others.pop(known.key, {})
        if waiting is not None and waiting.digest != known.digest:
            others[waiting.digest] = (waiting.request, waiting.traceparent)
        for digest, (request, context) in others.items():
            if digest != known.digest:
                effects.append(conflict(request, digest, context))
            effects += self._deliveries.settle((known.key, digest))
        return effects + self._released(known.key)

    def _notice(self, key: RequestKey, traceparent: str | None) -> Publish:
        return outcome(self.state, key, traceparent)

    # --- messages ---------------------------------------------------------------------------------------

    def handle(self, message: Message, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        self._arrived(message, now_ms)
        match message.body:
            case None:
                effects += [Acknowledge(delivery=message.delivery)] if message.delivery is not None else []
            case PinLost():
                self._resign()
            case RequestBatch() as batch:
                effects += self._requests(message, batch, now_ms)
            case ReleaseBatch() as batch:
                effects += self._releases_of(message, batch, now_ms)
            case EvaluationAnswer(outcomes=outcomes):
                for outcome in outcomes:
                    self._evaluations.answered(outcome, now_ms)
            case ProposalAnswer() as answer:
                effects += self._landed(self._proposals.answered(answer), now_ms)
                effects += self._administration.answered(answer, now_ms)
            case NoResponders(token=token):
                self._evaluations.nobody(token, now_ms)
                effects += self._landed(self._proposals.nobody(token), now_ms)
                effects += self._administration.nobody(token, now_ms)
            case ApplyQuotas() | RemoveQuota() | StopNamespace():
                effects += self._administration.command(message, now_ms)
            case Query():
                effects += self._questions.asked(message, now_ms)
            case other:
                raise TypeError(f"no quota service takes {type(other).__name__}")
        return effects

    def _arrived(self, message: Message, now_ms: int) -> None:
        """Whoever is handed a message of the work queue is the active one."""
        if message.delivery is not None:
            if not self.is_active:
                self._activate()
            self._deliveries.arrived(message.delivery, now_ms)

    def _requests(self, message: Message, batch: RequestBatch, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        pending: list[Matter] = []
        for index, request in enumerate(batch.requests):
            digest, context = request_digest(request), message.traceparent_of(index)
            known = self.state.queue.requests.get(request.key)
            if known is None:
                self._undecided(request, digest, context)
                pending.append((request.key, digest))
            elif known.digest == digest:
                effects.append(self._notice(request.key, context))
            else:
                effects.append(conflict(request, digest, context))
        return effects + self._hold(message, pending, now_ms)

    def _undecided(self, request: Request, digest: str, traceparent: str | None) -> None:
        """A second body waits while the first is in flight: nobody knows yet which one the ledger will have."""
        first = self._evaluations.undecided.get(request.key)
        if first is None:
            self._evaluations.submit(request, digest, traceparent)
        elif first.digest != digest:
            self._others.setdefault(request.key, {})[digest] = (request, traceparent)

    def _moved(self) -> list[Effect]:
        """Whose `if_sequence` the leader found to hold no more: answered, and nothing is stored."""
        effects: list[Effect] = []
        for waiting in self._evaluations.moved:
            effects.append(conflict(waiting.request, waiting.digest, waiting.traceparent))
            effects += self._deliveries.settle((waiting.key, waiting.digest))
            for digest, (request, context) in self._others.pop(waiting.key, {}).items():
                self._undecided(request, digest, context)
        self._evaluations.moved.clear()
        return effects

    def _releases_of(self, message: Message, batch: ReleaseBatch, now_ms: int) -> list[Effect]:
        pending: list[Matter] = []
        for request in batch.requests:
            key = (batch.namespace, request)
            if key in self._evaluations.undecided or not is_released(self.state, key):
                self._releases[key] = message.traceparent
                pending.append((key, RELEASE))
                self._release(key)
        return self._hold(message, pending, now_ms)

    def _hold(self, message: Message, pending: list[Matter], now_ms: int) -> list[Effect]:
        """Acknowledged when nothing of the message is open any more."""
        if message.delivery is None:
            return []
        if not pending:
            return [Acknowledge(delivery=message.delivery)]
        self._deliveries.hold(message.delivery, pending, now_ms)
        return []

    def _release(self, key: RequestKey, *, not_before: int = 0) -> None:
        """Unless it is still on its way to its outcome: then after that."""
        if key not in self._evaluations.undecided:
            known = self.state.queue.requests.get(key)
            instances = len(known.live) if known is not None else 0
            release = Release(key=key, instances=instances, traceparent=self._releases[key])
            self._proposals.want(release, not_before=not_before)

    def _released(self, key: RequestKey) -> list[Acknowledge]:
        """Whoever wanted it released has it now, or it is proposed again on the newer state."""
        if key not in self._releases:
            return []
        if not is_released(self.state, key):
            self._release(key)
            return []
        del self._releases[key]
        return self._deliveries.settle((key, RELEASE))

    def _unknown(self, key: RequestKey, now_ms: int) -> list[Acknowledge]:
        """The leader does not know what is to be released. Its request may have been handed to another process,
        and come again.
        """
        if key not in self._releases or key in self._evaluations.undecided:
            return []
        if now_ms < self._deliveries.complete_at:
            self._release(key, not_before=self._deliveries.complete_at)
            return []
        del self._releases[key]
        return self._deliveries.settle((key, RELEASE))

    def _landed(self, answers: list[Answered], now_ms: int) -> list[Acknowledge]:
        """Accepted: the fold will show it. Anything else: again, on the newest state."""
        effects: list[Acknowledge] = []
        for answered in answers:
            match answered.task:
                case Ruled() as task:
                    self._evaluations.ruled(answered, task, now_ms)
                case Release(key=key) if _says_unknown(answered) and key not in self.state.queue.requests:
                    effects += self._unknown(key, now_ms)
                case _ if answered.sequence is None:
                    self._proposals.want_again(answered, now_ms)
                case _:
                    pass
        return effects

    # --- active and passive -------------------------------------------------------------------------------

    def _activate(self) -> None:
        """Take over: drive every queued request once, in order, and say again what was decided lately."""
        self.is_active = True
        self._nudges.forget()
        self._timers.load()
        self._evaluations.promises.load()
        self._evaluations.waitlist.wake_everybody()
        for namespace in self.state.quotas.quotas:
            for task in drains(self.state, namespace):
                self._proposals.want(task)
        since = self.state.at - self._bounds.notice_ms
        self._notices.extend(key for key, known in self.state.queue.requests.items() if known.decided_at >= since)

    def _resign(self) -> None:
        """Another one is active: what was not acknowledged is delivered to it."""
        self.is_active = False
        self._evaluations.clear()
        self._proposals.clear()
        self._deliveries.clear()
        self._releases.clear()
        self._others.clear()
        self._notices.clear()

    def settle(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        if self.is_active:
            effects += self._drive(now_ms)
        else:
            if self._timers.is_late(now_ms) or self._evaluations.promises.come_due(now_ms - self._bounds.nudge_ms):
                self._nudges.want_once()
            effects += self._nudges.due(now_ms)
        effects += self._administration.drive(now_ms)
        return effects + self._questions.answered(now_ms)

    def _drive(self, now_ms: int) -> list[Effect]:
        for task in self._timers.due(now_ms):
            self._proposals.want(task)
        for key in self._timers.looking(now_ms):
            self._evaluations.waitlist.look_again(key)
        effects: list[Effect] = [*self._landed(self._proposals.overdue(now_ms), now_ms)]
        effects += self._moved()
        asks = self._evaluations.drive(now_ms)
        effects += [*self._proposals.collect(self.state, now_ms, self._next_id), *asks]
        for _ in range(min(len(self._notices), self._bounds.notices_max)):
            key = self._notices.popleft()
            if key in self.state.queue.requests:
                effects.append(self._notice(key, None))
        return effects + self._deliveries.in_progress(now_ms, self._bounds.in_progress_ms)

    def deadline(self) -> int | None:
        times = [self._administration.deadline(), self._questions.deadline()]
        timer = self._timers.deadline()
        start = self._evaluations.promises.deadline()
        if self.is_active:
            times += [
                self._evaluations.deadline(),
                self._proposals.deadline(),
                self._deliveries.deadline(self._bounds.in_progress_ms),
                timer,
                0 if self._notices else None,
            ]
        else:
            late = [time + self._bounds.nudge_ms for time in (timer, start) if time is not None]
            times += [self._nudges.deadline(), *late]
        return min((time for time in times if time is not None), default=None)


def _missed(key: RequestKey) -> Note:
    return Note(name="wakeup_missed", fields={"namespace": key[0], "request": key[1]})


def _says_unknown(answered: Answered) -> bool:
    return answered.refusal is not None and answered.refusal.code is RefusalCode.NOT_FOUND
