"""What would be different: the document of `berth plan --what-if`."""

from pydantic import Field, TypeAdapter

from berth.messages.documents import CohortDocument, NodeDocument, QuotaDocument
from berth.messages.requests import Capacity, Document, LabelKey, LabelValue, NamespaceName, NodeName, Taint


class NodeChangeDocument(Document):
    """A node that is there, and what changes about it; what is left out stays.

    Of `capacity` and `reserved` only the amounts that are written change, of `labels` only those that are written:
    null takes a label away. `taints` are all of them.
    """

    id: NodeName
    capacity: Capacity | None = None
    reserved: Capacity | None = None
    labels: dict[LabelKey, LabelValue | None] = Field(default_factory=dict[str, "str | None"])
    taints: tuple[Taint, ...] | None = None
    schedulable: bool | None = None


class WhatIfDocument(Document):
    """Tried in this order on a copy of the cluster: quotas and cohorts set and removed, nodes added, changed, removed.

    What runs on a node that is removed is queued again, if it says so, and decided first.
    """

    quotas: tuple[QuotaDocument, ...] = ()
    cohorts: tuple[CohortDocument, ...] = ()
    remove_quotas: tuple[NamespaceName, ...] = ()
    add_nodes: tuple[NodeDocument, ...] = ()
    change_nodes: tuple[NodeChangeDocument, ...] = ()
    remove_nodes: tuple[NodeName, ...] = ()


WHAT_IF: TypeAdapter[WhatIfDocument] = TypeAdapter(WhatIfDocument)
