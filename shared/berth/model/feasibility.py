"""May a node take one more instance of a request, and every reason why not.

Proposer, leader, plan and audit ask the same functions, so what one would do the other accepts. Pure:
state, node and request in, reasons out; nothing is kept between calls. Operators: R1–R5; taints: R19–R23;
neighbours: R29–R37 (`topology`); fit: R39; held capacity: `windows`.
"""

from collections.abc import Iterable, Iterator

from berth.messages.documents import NodeState
from berth.messages.reasons import PRECEDENCE, Reason, ReasonCode, insufficient
from berth.messages.requests import (
    Constraint,
    Effect,
    Mode,
    Operator,
    Request,
    Taint,
    Toleration,
    TolerationOperator,
    is_int64,
)
from berth.model.cluster import Node
from berth.model.durations import ends_at
from berth.model.ledger import State
from berth.model.promises import promise_reason
from berth.model.reservation import Reservation, ReservationState
from berth.model.topology import Surroundings, has_labels, needs_surroundings, surroundings
from berth.model.windows import free_now, reservation_full, window_reason
from berth.resources import CPU, RAM, Resources

FILTERING = frozenset({Effect.NO_SCHEDULE, Effect.NO_EXECUTE})
"""R23: a `prefer_no_schedule` taint never filters."""

MENDED_BY_NODES_ALONE = frozenset(
    {
        ReasonCode.WRONG_NODE,
        ReasonCode.CONSTRAINT_NOT_MET,
        ReasonCode.NO_ALTERNATIVE_MATCHES,
        ReasonCode.TOPOLOGY_KEY_MISSING,
        ReasonCode.UNTOLERATED_TAINT,
    }
)
"""What no release of capacity mends. A node that is cordoned, drained or lost is expected to come back."""

# --- constraints ----------------------------------------------------------------------------------------


