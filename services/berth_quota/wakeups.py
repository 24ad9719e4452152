"""Which lanes wait for what: the conditions of queued requests, so that a change finds its lanes at once."""

from collections.abc import Iterable

from berth.ids import Namespace
from berth.messages.events import Wake, WakeOn
from berth.model.charging import CONFIGURATION, quota_scope
from berth.model.ledger import ChangeKey, State
from berth_quota.lanes import Lane, Waiting

ANY_QUOTA: ChangeKey = (WakeOn.QUOTA, CONFIGURATION)


class Wakeups:
    """Counts, for each condition and lane, how many of the lane wait for it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lanes: dict[ChangeKey, dict[Lane, int]] = {}
        self._scopes: dict[Namespace, str] = {}
        self._changed: dict[ChangeKey, None] = {}

    def add(self, lane: Lane, waiting: Waiting) -> None:
        for condition in self._conditions(waiting.wake, lane.namespace):
            lanes = self._lanes.setdefault(condition, {})
            lanes[lane] = lanes.get(lane, 0) + 1

    def remove(self, lane: Lane, waiting: Waiting) -> None:
        for condition in self._conditions(waiting.wake, lane.namespace):
            lanes = self._lanes[condition]
            lanes[lane] -= 1
            if not lanes[lane]:
                del lanes[lane]
                if not lanes:
                    del self._lanes[condition]

    def changed(self, conditions: Iterable[ChangeKey]) -> None:
        """These changed for the better."""
        for condition in conditions:
            self._changed[condition] = None
        if ANY_QUOTA in self._changed:
            self._share_anew()

    def has_news(self) -> bool:
        """Whether something changed that somebody waits for, since `take`."""
        return any(condition in self._lanes for condition in self._changed)

    def take(self) -> list[Lane]:
        """The lanes that something changed for."""
        found: dict[Lane, None] = {}
        for condition in self._changed:
            found.update(dict.fromkeys(self._lanes.get(condition, ())))
        self._changed.clear()
        return list(found)

    def _conditions(self, wake: tuple[Wake, ...], namespace: Namespace) -> list[ChangeKey]:
        found: dict[ChangeKey, None] = {}
        for one in wake:
            match one.on:
                case WakeOn.QUOTA | WakeOn.RECLAIM:
                    found[ANY_QUOTA] = None
                    found[one.on, self._scope(namespace)] = None
                case WakeOn.RESERVATION | WakeOn.CAPACITY:
                    found[one.on, one.name or ""] = None
                case WakeOn.QUEUE:
                    found[one.on, namespace] = None
                case _:
                    found[one.on, ""] = None
        return list(found)

    def _scope(self, namespace: Namespace) -> str:
        """Who shares the namespace's quota; as it was known when somebody of it first waited for it."""
        scope = self._scopes.get(namespace)
        if scope is None:
            scope = self._scopes[namespace] = quota_scope(self._state, namespace)
        return scope

    def _share_anew(self) -> None:
        """New quotas and cohorts: who waits for a quota may share it with others now."""
        moved = [
            (on, lane, count)
            for scope in dict.fromkeys(self._scopes.values())
            for on in (WakeOn.QUOTA, WakeOn.RECLAIM)
            for lane, count in self._lanes.pop((on, scope), {}).items()
        ]
        self._scopes.clear()
        for on, lane, count in moved:
            self._lanes.setdefault((on, self._scope(lane.namespace)), {})[lane] = count


def is_due(state: State, waiting: Waiting) -> bool:
    """Whether something that it waits for changed after it was last judged (R101)."""
    namespace = waiting.request.namespace
    return any(state.last_change(wake, namespace) > waiting.judged_at for wake in waiting.wake)
