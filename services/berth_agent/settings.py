"""What an operator may change about an agent."""

from typing import Annotated, ClassVar

from pydantic import Field

from berth import subjects
from berth.runtime.settings import ServiceSettings


class AgentSettings(ServiceSettings):
    """Neither `simulate` nor `node`: the agent offers the machine that it runs on."""

    service: ClassVar[str] = "agent"

    user: str = subjects.AGENT
    """`agent` may speak for any node, `agent-<node>` for that one."""
    simulate: Annotated[int | None, Field(ge=1, le=100_000)] = None
    """Offer so many simulated nodes."""
    instances: Annotated[int | None, Field(ge=1)] = None
    """What each simulated node holds; as many as a node that does not say, unless set (benchmarks need more)."""
    node: str | None = None
    """Offer this node: one of a cluster document, as JSON."""
    ask_every_ms: Annotated[int, Field(ge=100)] = 2_000
    """How often a node asks for its allocations; in large clusters every second heartbeat, if that is rarer."""
    runner: str | None = None
    """A program that starts and stops what is placed on the node, and lists what it has started; without one nothing
    is started anywhere."""
    leave: bool = False
    """Whether the nodes leave the cluster for good when the agent is asked to end."""
