"""What answers a request: the decision object of the plan result and of live answers alike (DESIGN section 5)."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from berth.ids import AllocationId, Attempt, Namespace, NodeId, RequestId, Sequence, Term
from berth.messages.events import RequestStatus
from berth.messages.reasons import Reason, ReasonCode


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class PlacedAllocation(Answer):
    id: AllocationId
    node: NodeId


class EvictedAllocation(Answer):
    allocation: AllocationId
    namespace: Namespace
    node: NodeId
    reason: ReasonCode


class NodeVerdict(Answer):
    """One node as it was before the first instance was placed: every failing reason, or its final score."""

    node: NodeId
    feasible: bool
    reasons: tuple[Reason, ...] = ()
    score: int | None = None
    preferred: int = 0


class QuotaClasses(Answer):
    """How the namespace's usage is classed after the decision; amounts by dimension."""

    guaranteed: dict[str, int] = Field(default_factory=dict[str, int])
    borrowed: dict[str, int] = Field(default_factory=dict[str, int])
    burst: dict[str, int] = Field(default_factory=dict[str, int])


class Decision(Answer):
    """One request's outcome at one attempt. `digest` tells whose body it answers (R106).

    `status` is placed, queued or rejected; of a request that was placed before, also how it ended since.
    `sequence` 0: an answer without an event (invalid, conflict). `nodes` only where explained.
    """

    namespace: Namespace
    request: RequestId
    status: RequestStatus
    attempt: Attempt = Attempt(1)
    allocations: tuple[PlacedAllocation, ...] = ()
    evicted: tuple[EvictedAllocation, ...] = ()
    reasons: tuple[Reason, ...] = ()
    nodes: tuple[NodeVerdict, ...] | None = None
    quota: QuotaClasses = QuotaClasses()
    earliest_start: int | None = None
    sequence: Sequence = Sequence(0)
    term: Term = Term(0)
    digest: str = ""
    trace_id: str | None = None

    def as_mapping(self) -> dict[str, Any]:
        """The documented JSON shape; lists are always lists, `nodes` only where explained."""
        written = self.model_dump(mode="json", exclude={"reasons", "nodes"})
        written["reasons"] = [reason.as_mapping() for reason in self.reasons]
        if self.nodes is not None:
            written["nodes"] = [
                {
                    "node": verdict.node,
                    "feasible": verdict.feasible,
                    "reasons": [reason.as_mapping() for reason in verdict.reasons],
                    "score": verdict.score,
                    "preferred": verdict.preferred,
                }
                for verdict in self.nodes
            ]
        return written


class PlanResult(Answer):
    """What `plan` answers. `utilization`: used / capacity over ready nodes after the last decision.

    `fragmentation`: the part of what is free there that none of the recent request shapes can use.
    `usage`: both, with the amounts, for each group of nodes that was asked for (`berth top` says the same).
    `displaced`: what becomes of requests that a what-if takes the node from; they are decided before the others.
    """

    version: int = 1
    sequence: Sequence = Sequence(0)
    decisions: tuple[Decision, ...] = ()
    utilization: dict[str, float] = Field(default_factory=dict[str, float])
    fragmentation: dict[str, float] = Field(default_factory=dict[str, float])
    usage: dict[str, Any] | None = None
    displaced: tuple[Decision, ...] | None = None

    def as_mapping(self) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if self.displaced is not None:
            more["displaced"] = [decision.as_mapping() for decision in self.displaced]
        if self.usage is not None:
            more["usage"] = self.usage
        return {
            "version": self.version,
            "sequence": self.sequence,
            "decisions": [decision.as_mapping() for decision in self.decisions],
            "utilization": self.utilization,
            "fragmentation": self.fragmentation,
            **more,
        }
