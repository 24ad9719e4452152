"""Where a reservation may be held: its shape, and what may ever take units of it away. Pure.

A held reservation is a promise. Whoever proposes to hold it otherwise must keep all of it, or name a cause that is
true on the committed state: that is why nobody can break a promise in silence (R92). Times are milliseconds UTC.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from berth.ids import NodeId, ReservationId
from berth.messages.commands import Refusal, RefusalCode
from berth.messages.documents import Displace, NodeState, OnNodeLoss, UnitSpread, time_text
from berth.messages.events import Event, ReservationHeld
from berth.messages.requests import Mode
from berth.messages.reservation_events import Because, HeldOnNode, HoldCause, ReservationBody
from berth.model.cluster import Node
from berth.model.feasibility import holds, spoken
from berth.model.ledger import State
from berth.model.reservation import Reservation, ReservationState
from berth.model.reservation_rules import named_open
from berth.model.windows import free_now, overheld

Units = Mapping[NodeId, int]
"""How many units are held on each node."""

RESIZES = frozenset({HoldCause.EXTENDED, HoldCause.SHRUNK})

# --- what makes a node unfit ---------------------------------------------------------------------------------


def why_unfit(state: State, name: NodeId) -> HoldCause | None:
    """Why units on node `name` will not be there when their window begins; None: they will."""
    node = state.cluster.nodes.get(name)
    if node is None:
        return HoldCause.NODE_LEFT
    if node.state is NodeState.LOST:
        return HoldCause.NODE_LOST
    return HoldCause.NODE_DRAINED if node.draining else None


def is_overheld(state: State, name: NodeId, at: int) -> bool:
    """Whether the node, as it is now, cannot carry what is held and runs there."""
    node = state.cluster.nodes[name]
    return overheld(state, node, at=at) is not None or not free_now(state, node).is_non_negative()


# --- the shape --------------------------------------------------------------------------------------------------


def missed_constraint(node: Node, body: ReservationBody) -> str | None:
    """The first required constraint that does not hold on `node`, as people write it."""
    missed = (one for one in body.constraints if one.mode is Mode.REQUIRED and not holds(one, node))
    first = next(missed, None)
    return None if first is None else spoken(first)


def domains_of(state: State, body: ReservationBody, spread: UnitSpread) -> dict[str, int]:
    """The domains that count for `spread`, each with no units yet: those of ready nodes that it may be held on."""
    named = set(body.nodes)
    return {
        label: 0
        for name, node in state.cluster.nodes.items()
        if node.state is NodeState.READY
        and (not named or name in named)
        and missed_constraint(node, body) is None
        and (label := node.label(spread.topology_key)) is not None
    }


def least(counts: Mapping[str, int], spread: UnitSpread) -> int:
    """What a domain's units are compared with (R34); 0 while there are fewer domains than there must be (R35)."""
    return 0 if len(counts) < spread.min_domains else min(counts.values(), default=0)


def _uneven(state: State, body: ReservationBody, held: Iterable[HeldOnNode]) -> str | None:
    """Which required spread the units do not keep; None: they keep all."""
    units = list(held)
    for spread in body.spread:
        if spread.mode is not Mode.REQUIRED:
            continue
        counts = domains_of(state, body, spread)
        for one in units:
            label = state.cluster.nodes[one.node].label(spread.topology_key)
            if label is None:
                return f"{one.node} has no {spread.topology_key}"
            counts[label] = counts.get(label, 0) + one.count
        if max(counts.values(), default=0) - least(counts, spread) > spread.max_skew:
            return f"its units are spread over {spread.topology_key} more unevenly than {spread.max_skew}"
    return None


# --- may it be held so? ---------------------------------------------------------------------------------------


def refuse_held(state: State, event: Event, at: int) -> Refusal | None:
    """Why it may not be held so: known nodes of its shape, all its units at first, later no fewer without a cause."""
    data = event.data
    assert isinstance(data, ReservationHeld)
    reservation = named_open(state, event, data.reservation)
    if isinstance(reservation, Refusal):
        return reservation
    if reservation.state is ReservationState.PENDING:
        if data.because is not None or data.end is not None or data.count is not None:
            return _no(RefusalCode.INVALID, f"{reservation.id} is held for the first time, so nothing has changed")
        return _why_not_shaped(state, reservation, data.nodes, reservation.body.count)
    because = data.because
    if because is None and reservation.state is ReservationState.HELD and at >= reservation.body.start:
        because = Because(cause=HoldCause.NODE_SMALLER)  # ledgers of before causes were named
    if because is None:
        return _no(RefusalCode.ALREADY_DONE, f"{reservation.id} is held already, and no cause is named")
    return (
        _why_not_resized(reservation, data, because, at)
        or _why_not_shaped(state, reservation, data.nodes, data.count or reservation.body.count)
        or _why_not_taken(state, reservation, data, because, at)
    )


