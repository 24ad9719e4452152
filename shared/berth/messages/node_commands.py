"""What operators ask of a node, on `berth.v1.admin.node`; the answer is an `AdminAnswer`."""

from typing import Annotated, Any, Literal, Self, cast

from pydantic import Discriminator, Field, Tag, TypeAdapter, model_validator

from berth.messages.requests import Document, NodeName
from berth.messages.validation import expected

DRAIN_SECONDS_MAX = 365 * 24 * 3600


class SetNode(Document):
    """Cordon or uncordon, start or stop a drain.

    `deadline_seconds`: what has no other place by then, counted from now, is evicted; without it a drain waits for
    ever. Said again while the node is being drained, it counts anew.
    """

    command: Literal["set"] = "set"
    node: NodeName
    schedulable: bool | None = None
    draining: bool | None = None
    deadline_seconds: Annotated[int, Field(ge=0, le=DRAIN_SECONDS_MAX)] | None = None

    @model_validator(mode="after")
    def _deadline_of_a_drain(self) -> Self:
        if self.deadline_seconds is not None and not self.draining:
            raise expected("expected a deadline only where draining is true")
        return self


class RemoveNode(Document):
    """Take the node out of the cluster for good; refused while work is on it. `force`: that is evicted at once."""

    command: Literal["remove"] = "remove"
    node: NodeName
    force: bool = False


def _command_about_a_node(document: Any) -> str:
    """What says nothing sets, as ever."""
    return str(cast(dict[str, Any], document).get("command", "set")) if isinstance(document, dict) else "set"


NodeCommand = SetNode | RemoveNode
AdminNode = Annotated[
    Annotated[SetNode, Tag("set")] | Annotated[RemoveNode, Tag("remove")], Discriminator(_command_about_a_node)
]
ADMIN_NODE: TypeAdapter[NodeCommand] = TypeAdapter(AdminNode)
