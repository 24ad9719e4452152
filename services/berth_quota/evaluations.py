"""The way of a request from its arrival to a scheduler, and back when it has no place.

What must live here: who is undecided, who is in flight, what a scheduler's answer means. What must not:
deliveries, decisions, releases. Times are milliseconds UTC.
"""

import heapq
from collections.abc import Callable

from berth import subjects
from berth.effects import Ask
from berth.ids import Attempt, RequestKey, Sequence
from berth.messages.commands import (
    Evaluation,
    EvaluationItem,
    EvaluationOutcome,
    RefusalCode,
    StartOffer,
    Verdict,
)
from berth.messages.envelope import Record
from berth.messages.events import RequestStatus, Wake, WakeOn
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from berth.model.ledger import State
from berth.model.queue import RequestState
from berth_quota.admission import Admit, Queue, Reject, Ruling, evicting_wakes_on, same_reasons
from berth_quota.bounds import Bounds
from berth_quota.growth import wants_more
from berth_quota.inflight import InFlight, Sent
from berth_quota.lanes import Lane, Waiting
from berth_quota.promises import Promises, renewed, wake_of
from berth_quota.proposals import PASSING, UNMOVED_BY_NEWS, Answered, Proposals
from berth_quota.tasks import Ruled
from berth_quota.transactions import is_current
from berth_quota.turns import Turns
from berth_quota.waitlist import Waitlist
from berth_quota.wakeups import is_due

ITEM_BYTES = 400
"""What an item of an evaluation takes beside the request's body, generously."""
ANYTHING = (Wake(on=WakeOn.CAPACITY), Wake(on=WakeOn.NODES))

TO_QUOTA = frozenset({RefusalCode.QUOTA, RefusalCode.CLASS})
FOR_GOOD = frozenset({RefusalCode.TOO_LARGE, RefusalCode.INVALID})