def _why_not_shaped(state: State, reservation: Reservation, nodes: Sequence[HeldOnNode], count: int) -> Refusal | None:
    body, held = reservation.body, sum(one.count for one in nodes)
    names = [one.node for one in nodes]
    if len(set(names)) < len(names) or any(one.count < 1 for one in nodes):
        return _no(RefusalCode.INVALID, f"{body.id} names a node twice, or holds nothing on one")
    before = dict(reservation.holds)
    more = [one for one in nodes if one.count > before.get(one.node, 0)]
    missing = sorted(one.node for one in more if one.node not in state.cluster.nodes)
    if missing:
        return _no(RefusalCode.NOT_FOUND, f"no node {', '.join(missing)}")
    if body.nodes and not set(names) <= set(body.nodes):
        return _no(RefusalCode.INVALID, f"{body.id} names its nodes and is held on others")
    for one in more:
        missed = missed_constraint(state.cluster.nodes[one.node], body)
        if missed is not None:
            return _no(RefusalCode.RULE, f"{one.node} does not meet {missed}")
    if held > count or (held < count and reservation.state is ReservationState.PENDING):
        return _no(RefusalCode.INVALID, f"{body.id} asks for {count} units, {held} are held")
    uneven = _uneven(state, body, nodes) if held == count and more else None
    return None if uneven is None else _no(RefusalCode.RULE, f"{body.id}: {uneven}")


def _why_not_resized(reservation: Reservation, data: ReservationHeld, because: Because, at: int) -> Refusal | None:
    """Its window and its count change only where it is extended or shrunk, and in that direction."""
    body = reservation.body
    end, count = data.end or body.end, data.count or body.count
    same = tuple((one.node, one.count) for one in data.nodes) == reservation.holds
    if same and (end, count) == (body.end, body.count):
        return _no(RefusalCode.ALREADY_DONE, f"{body.id} is held so already")
    if because.cause is HoldCause.EXTENDED:
        is_so = end >= body.end and count >= body.count
    elif because.cause is HoldCause.SHRUNK:
        is_so = end <= body.end and 1 <= count <= body.count
    else:
        is_so = (end, count) == (body.end, body.count)
    if not is_so:
        return _no(RefusalCode.INVALID, f"{body.id} is not {because.cause} by that")
    if end <= max(at, body.start):
        return _no(RefusalCode.INVALID, f"{body.id} would end at {time_text(end)}, it is {time_text(at)}")
    return None


def _why_not_taken(
    state: State, reservation: Reservation, data: ReservationHeld, because: Because, at: int
) -> Refusal | None:
    """Where units go away and the whole has fewer: only for a cause that is true, named by `data`."""
    before, after = dict(reservation.holds), {one.node: one.count for one in data.nodes}
    if _is_pinned(reservation, because) and any(after[name] > before.get(name, 0) for name in after):
        return _no(RefusalCode.RULE, f"{reservation.id} is static: it does not move")
    is_active = reservation.state is ReservationState.ACTIVE
    for name in _fewer(before, after) if is_active else ():
        if name not in after and state.reservations.drawn_on(reservation.id, name).instances:
            return _no(RefusalCode.STALE_VICTIM, f"{reservation.id} is drawn on {name}")
    if sum(after.values()) >= min(reservation.units, data.count or reservation.body.count):
        return None
    for name in _fewer(before, after):
        if (
            why_unfit(state, name) is None
            and not is_overheld(state, name, at)
            and not _may_yield(state, reservation, because, at)
        ):
            return _no(RefusalCode.RULE, f"{name} can hold what it holds for {reservation.id}")
    return None


def _fewer(before: Units, after: Units) -> Iterator[NodeId]:
    return (name for name, count in before.items() if after.get(name, 0) < count)


def _is_pinned(reservation: Reservation, because: Because) -> bool:
    return reservation.body.on_node_loss is OnNodeLoss.STATIC and because.cause not in RESIZES


def _may_yield(state: State, reservation: Reservation, because: Because, at: int) -> bool:
    """At its start it is held as far as there is room; before that it yields only to one that may displace it."""
    if reservation.state is not ReservationState.HELD:
        return False
    if at >= reservation.body.start:
        return True
    if because.cause is not HoldCause.DISPLACED or not because.names:
        return False
    by = state.reservations.reservations.get(ReservationId(because.names[0]))
    return (
        by is not None
        and by.created == state.sequence + 1
        and by.body.displace is Displace.LOWER_PRIORITY
        and by.body.priority > reservation.body.priority
    )


def _no(code: RefusalCode, detail: str) -> Refusal:
    return Refusal(code=code, detail=detail)
