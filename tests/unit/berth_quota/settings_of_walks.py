"""What the walks of these tests begin with."""

from typing import Any

from berth.ids import NodeId, RequestId, Sequence
from berth.messages.events import (
    AllocationsEnded,
    Event,
    How,
    NodeChanged,
    RequestQueued,
    Transaction,
    Wake,
    WakeOn,
    about,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import Request
from tests.builders import TEAM_A, a_node, a_request
from tests.unit.berth_quota.walk import Walk


def cores(count: int) -> dict[str, int]:
    return {"cpu_millicores": count * 1_000}


def a_walk(*setting: Any, room: int = 8, **more: Any) -> Walk:
    """One node with `room` cores, and what `setting` says."""
    return Walk((a_node(cpu=room * 1_000), *setting), **more)


def wants(request: str, whole_cores: int = 1, **document: Any) -> Request:
    """A request of team-a, each instance of so many cores."""
    return a_request(request, cpu=whole_cores * 1_000, **document)


def drained(walk: Walk, request: str) -> list[Transaction]:
    """n1 is drained: the request leaves it and is queued again in one transaction."""
    key = (TEAM_A, RequestId(request))
    ended = AllocationsEnded(ids=walk.leader.queue.requests[key].live, how=How.EVICTED, reason=ReasonCode.DRAINED)
    queued = RequestQueued(
        reasons=(Reason(code=ReasonCode.DRAINED),),
        wake=(Wake(on=WakeOn.CAPACITY), Wake(on=WakeOn.NODES)),
        evaluated_at=Sequence(walk.leader.sequence),
    )
    return [(Event(NodeChanged(node=NodeId("n1"), draining=True)),), (about(key, ended), about(key, queued))]
