"""The smallest single change that would let a request be placed: proposed from what is in the way, then tried.

Kinds are proposed in a fixed order, from what touches least to what touches most, and the first that works is the
answer; within a kind, what comes closest is tried first.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from berth.ids import LABEL_VALUE_PATTERN, Attempt, NodeId
from berth.messages.decisions import NodeVerdict
from berth.messages.documents import time_text
from berth.messages.events import (
    AllocationsEnded,
    Event,
    How,
    NodeChanged,
    ReservationActivated,
    Transaction,
    about,
)
from berth.messages.reasons import INSUFFICIENT, ReasonCode
from berth.messages.requests import Constraint, Mode, Request, RequestPreemption
from berth.model.cluster import Node
from berth.model.contradictions import satisfying
from berth.model.feasibility import attribute, holds, is_met, reservation_reason, topology_keys, untolerated
from berth.model.ledger import State
from berth.model.queue import RequestState
from berth.model.reservation import ReservationState
from berth.model.windows import free_now
from berth_cell.changes import Change, Situation
from berth_quota.administration import stated
from berth_quota.admission import Admit, Queue, Reject, judge
from berth_scheduler.board import Board
from berth_scheduler.placement import Placed
from berth_scheduler.search import search_for

TRIES_MAX = 16
"""Proposals of one kind that are tried: somebody waits for the answer."""

CAPACITY_REASONS = frozenset({*INSUFFICIENT.values(), ReasonCode.INSUFFICIENT_EXTENDED})
LABEL_REASONS = frozenset(
    {ReasonCode.CONSTRAINT_NOT_MET, ReasonCode.NO_ALTERNATIVE_MATCHES, ReasonCode.TOPOLOGY_KEY_MISSING}
)
SWITCHED_OFF = frozenset({ReasonCode.NODE_CORDONED, ReasonCode.NODE_DRAINING})
_LABEL_VALUE = re.compile(LABEL_VALUE_PATTERN)


def smallest_change(
    state: State, request: Request, nodes: tuple[NodeVerdict, ...], *, at: int, salt: str = ""
) -> Change | None:
    """What would let `request`, which waits, be placed, as of `at` (milliseconds UTC); None: no single change would.

    `nodes`: why not on each.
    """
    here = Situation(state=state, request=request, nodes=nodes, at=at, salt=salt, board=Board(state))
    for kind in _KINDS:
        for change in islice(kind(here), TRIES_MAX):
            placed = here.tried(change)
            if placed is not None:
                return _with_victims(change, placed)
    return None


def _with_victims(change: Change, placed: Placed) -> Change:
    if change.kind != "preemption":
        return change
    evicted = [{"namespace": one.namespace, "allocation": one.id, "node": one.node} for one in placed.evicted]
    names = ", ".join(f"{one.namespace}/{one.id}" for one in placed.evicted)
    return Change(
        kind=change.kind,
        said={**change.said, "evicted": evicted},
        sentence=f"{change.sentence}: that evicts {names}",
        request=change.request,
        at=change.at,
    )


# --- nothing but time, or a switch --------------------------------------------------------------------------------


def _now(here: Situation) -> Iterator[Change]:
    """It would be placed as things stand: it is driven when its turn comes."""
    yield here.change("time", {"at": time_text(here.at)}, "wait: it fits now, and is placed when its turn comes")


def _quota(here: Situation) -> Iterator[Change]:
    """More for the namespace: of `hard`, or of `soft` where hard would allow it."""
    quota = here.state.quotas.quotas.get(here.request.namespace)
    ruling = judge(here.state, here.request, here.request.count, {})
    if quota is None or isinstance(ruling, Admit):
        return
    limits = {"hard": dict(quota.hard), "soft": dict(quota.soft)}
    raised: list[dict[str, Any]] = []
    for one in ruling.reasons if isinstance(ruling, Queue | Reject) else ():
        if one.dimension is None or one.needed is None:
            return
        limit = "hard" if one.code in (ReasonCode.QUOTA_HARD, ReasonCode.EXCEEDS_HARD) else "soft"
        missing = one.needed - (one.best_available or 0)
        to = limits[limit].get(one.dimension, quota.hard.get(one.dimension, 0)) + missing
        limits[limit][one.dimension] = to
        raised.append({"dimension": one.dimension, "raise_by": missing, "limit": limit, "to": to})
    if raised:
        spoken = ", ".join(
            f"{one['raise_by']} more of {one['dimension']} ({one['limit']} {one['to']})" for one in raised
        )
        said = {"namespace": here.request.namespace, **raised[0], "raised": raised}
        set_anew = stated(replace(quota, hard=limits["hard"], soft=limits["soft"]))
        sentence = f"give {here.request.namespace} {spoken}, or release as much"
        yield here.change("quota", said, sentence, happening=((set_anew,),))


def _uncordon(here: Situation) -> Iterator[Change]:
    for node in here.kept_off_only_by(SWITCHED_OFF):
        happening = (Event(NodeChanged(node=node.id, schedulable=True, draining=False)),)
        yield here.change("uncordon", {"node": node.id}, f"uncordon {node.id}", happening=(happening,))


# --- a toleration, a label ------------------------------------------------------------------------------------------


def _toleration(here: Situation) -> Iterator[Change]:
    for node in here.kept_off_only_by(frozenset({ReasonCode.UNTOLERATED_TAINT})):
        taints = untolerated(node, here.request)
        toleration: dict[str, Any] = {"operator": "exists"}
        if len({taint.key for taint in taints}) == 1:
            toleration["key"] = taints[0].key
        if len(taints) == 1:
            toleration |= {"operator": "equals", "value": taints[0].value, "effect": taints[0].effect.value}
        tolerations = [*here.request.document().get("tolerations", ()), toleration]
        sentence = f"tolerate {', '.join(map(str, taints))} of {node.id}"
        said = {"node": node.id, "toleration": toleration}
        yield here.change("toleration", said, sentence, request=here.asking(tolerations=tolerations))


def _label(here: Situation) -> Iterator[Change]:
    for node in here.kept_off_only_by(LABEL_REASONS):
        for key, value in _labels_that_would_do(here, node):
            labels = {name: its for name, its in node.labels.items() if name != key}
            if value is not None:
                labels[key] = value
            happening = (Event(NodeChanged(node=node.id, labels=labels)),)
            what = f"label {node.id} {key}={value}" if value is not None else f"take the label {key} off {node.id}"
            said = {"node": node.id, "key": key, "value": value}
            yield here.change("label", said, what, happening=(happening,))


def _labels_that_would_do(here: Situation, node: Node) -> Iterator[tuple[str, str | None]]:
    """One label of `node`, with a value (None: without it) that meets everything that is asked about its key."""
    request = here.request
    required = [one for one in request.constraints if one.mode is Mode.REQUIRED]
    missing = [key for key in topology_keys(request) if node.label(key) is None]
    for terms in request.any_of or ((),):
        conditions: list[Constraint] = [*required, *terms]
        keys = dict.fromkeys([*(one.key for one in conditions if not holds(one, node)), *missing])
        if len(keys) != 1 or (request.any_of and not terms):
            continue
        (key,) = keys
        if key == "node" or key.startswith("node."):
            continue  # what a node is, nobody writes on it
        about_key = [one for one in conditions if one.key == key]
        known = (attribute(other, key) for other in here.state.cluster.nodes.values() if key in missing)
        wanted = [
            value
            for value in dict.fromkeys(known)
            if value is not None and all(is_met(one, value) for one in about_key)
        ]
        for value in (*wanted, *satisfying(about_key)):
            is_possible = key not in missing if value is None else _LABEL_VALUE.match(value) is not None
            if is_possible:
                yield key, value


# --- a point in time ----------------------------------------------------------------------------------------------


def _time(here: Situation) -> Iterator[Change]:
    """When work whose end is known has ended, or the reservation begins; if nothing else comes."""
    reservation = here.request.reservation
    booked = here.state.reservations.reservations.get(reservation) if reservation is not None else None
    if booked is not None and booked.state is not ReservationState.ACTIVE:
        if not booked.is_over and reservation_reason(here.state, here.request) is not None:
            activated = (Event(ReservationActivated(reservation=booked.id), booked.namespace),)
            start = max(here.at, booked.body.start)
            yield here.change(
                "time",
                {"at": time_text(start)},
                f"wait: {booked.id} begins at {time_text(start)}",
                at=start,
                happening=(activated,),
            )
        return
    live = [one for node in here.state.cluster.nodes for one in here.state.cluster.on_node(node).values()]
    for end in sorted({one.ends_at for one in live if one.ends_at is not None and one.ends_at > here.at}):
        gone = {one.request_key for one in live if one.ends_at is not None and one.ends_at <= end}
        happening = tuple(
            _ended(known, [one.id for one in live if one.request_key == key and (one.ends_at or end + 1) <= end])
            for key in sorted(gone)
            if (known := here.state.queue.requests.get(key)) is not None
        )
        sentence = f"wait: what ends until {time_text(end)} makes room, if nothing else takes it"
        yield here.change("time", {"at": time_text(end)}, sentence, at=end, happening=happening)


def _ended(known: RequestState, names: Iterable[Any]) -> Transaction:
    data = AllocationsEnded(ids=tuple(names), how=How.EXPIRED, reason=ReasonCode.DURATION_OVER)
    return (about(known.key, data, attempt=known.attempt),)


# --- another request --------------------------------------------------------------------------------------------


def _smaller(here: Situation) -> Iterator[Change]:
    """What one instance may ask for at most on the node where the least is missing, in proportion to what it asks."""
    found: list[tuple[int, NodeId, dict[str, int]]] = []
    for node in here.kept_off_only_by(CAPACITY_REASONS):
        fits, missing = _fitting(here, node)
        if "instances" not in fits:
            found.append((missing, node.id, fits))
    for _, node, fits in sorted(found, key=lambda one: one[:2]):
        spoken = ", ".join(f"{amount} {dimension}" for dimension, amount in fits.items())
        sentence = f"ask for at most {spoken}: {node} has that"
        yield here.change("request", {"node": node, "at_most": fits}, sentence, request=_reduced(here, fits))


def _fitting(here: Situation, node: Node) -> tuple[dict[str, int], int]:
    """The dimensions in which the node is short with what it has, and how much is missing in thousandths."""
    free = free_now(here.state, node, here.request.reservation)
    fits: dict[str, int] = {}
    missing = 0
    for dimension, asked in here.request.charge.dimensions():
        there = max(0, free.amount(dimension))
        if asked > there:
            fits[dimension] = there
            missing += 1000 * (asked - there) // asked
    return fits, missing


def _reduced(here: Situation, at_most: dict[str, int]) -> Request:
    amounts = dict(here.request.document()["resources"])
    extended = dict(amounts.get("extended", {}))
    for dimension, amount in at_most.items():
        if dimension == "cpu_millicores":
            amounts["cpu_cores"] = amount / 1000
        elif dimension in INSUFFICIENT:
            amounts[dimension] = amount
        else:
            extended[dimension] = amount
    return here.asking(resources={**amounts, "extended": extended})


def _preemption(here: Situation) -> Iterator[Change]:
    """The lowest priority from which on it takes the room of less important work."""
    own = [
        one.priority + 1
        for node in here.state.cluster.nodes
        for one in here.state.cluster.on_node(node).values()
        if one.namespace == here.request.namespace and one.priority < 100
    ]
    for priority in sorted({max(here.request.priority, level) for level in own}):
        request = here.asking(priority=priority, preemption=RequestPreemption.LOWER_PRIORITY.value)
        if request == here.request:
            continue
        said = {"priority": priority, "preemption": RequestPreemption.LOWER_PRIORITY.value}
        yield here.change("preemption", said, f"let it preempt, at priority {priority}", request=request)


def _count(here: Situation) -> Iterator[Change]:
    """Fewer instances: as many as have a place."""
    if here.request.count == 1:
        return
    here.board.renew()
    search = search_for(here.board, here.request, at=here.at, attempt=Attempt(1), seed=here.salt)
    search.fill(here.request.count - 1)
    most = len(search.picks)
    search.clear()
    for count in range(most, 0, -1):
        request = here.asking(count=count, min_count=None)
        yield here.change("count", {"count": count}, f"ask for {count} instances at most", request=request)


def _release(here: Situation) -> Iterator[Change]:
    """The smallest of what runs that makes room by its leaving, of its own namespace first."""
    live = [known for known in here.state.queue.requests.values() if known.live and known.key != here.request.key]
    own = here.request.namespace
    for known in sorted(live, key=lambda known: (known.request.namespace != own, _size(known), known.key)):
        happening = (_ended(known, known.live),)
        namespace, name = known.key
        said = {"namespace": namespace, "request": name}
        yield here.change("release", said, f"release {namespace}/{name}", happening=happening)


def _size(known: RequestState) -> tuple[int, int]:
    return known.request.total.cpu_millicores, known.request.total.ram_mb


def _drop(here: Situation) -> Iterator[Change]:
    """One rule less."""
    document = here.request.document()
    for field in ("constraints", "affinity", "anti_affinity", "spread"):
        rules: list[Any] = list(document.get(field, ()))
        for index, rule in enumerate(getattr(here.request, field)):
            if rule.mode is Mode.REQUIRED:
                rest = [*rules[:index], *rules[index + 1 :]]
                said = {"field": field, "index": index}
                yield here.change("drop", said, f"leave out {field}[{index}]", request=here.asking(**{field: rest}))
    if here.request.any_of:
        said = {"field": "any_of", "index": None}
        yield here.change("drop", said, "leave out any_of", request=here.asking(any_of=[]))
    for field in ("node", "reservation"):
        if document.get(field) is not None:
            said = {"field": field, "index": None}
            yield here.change("drop", said, f"leave out {field}", request=here.asking(**{field: None}))


_KINDS: tuple[Callable[[Situation], Iterator[Change]], ...] = (
    _now,
    _quota,
    _uncordon,
    _toleration,
    _label,
    _time,
    _smaller,
    _preemption,
    _count,
    _release,
    _drop,
)
"""In this order: from what touches least to what touches most."""