class Evaluations:
    """`undecided`: arrivals that the ledger does not know yet, by request; each is in exactly one place.

    `moved`: those of them that are over, since the state has moved on from their `if_sequence`.
    """

    def __init__(
        self,
        state: State,
        bounds: Bounds,
        proposals: Proposals,
        *,
        next_id: Callable[[], str],
        shape_of: Callable[[Request], bytes],
    ) -> None:
        self._state = state
        self._bounds = bounds
        self._proposals = proposals
        self._next_id = next_id
        self._in_flight = InFlight()
        self.waitlist = Waitlist(state, self._in_flight.assumed, bounds, shape_of)
        self.promises = Promises(state, bounds.promises_max)
        self.undecided: dict[RequestKey, Waiting] = {}
        self.moved: list[Waiting] = []
        self._later: list[tuple[int, int, bool, Lane, Waiting]] = []
        self._again: list[Sent] = []
        self._turns = Turns(bounds, self._is_awaited)
        self._silences = 0
        self._serial = 0
        self._placed_at = Sequence(0)

    def __len__(self) -> int:
        """How many are in flight."""
        return len(self._in_flight)

    # --- in -------------------------------------------------------------------------------------------

    def submit(self, request: Request, digest: str, traceparent: str | None) -> None:
        """A request that neither the ledger nor this process knows."""
        key = request.key
        assert key not in self.undecided, f"I8: {key} arrives twice"
        waiting = Waiting(
            key=key,
            request=request,
            digest=digest,
            attempt=Attempt(1),
            age=(0, 0),
            size=0,
            is_new=True,
            traceparent=traceparent,
        )
        self.undecided[key] = waiting
        self.waitlist.arrive(waiting)

    def decided(self, known: RequestState) -> Waiting | None:
        """The ledger decided about a request; answers who was undecided under its id."""
        sent = self._in_flight.find(known.key)
        if sent is not None and sent.waiting.attempt < known.attempt:
            placed = known.status is RequestStatus.PLACED and not sent.is_accepted
            self._land(sent, failed=False if placed else None)
        self.promises.note(known)
        if known.status is RequestStatus.PLACED:
            self.waitlist.sweep.placed(known.key)
        waiting = self.undecided.pop(known.key, None)
        if waiting is not None:
            self.waitlist.decided(waiting)
        if known.status is RequestStatus.QUEUED:
            self.waitlist.queue(known)
        elif wants_more(self._state, known):
            self.waitlist.grow(known)
        else:
            self.waitlist.unqueue(known.key)
        return waiting

    def news(self, record: Record, now_ms: int, *, room: bool) -> None:
        """The state moved on: who came back because our view was old is judged again, and whose promise is concerned.

        `room`: something came free.
        """
        for key in [*self.promises.broken(record, now_ms), *(self.promises.overdue() if room else ())]:
            self._look_again(key)
        self.waitlist.sweep.news()
        if any(on_news for _, _, on_news, _, _ in self._later):
            back = [entry for entry in self._later if entry[2]]
            self._later = [entry for entry in self._later if not entry[2]]
            heapq.heapify(self._later)
            for _, _, _, lane, waiting in back:
                self._come_back(lane, waiting)

    def _look_again(self, key: RequestKey) -> None:
        """Something concerns this queued request alone: it is driven, whatever it was last judged on."""
        waiting = self.waitlist.find(key)
        if waiting is not None:
            waiting.judged_at = Sequence(0)
            self.waitlist.judged(waiting)

    def clear(self) -> None:
        """This process is not the active one any more."""
        self._in_flight.clear()
        self.undecided.clear()
        self.moved.clear()
        self._later.clear()
        self._again.clear()
        self._turns.clear()
        self.waitlist.forget_arrivals()

    # --- what schedulers say ----------------------------------------------------------------------------

    def answered(self, outcome: EvaluationOutcome, now_ms: int) -> None:
        """What became of one request; an answer to an earlier attempt says nothing."""
        self._silences = 0
        sent = self._in_flight.find(outcome.key)
        if sent is None or sent.waiting.attempt != outcome.attempt:
            return
        lane, waiting = sent.lane, sent.waiting
        match outcome.verdict:
            case Verdict.ACCEPTED:
                self._placed_at = max(self._placed_at, outcome.sequence or Sequence(0))
                if not sent.is_accepted:
                    sent.is_accepted = True
                    self.waitlist.count(lane, waiting, failed=False)
            case Verdict.UNPLACEABLE:
                reasons = outcome.reasons or (Reason(code=ReasonCode.INFEASIBLE),)
                judged_at = self._state.sequence if outcome.evaluated_at is None else outcome.evaluated_at
                wake = evicting_wakes_on(self._state, waiting.request, outcome.wake or ANYTHING)
                self._no_place(lane, waiting, reasons, wake, judged_at, now_ms, outcome.earliest_start)
                self._land(sent, failed=True)
            case Verdict.CONTENDED:
                waiting.alone, sent.asked = True, ""
                self._again.append(sent)
            case Verdict.UNAVAILABLE:
                self._unavailable(sent, outcome, now_ms)
            case Verdict.SUPERSEDED:
                self._land(sent, failed=None)
                self._judge_later(lane, waiting, now_ms + self._bounds.evaluation_ms)
            case Verdict.REFUSED:
                self._land(sent, failed=None)
                self._refused(sent, outcome, now_ms)

    def _unavailable(self, sent: Sent, outcome: EvaluationOutcome, now_ms: int) -> None:
        """Sent again after a pause. Where a scheduler failed, alone: the others of its message must not suffer
        from it; and after some failures it rests, so that nobody waits for what it would use.
        """
        waiting = sent.waiting
        if outcome.refusal is not None and outcome.refusal.code is RefusalCode.INTERNAL:
            waiting.failed += waiting.alone
            waiting.alone = True
        if waiting.failed < self._bounds.failed_max:
            self._in_flight.asked(self._next_id(), [sent], again_at=now_ms + self._pause())
        else:
            waiting.failed = 0
            self._land(sent, failed=None)
            self._judge_later(sent.lane, waiting, now_ms + self._bounds.rest_ms)

    def _refused(self, sent: Sent, outcome: EvaluationOutcome, now_ms: int) -> None:
        """For quota or class: judge it on the newest state. Where no state will change it: reject it."""
        code = outcome.refusal.code if outcome.refusal is not None else RefusalCode.UNKNOWN
        if code in FOR_GOOD:
            detail = outcome.refusal.detail if outcome.refusal is not None else None
            self._reject(sent.lane, sent.waiting, (Reason(code=ReasonCode.INVALID, detail=detail),))
        elif code is RefusalCode.CONFLICT and sent.waiting.request.if_sequence is not None:
            self._moved(sent.waiting)
        elif code not in TO_QUOTA:
            self._judge_later(sent.lane, sent.waiting, now_ms + self._bounds.evaluation_ms)
        elif self._state.sequence > sent.seen:
            self._come_back(sent.lane, sent.waiting)
        else:
            self._judge_later(sent.lane, sent.waiting, now_ms + self._bounds.backoff_ms, on_news=True)

    def _moved(self, waiting: Waiting) -> None:
        """The leader would not open it: it was to be decided on an older state, or not at all."""
        if self.undecided.pop(waiting.key, None) is waiting:
            self.waitlist.decided(waiting)
            self.moved.append(waiting)

    def nobody(self, evaluation: str, now_ms: int) -> None:
        """No scheduler is there: send it again, more and more seldom, with the same attempts."""
        if self._in_flight.is_asked(evaluation):
            self._in_flight.expire(evaluation, at=now_ms + self._pause())

    def _pause(self) -> int:
        pause = min(self._bounds.backoff_ms << min(self._silences, 10), self._bounds.evaluation_ms)
        self._silences += 1
        return pause

    def ruled(self, answered: Answered, task: Ruled, now_ms: int) -> None:
        """The leader's answer to a queueing or a rejection. Whoever is not decided by it is judged anew."""
        if answered.sequence is not None or task.waiting.is_gone:
            return
        refusal = answered.refusal
        moved_on = self._state.sequence > answered.view
        is_conditional = task.waiting.is_new and task.waiting.request.if_sequence is not None
        if refusal is not None and refusal.code is RefusalCode.CONFLICT and is_conditional:
            self._moved(task.waiting)
        elif refusal is None or (moved_on and refusal.code not in UNMOVED_BY_NEWS):
            self._come_back(task.lane, task.waiting)
        else:
            wait_ms = self._bounds.backoff_ms if refusal.code in PASSING else self._bounds.evaluation_ms
            self._judge_later(task.lane, task.waiting, now_ms + wait_ms)

    # --- out --------------------------------------------------------------------------------------------

    def drive(self, now_ms: int) -> list[Ask]:
        """Everything that may be evaluated now, in order, in as few messages as it fits."""
        while self._later and self._later[0][0] <= now_ms:
            _, _, _, lane, waiting = heapq.heappop(self._later)
            self._come_back(lane, waiting)
        for key in self.promises.come_due(now_ms):
            self._look_again(key)
        leaving = [sent for sent in self._again if self._in_flight.find(sent.key) is sent]
        self._again.clear()
        leaving += self._in_flight.overdue(now_ms)
        admitted: list[Sent] = []

        def rule(lane: Lane, waiting: Waiting, ruling: Ruling) -> None:
            match ruling:
                case Admit(amount=amount, grant=grant):
                    seen = self._state.sequence
                    sent = Sent(lane=lane, waiting=waiting, amount=amount, seen=seen, grant=grant)
                    self._in_flight.add(sent)
                    self.waitlist.sent(lane, waiting)
                    admitted.append(sent)
                case Queue(reasons=reasons, wake=wake):
                    self._no_place(lane, waiting, reasons, wake, self._state.sequence, now_ms)
                    self.waitlist.count(lane, waiting, failed=True)
                case Reject(reasons=reasons):
                    self._reject(lane, waiting, reasons)
                case _:
                    raise AssertionError("who waits for what is in flight is not ruled on")

        room = min(self._bounds.in_flight_max - len(self._in_flight), self._bounds.evaluation_items_max)
        if not self._turns.is_open(now_ms):
            self.waitlist.drive(rule, lambda: room - len(admitted), now_ms)
        if admitted:
            self._turns.begin(admitted, now_ms)
        return self._asks([*leaving, *admitted], now_ms)

    def _is_awaited(self, sent: Sent) -> bool:
        """Without an answer, and not on its way alone."""
        return self._in_flight.find(sent.key) is sent and not sent.is_accepted and not sent.waiting.alone

    def _no_place(
        self,
        lane: Lane,
        waiting: Waiting,
        reasons: tuple[Reason, ...],
        wake: tuple[Wake, ...],
        judged_at: Sequence,
        now_ms: int,
        offer: StartOffer | None = None,
    ) -> None:
        """It is queued; one that is queued already for the same reasons, or that runs, is only remembered as judged,
        unless something would wake it that the ledger does not name. A sweep that nothing woke writes nothing: what
        was said is true still.
        """
        if not waiting.is_new:
            said = lane.is_swept and not is_due(self._state, waiting)
            waiting.judged_at = max(waiting.judged_at, judged_at)
            self.waitlist.judged(waiting)
            known = self._state.queue.requests.get(waiting.key)
            if known is None or known.status is not RequestStatus.QUEUED:
                return
            told = wake_of(waiting.request, wake, is_promised=known.promise is not None)
            is_known = same_reasons(known.reasons, reasons) and all(one in known.wake for one in told)
            if (said or is_known) and renewed(self._state, waiting.key, offer, now_ms) is None:
                return
        ruled = Ruled(waiting=waiting, lane=lane, reasons=reasons, wake=wake, evaluated_at=judged_at, offer=offer)
        self._proposals.want(ruled)

    def _reject(self, lane: Lane, waiting: Waiting, reasons: tuple[Reason, ...]) -> None:
        """A queued request of which something still runs goes on waiting: only what runs nowhere is rejected."""
        known = self._state.queue.requests.get(waiting.key)
        if known is not None and known.live:
            waiting.judged_at = self._state.sequence
            return
        self._proposals.want(Ruled(waiting=waiting, lane=lane, reasons=reasons))

    def _land(self, sent: Sent, *, failed: bool | None) -> None:
        """It is in flight no longer."""
        self._in_flight.drop(sent)
        self.waitlist.answered(sent.lane, sent.waiting, failed=failed)
        self.waitlist.unpark(sent.key[0])

    def _come_back(self, lane: Lane, waiting: Waiting) -> None:
        """Unless it is decided, or was driven again meanwhile: then its new evaluation says what becomes of it."""
        if not waiting.is_gone and not waiting.in_flight and is_current(self._state, waiting):
            self.waitlist.come_back(lane, waiting)

    def _judge_later(self, lane: Lane, waiting: Waiting, due: int, *, on_news: bool = False) -> None:
        self._serial += 1
        heapq.heappush(self._later, (due, self._serial, on_news, lane, waiting))

    def _asks(self, leaving: list[Sent], now_ms: int) -> list[Ask]:
        asks = [self._ask([sent], now_ms) for sent in leaving if sent.waiting.alone]
        together: list[Sent] = []
        size = 0
        for sent in leaving:
            if sent.waiting.alone:
                continue
            more = sent.waiting.size + ITEM_BYTES
            full = len(together) == self._bounds.evaluation_items_max
            if together and (full or size + more > self._bounds.message_bytes_max):
                asks.append(self._ask(together, now_ms))
                together, size = [], 0
            together.append(sent)
            size += more
        return [*asks, self._ask(together, now_ms)] if together else asks

    def _ask(self, entries: list[Sent], now_ms: int) -> Ask:
        name = self._next_id()
        self._in_flight.asked(name, entries, again_at=now_ms + self._bounds.evaluation_ms)
        evaluation = Evaluation(id=name, items=tuple(self._item(sent) for sent in entries))
        return Ask(subject=subjects.EVALUATE, body=evaluation, token=name, tokens={})

    def _item(self, sent: Sent) -> EvaluationItem:
        waiting = sent.waiting
        return EvaluationItem.model_construct(
            request=waiting.request,
            digest=waiting.digest,
            attempt=waiting.attempt,
            missing=self.waitlist.missing(waiting),
            wants_promise=self.promises.are_wanted(waiting.request),
            view=max(sent.seen, self._placed_at),
            alone=waiting.alone,
            grant=sent.grant,
            traceparent=waiting.traceparent,
        )

    def deadline(self) -> int | None:
        """When an evaluation runs out of time, or somebody is judged again, or may go."""
        later = self._later[0][0] if self._later else None
        next_turn = self._turns.deadline()
        may_go = self.waitlist.deadline() if next_turn is None else next_turn
        times = (later, self._in_flight.deadline(), may_go, self.promises.deadline())
        return min((time for time in times if time is not None), default=None)
