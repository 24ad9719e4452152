"""Why not: a closed list of codes, each with its class, and the data of one reason.

A reason is data; sentences are rendered from it (`sentence`). Over one evaluation each node is counted
under the first of its reasons in the order of this list, so the counts sum to the nodes examined.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class ReasonKind(StrEnum):
    """What would have to change; each kind wakes on other events."""

    INFEASIBLE = "infeasible"
    WAITING = "waiting"
    QUOTA = "quota"
    RESERVATION = "reservation"
    INVALID = "invalid"
    ENDED = "ended"


class ReasonCode(StrEnum):
    """In order of precedence: what no waiting mends first, capacity last."""

    INVALID = "invalid"
    CONFLICT = "conflict"
    INFEASIBLE = "infeasible"
    EXCEEDS_HARD = "exceeds_hard"
    QUEUE_DEADLINE_PASSED = "queue_deadline_passed"
    RESERVATION_UNKNOWN = "reservation_unknown"
    RESERVATION_NOT_OWNED = "reservation_not_owned"
    RESERVATION_ENDED = "reservation_ended"
    RESERVATION_NOT_ACTIVE = "reservation_not_active"
    NAMESPACE_STOPPED = "namespace_stopped"
    BEHIND_ANOTHER = "behind_another"
    QUOTA_HARD = "quota_hard"
    QUOTA_CEILING = "quota_ceiling"
    QUOTA_GRACE_OVER = "quota_grace_over"
    WRONG_NODE = "wrong_node"
    CONSTRAINT_NOT_MET = "constraint_not_met"
    NO_ALTERNATIVE_MATCHES = "no_alternative_matches"
    TOPOLOGY_KEY_MISSING = "topology_key_missing"
    NODE_LOST = "node_lost"
    UNTOLERATED_TAINT = "untolerated_taint"
    NODE_CORDONED = "node_cordoned"
    NODE_DRAINING = "node_draining"
    OUTSIDE_RESERVATION = "outside_reservation"
    AFFINITY_NOT_MET = "affinity_not_met"
    ANTI_AFFINITY_CONFLICT = "anti_affinity_conflict"
    SPREAD_SKEW = "spread_skew"
    INSUFFICIENT_CPU = "insufficient_cpu"
    INSUFFICIENT_RAM = "insufficient_ram"
    INSUFFICIENT_DISK = "insufficient_disk"
    INSUFFICIENT_INSTANCES = "insufficient_instances"
    INSUFFICIENT_EXTENDED = "insufficient_extended"
    HELD_BY_RESERVATION = "held_by_reservation"
    HELD_BY_PROMISE = "held_by_promise"
    RESERVATION_FULL = "reservation_full"
    SIBLINGS_DO_NOT_FIT = "siblings_do_not_fit"
    RELEASED = "released"
    PREEMPTED = "preempted"
    RECLAIMED = "reclaimed"
    DRAINED = "drained"
    TAINTED = "tainted"
    NAMESPACE_DRAINED = "namespace_drained"
    LOST_WITH_NODE = "lost_with_node"
    DURATION_OVER = "duration_over"
    RESERVATION_OVER = "reservation_over"
    RESERVATION_CANCELLED = "reservation_cancelled"


PRECEDENCE: dict[ReasonCode, int] = {code: place for place, code in enumerate(ReasonCode)}

INSUFFICIENT: dict[str, ReasonCode] = {
    "cpu_millicores": ReasonCode.INSUFFICIENT_CPU,
    "ram_mb": ReasonCode.INSUFFICIENT_RAM,
    "disk_mb": ReasonCode.INSUFFICIENT_DISK,
    "instances": ReasonCode.INSUFFICIENT_INSTANCES,
}


def insufficient(dimension: str) -> ReasonCode:
    """The code for a shortage of `dimension`, extended resources included."""
    return INSUFFICIENT.get(dimension, ReasonCode.INSUFFICIENT_EXTENDED)


class Reason(BaseModel):
    """One reason. `nodes` counts nodes (0 where it is not about nodes); amounts are in the dimension's unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: ReasonCode
    nodes: int = 0
    dimension: str | None = None
    needed: int | None = None
    best_available: int | None = None
    detail: str | None = None

    def as_mapping(self) -> dict[str, object]:
        """JSON form: `code` and `nodes` always, the rest only where it says something."""
        written: dict[str, object] = {"code": self.code.value, "nodes": self.nodes}
        for name in ("dimension", "needed", "best_available", "detail"):
            value = getattr(self, name)
            if value is not None:
                written[name] = value
        return written


