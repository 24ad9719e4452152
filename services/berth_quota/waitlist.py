"""Everything that waits in this process, in one order: new arrivals, and queued requests being driven again.

What must live here: order, drives, who waits for whom. What must not: messages, proposals, deadlines.
No work here grows with the length of the queue; a change of something that many lanes wait for costs in
proportion to the lanes that are driven because of it.
"""

from collections.abc import Callable, Iterable

from berth.ids import Namespace, RequestKey, Sequence
from berth.messages.events import RequestStatus, Wake, WakeOn
from berth.messages.requests import Request
from berth.model.charging import CONFIGURATION
from berth.model.cluster import AllocationState
from berth.model.entitlement import Assumed
from berth.model.ledger import ChangeKey, State
from berth.model.ordering import YOUNG, Rank, is_strict, rank
from berth.model.priorities import Priorities
from berth.model.queue import RequestState
from berth_quota.admission import Ruling, Wait, behind, judge, scope_of
from berth_quota.bounds import Bounds
from berth_quota.growth import is_repair, wakes
from berth_quota.heads import Heads
from berth_quota.lanes import Lane, Waiting
from berth_quota.order import Order
from berth_quota.sweep import Sweep
from berth_quota.wakeups import Wakeups, is_due

Rule = Callable[[Lane, Waiting, Ruling], None]