def attribute(node: Node, key: str) -> str | None:
    """What a constraint's key finds on a node: `node.id`, else a label, else a built-in attribute, or None.

    Built in are the capacities: `node.cpu_cores` (whole cores, rounded down), `node.cpu_millicores`,
    `node.ram_mb`, `node.disk_mb`, `node.instances`, and `node.<name>` of an extended resource it has.
    """
    if key == "node.id":
        return node.id
    if key in node.labels:
        return node.labels[key]
    if not key.startswith("node."):
        return None
    name = key.removeprefix("node.")
    if name == "cpu_cores":
        return str(node.capacity.cpu_millicores // 1000)
    if name in (CPU, RAM, "disk_mb", "instances"):
        return str(node.capacity.amount(name))
    amount = node.capacity.amount(name)
    return str(amount) if amount else None


def holds(constraint: Constraint, node: Node) -> bool:
    """Whether the condition holds, required or preferred."""
    return is_met(constraint, attribute(node, constraint.key))


def is_met(constraint: Constraint, value: str | None) -> bool:
    """Whether the key's value (None: absent) meets the condition (R1–R4). What cannot be compared does not (R5)."""
    match constraint.operator:
        case Operator.EQUALS | Operator.IN:
            return value is not None and value in constraint.values
        case Operator.NOT_EQUALS | Operator.NOT_IN:
            return value is None or value not in constraint.values
        case Operator.EXISTS:
            return value is not None
        case Operator.NOT_EXISTS:
            return value is None
        case Operator.GT:
            return (difference := _difference(value, constraint)) is not None and difference > 0
        case Operator.LT:
            return (difference := _difference(value, constraint)) is not None and difference < 0


def _difference(value: str | None, constraint: Constraint) -> int | None:
    """By how much the label is larger than the constraint's value; None: one of them is no 64-bit integer (R4)."""
    (limit,) = constraint.values
    return int(value) - int(limit) if value is not None and is_int64(value) and is_int64(limit) else None


def is_eligible(node: Node, request: Request) -> bool:
    """Ready, all required constraints hold, and one of the alternatives: its domains count for spread (R36)."""
    return node.state is NodeState.READY and meets_constraints(node, request)


def meets_constraints(node: Node, request: Request) -> bool:
    """All required constraints hold, and one of the alternatives if there are any."""
    if not all(holds(one, node) for one in request.constraints if one.mode is Mode.REQUIRED):
        return False
    return not request.any_of or any(_matches(terms, node) for terms in request.any_of)


def _matches(terms: tuple[Constraint, ...], node: Node) -> bool:
    """R7, R8: all terms of an alternative hold; an empty alternative matches no node."""
    return bool(terms) and all(holds(one, node) for one in terms)


def preferred_weight(node: Node, request: Request) -> int:
    """R11: the sum of the weights of the preferred constraints that hold."""
    return sum(one.weight for one in request.constraints if one.mode is Mode.PREFERRED and holds(one, node))


# --- taints -----------------------------------------------------------------------------------------------


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """R19–R21: no key is every key, no effect is every effect, `exists` ignores the value."""
    if toleration.effect is not None and toleration.effect is not taint.effect:
        return False
    if toleration.key is not None and toleration.key != taint.key:
        return False
    return toleration.operator is TolerationOperator.EXISTS or toleration.value == taint.value


def untolerated(node: Node, request: Request) -> list[Taint]:
    """The taints that keep the request off the node (R23)."""
    return [taint for taint in node.taints if taint.effect in FILTERING and not _is_tolerated(taint, request)]


def intolerable(node: Node, request: Request) -> int:
    """R24, R25: how many `prefer_no_schedule` taints it does not tolerate."""
    return sum(taint.effect is Effect.PREFER_NO_SCHEDULE and not _is_tolerated(taint, request) for taint in node.taints)


def _is_tolerated(taint: Taint, request: Request) -> bool:
    """A `no_execute` taint that is tolerated for no time at all would evict at once what has just come (R27)."""
    if not any(tolerates(toleration, taint) for toleration in request.tolerations):
        return False
    return taint.effect is not Effect.NO_EXECUTE or shortest_toleration(taint, request) != 0


def shortest_toleration(taint: Taint, request: Request) -> int | None:
    """For how many seconds the taint is tolerated, the shortest of all that say so (R27); None: for ever."""
    given = [one.seconds for one in request.tolerations if one.seconds is not None and tolerates(one, taint)]
    return max(0, min(given)) if given else None


# --- the node by itself -------------------------------------------------------------------------------------


def admits(node: Node, request: Request) -> bool:
    """Whether `node_reasons` is empty, without building reasons: asked of every node."""
    if not takes_work(node) or not suits(node, request):
        return False
    if request.node is not None and request.node != node.id:
        return False
    return all(node.label(key) is not None for key in topology_keys(request))


def takes_work(node: Node) -> bool:
    """Ready, not cordoned, not draining."""
    return node.state is NodeState.READY and node.schedulable and node.drain is None


def suits(node: Node, request: Request) -> bool:
    """Whether its taints are tolerated and the required constraints hold."""
    if node.taints and untolerated(node, request):
        return False
    return meets_constraints(node, request)


def topology_keys(request: Request) -> Iterator[str]:
    """The keys that a node must have: those of required affinity (R30) and required spread (R36)."""
    for term in (*request.affinity, *request.spread):
        if term.mode is Mode.REQUIRED:
            yield term.topology_key


def node_reasons(node: Node, request: Request) -> list[Reason]:
    """Every rule that the node's own row breaks: these change only when the node does."""
    found: list[Reason] = []
    if request.node is not None and request.node != node.id:
        found.append(_reason(ReasonCode.WRONG_NODE, request.node))
    found += [
        _reason(ReasonCode.CONSTRAINT_NOT_MET, spoken(one))
        for one in request.constraints
        if one.mode is Mode.REQUIRED and not holds(one, node)
    ]
    if request.any_of and not any(_matches(terms, node) for terms in request.any_of):
        found.append(_reason(ReasonCode.NO_ALTERNATIVE_MATCHES, None))
    missing = dict.fromkeys(key for key in topology_keys(request) if node.label(key) is None)
    found += [_reason(ReasonCode.TOPOLOGY_KEY_MISSING, key) for key in missing]
    if node.state is not NodeState.READY:
        found.append(_reason(ReasonCode.NODE_LOST, None))
    found += [_reason(ReasonCode.UNTOLERATED_TAINT, str(taint)) for taint in untolerated(node, request)]
    if not node.schedulable:
        found.append(_reason(ReasonCode.NODE_CORDONED, None))
    if node.draining:
        found.append(_reason(ReasonCode.NODE_DRAINING, None))
    return found


def spoken(constraint: Constraint) -> str:
    """The condition as people write it: `region in us-east-1,us-west-2`."""
    return " ".join(part for part in (constraint.key, constraint.operator.value, ",".join(constraint.values)) if part)


# --- reservations ---------------------------------------------------------------------------------------------


def reservation_reason(state: State, request: Request) -> Reason | None:
    """Why the request may not draw on the reservation it names, whatever the node; None also without one."""
    if request.reservation is None:
        return None
    reservation = state.reservations.reservations.get(request.reservation)
    if reservation is None:
        return _reason(ReasonCode.RESERVATION_UNKNOWN, request.reservation)
    if not _is_owned(reservation, request):
        return _reason(ReasonCode.RESERVATION_NOT_OWNED, reservation.id)
    if reservation.is_over:
        return _reason(ReasonCode.RESERVATION_ENDED, reservation.id)
    if reservation.state is not ReservationState.ACTIVE:
        return _reason(ReasonCode.RESERVATION_NOT_ACTIVE, reservation.id)
    return None


def _is_owned(reservation: Reservation, request: Request) -> bool:
    """R94: any owner, all of its fields; without owners the reservation's namespace."""
    if not reservation.body.owners:
        return request.namespace == reservation.namespace
    return any(
        owner.namespace in (None, request.namespace) and has_labels(request.labels, owner.labels)
        for owner in reservation.body.owners
    )


def is_outside_reservation(state: State, node: Node, request: Request) -> bool:
    """Whether the reservation that the request draws on holds nothing on the node."""
    return request.reservation is not None and request.reservation not in state.reservations.on_node(node.id)


# --- all of it --------------------------------------------------------------------------------------------------


def surroundings_of(state: State, request: Request) -> Surroundings | None:
    """The neighbours that matter to `request`, to be counted once for all nodes; None: none do."""
    if not needs_surroundings(state, request):
        return None
    return surroundings(state, request, lambda node: is_eligible(node, request))


def required_reasons(state: State, node: Node, request: Request, around: Surroundings | None = None) -> list[Reason]:
    """Every required rule, capacity aside, that one more instance on `node` would break now; by precedence.

    `around`: the surroundings when the caller has counted them already.
    """
    found = node_reasons(node, request)
    reservation = reservation_reason(state, request)
    if reservation is not None:
        found.append(reservation)
    elif is_outside_reservation(state, node, request):
        found.append(_reason(ReasonCode.OUTSIDE_RESERVATION, request.reservation))
    around = around or surroundings_of(state, request)
    if around is not None:
        found += around.reasons(node)
    return by_precedence(found)


def capacity_reasons(state: State, node: Node, request: Request, at: int) -> list[Reason]:
    """Every dimension in which one more instance does not fit from `at` (milliseconds UTC) on (R39, R87).

    What only the hold of a reservation keeps busy is said to be held.
    """
    drawing = request.reservation
    free = free_now(state, node, drawing)
    idle = node.allocatable.minus(state.cluster.used_on(node.id))
    full = reservation_full(state, node, request.charge, drawing) if drawing is not None else None
    found: list[Reason] = [] if full is None else [full.model_copy(update={"nodes": 1})]
    for dimension, needed in request.charge.dimensions():
        left = free.amount(dimension)
        if needed <= left or (full is not None and full.dimension == dimension):
            continue
        held = needed <= idle.amount(dimension)
        found.append(
            Reason(
                code=ReasonCode.HELD_BY_RESERVATION if held else insufficient(dimension),
                nodes=1,
                dimension=dimension,
                needed=needed,
                best_available=max(0, left),
            )
        )
    window = window_reason(state, node, request.charge, at=at, ends_at=ends_at(request, at), drawing=drawing)
    if window is not None:
        found.append(window.model_copy(update={"nodes": 1}))
    kept = promise_reason(state, node, request, at=at, ends_at=ends_at(request, at))
    return by_precedence(found if kept is None else [*found, kept])


def fits(state: State, node: Node, request: Request, free: Resources, at: int) -> bool:
    """Whether `capacity_reasons` is empty, given what `free_now` said: asked of every node."""
    if not request.charge.fits_in(free):
        return False
    until = ends_at(request, at)
    if state.reservations.on_node(node.id) and window_reason(
        state, node, request.charge, at=at, ends_at=until, drawing=request.reservation
    ):
        return False
    return promise_reason(state, node, request, at=at, ends_at=until) is None


def why_not(state: State, node: Node, request: Request, at: int, around: Surroundings | None = None) -> list[Reason]:
    """Everything that keeps one more instance off `node` at `at`, first what no waiting mends; [] if it may come."""
    return by_precedence([*required_reasons(state, node, request, around), *capacity_reasons(state, node, request, at)])


def by_precedence(reasons: Iterable[Reason]) -> list[Reason]:
    """The order in which one of them stands for its node."""
    return sorted(reasons, key=lambda reason: (PRECEDENCE[reason.code], reason.dimension or ""))


def _reason(code: ReasonCode, detail: str | None) -> Reason:
    return Reason(code=code, nodes=1, detail=detail)