_SENTENCES: dict[ReasonCode, str] = {
    ReasonCode.INVALID: "the request is not valid",
    ReasonCode.CONFLICT: "the id is taken by a request with another body",
    ReasonCode.INFEASIBLE: "no node of this cluster could ever hold it",
    ReasonCode.EXCEEDS_HARD: "it asks for more than the namespace's hard quota could ever allow",
    ReasonCode.QUEUE_DEADLINE_PASSED: "its queue deadline passed",
    ReasonCode.RESERVATION_UNKNOWN: "the reservation does not exist",
    ReasonCode.RESERVATION_NOT_OWNED: "the reservation belongs to another namespace",
    ReasonCode.RESERVATION_ENDED: "the reservation is over",
    ReasonCode.RESERVATION_NOT_ACTIVE: "the reservation has not started",
    ReasonCode.NAMESPACE_STOPPED: "the namespace is held: nothing new is placed until it is resumed",
    ReasonCode.BEHIND_ANOTHER: "the namespace is strict_fifo and another of its requests comes first",
    ReasonCode.QUOTA_HARD: "the namespace's hard quota is used up",
    ReasonCode.QUOTA_CEILING: "the namespace may not borrow or burst any further",
    ReasonCode.QUOTA_GRACE_OVER: "the namespace has used more than its soft quota for longer than its grace",
    ReasonCode.WRONG_NODE: "it is not the node the request is pinned to",
    ReasonCode.CONSTRAINT_NOT_MET: "a required constraint does not hold",
    ReasonCode.NO_ALTERNATIVE_MATCHES: "none of the alternatives matches",
    ReasonCode.TOPOLOGY_KEY_MISSING: "the node lacks the topology key",
    ReasonCode.NODE_LOST: "the node is lost",
    ReasonCode.UNTOLERATED_TAINT: "a taint is not tolerated",
    ReasonCode.NODE_CORDONED: "the node is cordoned",
    ReasonCode.NODE_DRAINING: "the node is being drained",
    ReasonCode.OUTSIDE_RESERVATION: "the reservation holds nothing on the node",
    ReasonCode.AFFINITY_NOT_MET: "no allocation it wants to be near is in the node's domain",
    ReasonCode.ANTI_AFFINITY_CONFLICT: "an allocation it must not be near is in the node's domain",
    ReasonCode.SPREAD_SKEW: "the spread would be too uneven",
    ReasonCode.INSUFFICIENT_CPU: "not enough CPU is free",
    ReasonCode.INSUFFICIENT_RAM: "not enough RAM is free",
    ReasonCode.INSUFFICIENT_DISK: "not enough disk is free",
    ReasonCode.INSUFFICIENT_INSTANCES: "the node runs as many instances as it may",
    ReasonCode.INSUFFICIENT_EXTENDED: "not enough of an extended resource is free",
    ReasonCode.HELD_BY_RESERVATION: "what is free is held for a reservation",
    ReasonCode.HELD_BY_PROMISE: "what is free is kept for a request that was promised its start",
    ReasonCode.RESERVATION_FULL: "the reservation is used up",
    ReasonCode.SIBLINGS_DO_NOT_FIT: "one instance fits, all of them together do not",
    ReasonCode.RELEASED: "it was released",
    ReasonCode.PREEMPTED: "work of higher priority needed the room",
    ReasonCode.RECLAIMED: "the owner of the quota took it back",
    ReasonCode.DRAINED: "its node was drained",
    ReasonCode.TAINTED: "its node got a taint that it does not tolerate",
    ReasonCode.NAMESPACE_DRAINED: "its namespace was drained",
    ReasonCode.LOST_WITH_NODE: "its node was lost",
    ReasonCode.DURATION_OVER: "its duration is over",
    ReasonCode.RESERVATION_OVER: "the reservation it drew from is over",
    ReasonCode.RESERVATION_CANCELLED: "the reservation it drew from was given back",
}


def sentence(reason: Reason) -> str:
    """The reason for people, with its numbers: rendered from the data, never stored."""
    parts = [_SENTENCES[reason.code]]
    if reason.detail:
        parts.append(f"({reason.detail})")
    if reason.needed is not None:
        unit = reason.dimension or ""
        best = "" if reason.best_available is None else f", at best {reason.best_available} available"
        parts.append(f"[{unit} {reason.needed} needed{best}]".replace("[ ", "["))
    return " ".join(parts)