class Waitlist:
    """Who may be evaluated next. `assumed` is what is in flight; who is in flight waits no longer."""

    def __init__(self, state: State, assumed: Assumed, bounds: Bounds, shape_of: Callable[[Request], bytes]) -> None:
        self._state = state
        self._assumed = assumed
        self._bounds = bounds
        self._shape_of = shape_of
        self._lanes: dict[bytes, Lane] = {}
        self._queued: dict[RequestKey, tuple[Lane, Waiting]] = {}
        self._wakeups = Wakeups(state)
        self._priorities = Priorities(state)
        self._woken: dict[Lane, None] = {}
        self._driven: dict[Lane, None] = {}
        self._order = Order(lambda lane: scope_of(state, lane.namespace), self._rank_of)
        self._heads = Heads()
        self.sweep = Sweep(bounds, self._is_due)
        self._parked: dict[str, dict[Lane, None]] = {}
        self._blocked: dict[str, Rank] = {}
        self._serial = 0
        self._taken_ms = 0
        self._goes_on_ms: int | None = None

    def __len__(self) -> int:
        """Queued requests."""
        return len(self._queued)

    @property
    def wants_drive(self) -> bool:
        """Whether a queued request has reason to be driven."""
        return bool(self._woken) or self._wakeups.has_news()

    # --- who comes ------------------------------------------------------------------------------------

    def arrive(self, waiting: Waiting) -> None:
        """A new request, younger than everything before it."""
        lane = self._lane_of(waiting)
        waiting.age = (YOUNG, self._next_serial())
        lane.arrivals.append(waiting)
        self._heads.add(waiting)
        self._list(lane)

    def come_back(self, lane: Lane, waiting: Waiting) -> None:
        """It was on its way and must be judged again, before its like."""
        lane.returned.append(waiting)
        self._list(lane)

    def queue(self, known: RequestState) -> None:
        """The ledger says that it is queued; it keeps its place from before."""
        self._await(known, known.wake, known.evaluated_at)
        self._heads.add(self._queued[known.key][1])

    def grow(self, known: RequestState) -> None:
        """It runs and wants more instances: it is driven at once, and then as if it were queued."""
        self._await(known, wakes(known), Sequence(0), is_repair=is_repair(self._state, known))

    def _await(
        self, known: RequestState, wake: tuple[Wake, ...], judged_at: Sequence, *, is_repair: bool = False
    ) -> None:
        before = self._queued.get(known.key)
        self.unqueue(known.key)
        waiting = Waiting(
            key=known.key,
            request=known.request,
            digest=known.digest,
            attempt=known.attempt,
            age=before[1].age if before else (known.order, self._next_serial()),
            size=0,
            is_new=False,
            traceparent=known.traceparent,
            wake=wake,
            judged_at=judged_at,
            is_repair=is_repair,
        )
        lane = self._lane_of(waiting)
        lane.add_queued(waiting)
        self._wakeups.add(lane, waiting)
        self._queued[known.key] = (lane, waiting)
        if is_due(self._state, waiting):
            self._woken[lane] = None

    def unqueue(self, key: RequestKey) -> None:
        """It is queued no longer, if it was."""
        found = self._queued.pop(key, None)
        if found is not None:
            lane, waiting = found
            lane.drop_queued(waiting)
            self._heads.remove(waiting)
            self._wakeups.remove(lane, waiting)
            self._unpark(_behind(lane.namespace))
            self._rest(lane)

    def decided(self, waiting: Waiting) -> None:
        """The ledger knows it now: it is new no longer."""
        waiting.is_gone = True
        self._heads.remove(waiting)
        self._unpark(_behind(waiting.request.namespace))

    def find(self, key: RequestKey) -> Waiting | None:
        """A queued request."""
        found = self._queued.get(key)
        return found[1] if found else None

    def judged(self, waiting: Waiting) -> None:
        """It was judged anew, and its `judged_at` set; what changed meanwhile drives it at once."""
        found = self._queued.get(waiting.key)
        if found is not None and found[1] is waiting and is_due(self._state, waiting):
            self._woken[found[0]] = None

    def look_again(self, key: RequestKey) -> None:
        """Time has passed, and with it what kept it waiting: it is driven although nothing changed."""
        found = self._queued.get(key)
        if found is not None:
            found[1].judged_at = Sequence(0)
            self.judged(found[1])

    def _lane_of(self, waiting: Waiting) -> Lane:
        shape = self._shape_of(waiting.request)
        waiting.size = len(shape)
        lane = self._lanes.get(shape)
        if lane is None:
            lane = self._lanes[shape] = Lane(shape, waiting.request.namespace)
        return lane

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial

    # --- what wakes -----------------------------------------------------------------------------------

    def changed(self, conditions: Iterable[ChangeKey]) -> None:
        """These conditions changed for the better; told before the requests of the same record."""
        told = list(conditions)
        self._wakeups.changed(told)
        for on, name in told:
            if on is WakeOn.QUOTA:
                self._order.better(name)
                self._unpark_all() if name == CONFIGURATION else self._unpark(name)

    def ignore_news(self) -> None:
        """Somebody else drives what has reason to be driven."""
        self._woken.clear()
        self._wakeups.take()

    def wake_everybody(self) -> None:
        """Drive every queued request once, due or not: after a start or a take-over."""
        for lane in list(self._lanes.values()):
            self._start_all(lane)

    def wake_namespace(self, namespace: Namespace) -> None:
        """Drive all that is queued of it once, due or not: something else than what they wait for keeps them back."""
        for lane in list(self._lanes.values()):
            if lane.namespace == namespace:
                self._start_all(lane)

    def _start_all(self, lane: Lane) -> None:
        if lane.queued:
            self._start(lane, stop_after=None, due_only=False)

    def forget_arrivals(self) -> None:
        """This process is not the active one any more: only what the ledger says is kept."""
        self._order.clear()
        self._parked.clear()
        self._blocked.clear()
        self._driven.clear()
        self._woken.clear()
        self._heads.forget_new()
        self.sweep.clear()
        self._goes_on_ms = None
        for lane in list(self._lanes.values()):
            lane.arrivals.clear()
            lane.returned.clear()
            lane.cursor, lane.out, lane.again, lane.is_listed = None, 0, False, False
            for waiting in lane.queued.values():
                waiting.in_flight = False
            self._forget_empty(lane)

    def _start_woken(self, now_ms: int) -> None:
        """A change drives all that wait for it. While lanes are driven, changes are taken together now and then."""
        woken = list(self._woken)
        self._woken.clear()
        if not self._driven or now_ms >= self._taken_ms + self._bounds.gather_ms:
            self._taken_ms = now_ms
            woken += self._wakeups.take()
        for lane in dict.fromkeys(woken):
            if lane.is_driven:
                lane.again = True
            elif lane.queued:
                self._start(lane, stop_after=self._bounds.failures_max)
        for lane in self.sweep.lanes(list(self._lanes.values()), now_ms) if self._queued else ():
            self._start(lane, stop_after=1, due_only=False, is_swept=True)

    def _start(self, lane: Lane, *, stop_after: int | None, due_only: bool = True, is_swept: bool = False) -> None:
        if not self._bounds.drives_queued:
            return
        window = 1 if is_swept else self._bounds.failures_max
        lane.start(stop_after=stop_after, window=window, due_only=due_only, is_swept=is_swept)
        self._driven[lane] = None
        self._list(lane)

    # --- who goes ---------------------------------------------------------------------------------------

    def deadline(self) -> int | None:
        """When the drive goes on, or changes that came during it are taken at the latest (milliseconds UTC)."""
        if self._goes_on_ms is not None:
            return self._goes_on_ms
        taken = self._taken_ms + self._bounds.gather_ms if self._driven and self._wakeups.has_news() else None
        swept = self.sweep.deadline() if self._queued and self._bounds.drives_queued else None
        return min((time for time in (taken, swept) if time is not None), default=None)

    def drive(self, rule: Rule, room: Callable[[], int], now_ms: int) -> None:
        """Rule on everybody who may go now, best first, as long as there is `room`.

        `rule` is told each ruling at once and updates `assumed` before the next. Who fails only because of
        what is in flight is parked, and everybody after it who shares its limits: nothing overtakes. After
        `rulings_max` of them others have their turn first: after a take-over the whole queue is driven.
        """
        self._start_woken(now_ms)
        self._order.renew(everybody=bool(self._state.quotas.decayed))
        self._goes_on_ms = None
        ruled = 0
        while self._order and room() > 0:
            if ruled == self._bounds.rulings_max:
                self._goes_on_ms = now_ms + 1
                return
            lane = self._order.pop()
            waiting = lane.head(self._is_due)
            if waiting is None:
                self._rest(lane)
                continue
            place = self._rank(waiting)
            if not self._order.is_first(place):
                self._order.push(place, lane)
                continue
            ruling = self._ruling(lane, waiting, place, now_ms)
            if ruling is not None:
                ruled += 1
                lane.take(waiting)
                rule(lane, waiting, ruling)
                self._list(lane)

    def _ruling(self, lane: Lane, waiting: Waiting, place: Rank, now_ms: int) -> Ruling | None:
        """None: it is parked until something in flight is settled."""
        head = self._heads.before(waiting) if self._is_strict(waiting) else None
        if head is not None and (head.is_new or head.in_flight):
            self._parked.setdefault(_behind(lane.namespace), {})[lane] = None
            return None
        if head is not None:
            return behind(head.request)
        scope = scope_of(self._state, lane.namespace)
        if scope is not None and scope in self._blocked and self._blocked[scope] < place:
            self._parked[scope][lane] = None
            return None
        missing = self.missing(waiting)
        ruling = judge(self._state, waiting.request, missing, self._assumed, self._priorities, at=now_ms)
        if not isinstance(ruling, Wait):
            return ruling
        assert scope is not None, "only a limit makes anybody wait for what is in flight"
        self._parked.setdefault(scope, {})[lane] = None
        self._blocked[scope] = min(place, self._blocked.get(scope, place))
        return None

    def _is_strict(self, waiting: Waiting) -> bool:
        """What runs and only wants more is not in the queue."""
        if not is_strict(self._state, waiting.request.namespace):
            return False
        known = None if waiting.is_new else self._state.queue.requests[waiting.key]
        return known is None or known.status is RequestStatus.QUEUED

    def sent(self, lane: Lane, waiting: Waiting) -> None:
        """It is in flight now."""
        if not waiting.is_new:
            waiting.in_flight = True
            lane.out += 1
            self.sweep.sent(lane, waiting)

    def answered(self, lane: Lane, waiting: Waiting, *, failed: bool | None) -> None:
        """It is in flight no longer: it failed, was placed, or (None) neither is known."""
        if not waiting.is_new:
            waiting.in_flight = False
            lane.out -= 1
            self.count(lane, waiting, failed=failed)
        self._list(lane)

    def count(self, lane: Lane, waiting: Waiting, *, failed: bool | None) -> None:
        """One more failure in a row, or the end of a row; success widens how many are driven at one time."""
        if waiting.is_new:
            return
        if failed:
            lane.failures += 1
            self.sweep.failed(waiting.key)
        elif failed is not None:
            lane.failures = 0
            lane.window = min(lane.window * 2, self._bounds.window_max)

    def unpark(self, namespace: Namespace) -> None:
        """Something in flight of `namespace` is settled: who waited for that may go on."""
        scope = scope_of(self._state, namespace)
        self._order.better(scope)
        if scope is not None:
            self._unpark(scope)
            self._unpark(_behind(namespace))

    def _unpark(self, scope: str) -> None:
        if not self._parked:
            return
        self._blocked.pop(scope, None)
        for lane in self._parked.pop(scope, ()):
            self._list(lane)

    def _unpark_all(self) -> None:
        self._blocked.clear()
        parked, self._parked = self._parked, {}
        for lanes in parked.values():
            for lane in lanes:
                self._list(lane)

    def missing(self, waiting: Waiting) -> int:
        """How many instances are still to be placed."""
        known = None if waiting.is_new else self._state.queue.requests[waiting.key]
        if known is None or not known.live:
            return waiting.request.count
        allocations = self._state.cluster.allocations
        states = [allocations[known.request.namespace, name].state for name in known.live]
        return waiting.request.count - states.count(AllocationState.PLACED)

    def _is_due(self, waiting: Waiting) -> bool:
        return is_due(self._state, waiting)

    def _rank(self, waiting: Waiting) -> Rank:
        return rank(self._state, waiting.request, waiting.age, self._assumed, is_repair=waiting.is_repair)

    def _list(self, lane: Lane) -> None:
        """The lane takes its place in the order, if anybody of it may go."""
        if lane.is_listed:
            return
        waiting = lane.head(self._is_due)
        if waiting is None:
            self._rest(lane)
        else:
            self._order.push(self._rank(waiting), lane)

    def _rank_of(self, lane: Lane) -> Rank | None:
        waiting = lane.head(self._is_due)
        return None if waiting is None else self._rank(waiting)

    def _rest(self, lane: Lane) -> None:
        """Nobody of the lane may go: its drive may be over, and the lane itself."""
        if lane.is_over():
            lane.cursor, lane.is_swept = None, False
            self._driven.pop(lane, None)
            if lane.again and lane.queued:
                self._start(lane, stop_after=self._bounds.failures_max)
        self._forget_empty(lane)

    def _forget_empty(self, lane: Lane) -> None:
        if lane.is_empty and not lane.is_listed:
            self._lanes.pop(lane.shape, None)
            self._woken.pop(lane, None)
            self._driven.pop(lane, None)


def _behind(namespace: Namespace) -> str:
    """What they wait for who come after another of their namespace."""
    return f"queue {namespace}"
