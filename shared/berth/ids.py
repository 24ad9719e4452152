"""Names and counters, one type each, and the grammar of the names that people choose."""

import re
from typing import NewType

Namespace = NewType("Namespace", str)
RequestId = NewType("RequestId", str)
AllocationId = NewType("AllocationId", str)
NodeId = NewType("NodeId", str)
ReservationId = NewType("ReservationId", str)
CohortName = NewType("CohortName", str)
LedgerId = NewType("LedgerId", str)

Term = NewType("Term", int)
Sequence = NewType("Sequence", int)
Attempt = NewType("Attempt", int)

RequestKey = tuple[Namespace, RequestId]
AllocationKey = tuple[Namespace, AllocationId]

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
"""RFC 1123 label of at most 63 characters: such a name is a subject token as it stands."""

NAME_LENGTH_MAX = 63

LABEL_VALUE_PATTERN = r"^(([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?)$"
"""Kubernetes label value: empty, or at most 63 characters that start and end alphanumeric."""

LABEL_KEY_PATTERN = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
"""Kubernetes label key: an optional DNS prefix and a slash, then a name of at most 63 characters."""

_NAME = re.compile(NAME_PATTERN)


def is_name(text: str) -> bool:
    """Whether `text` may name a namespace, request, node, quota, cohort or reservation."""
    return _NAME.match(text) is not None and not text.endswith("\n")


def allocation_id(request: RequestId, index: int, replacement: int = 0) -> AllocationId:
    """`<request>.<index>`, and `<request>.<index>.<n>` for the n-th replacement of that instance."""
    assert index >= 0 and replacement >= 0
    suffix = f".{replacement}" if replacement else ""
    return AllocationId(f"{request}.{index}{suffix}")
