"""Old event bodies → newer ones, pure, one version at a time. Stored events are never edited.

An entry maps (type, version) to the function that turns a body of that version into the next one.
Entries are never deleted: `tests/golden/events` holds an event of every version ever written.
"""

from collections.abc import Callable, Mapping
from typing import Any

Body = dict[str, Any]
Upcaster = Callable[[Body], Body]

UPCASTERS: Mapping[tuple[str, int], Upcaster] = {}


def upcast(type_name: str, version: int, body: Body, *, to: int, upcasters: Mapping[tuple[str, int], Upcaster]) -> Body:
    """`body` as version `to` writes it.

    Raises:
        KeyError: no upcaster leads on from a version on the way; that is a bug of this release.
    """
    for step in range(version, to):
        body = upcasters[type_name, step](body)
    return body
