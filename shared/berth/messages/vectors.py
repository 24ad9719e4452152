"""The resource vector as a field of messages and events: whole numbers, absent is 0."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic.functional_serializers import PlainSerializer
from pydantic.functional_validators import PlainValidator

from berth.messages.validation import expected
from berth.resources import BUILT_IN, CPU, DISK, INSTANCES, LARGEST, RAM, Resources


def read_vector(value: Any) -> Resources:
    """The vector that `{cpu_millicores, ram_mb, disk_mb, instances, extended: {name: n}}` writes."""
    if isinstance(value, Resources):
        return value
    if not isinstance(value, dict):
        raise expected("expected a resource vector")
    get: Any = value.get  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] a JSON mapping
    amounts = (get(CPU, 0), get(RAM, 0), get(DISK, 0), get(INSTANCES, 0))
    extended: dict[str, int] = get("extended") or {}
    for amount in (*amounts, *extended.values()):
        if type(amount) is not int or not -LARGEST <= amount <= LARGEST:
            raise expected("expected whole numbers in a resource vector")
    return Resources(*amounts, tuple(sorted((name, n) for name, n in extended.items() if n)))


Vector = Annotated[
    Resources, PlainValidator(read_vector), PlainSerializer(Resources.as_mapping, return_type=dict[str, object])
]


def written_amounts(said: Mapping[str, int]) -> dict[str, object]:
    """Named amounts as events write a limit: only what was said, zeros kept (0 and absent differ)."""
    written: dict[str, object] = {name: said[name] for name in BUILT_IN if name in said}
    extended = {name: said[name] for name in sorted(said) if name not in BUILT_IN}
    if extended:
        written["extended"] = extended
    return written


def read_amounts(value: Any) -> dict[str, int]:
    """Named amounts of a limit, extended names beside the built-in ones."""
    if not isinstance(value, dict):
        raise expected("expected a mapping of amounts")
    entries: dict[str, Any] = dict(value)  # pyright: ignore[reportUnknownArgumentType] a JSON mapping
    nested: dict[str, Any] = entries.pop("extended", {})
    amounts = {**entries, **nested}
    for amount in amounts.values():
        if type(amount) is not int or not 0 <= amount <= LARGEST:
            raise expected("expected whole numbers of at least 0")
    return amounts


Limit = Annotated[
    dict[str, int], PlainValidator(read_amounts), PlainSerializer(written_amounts, return_type=dict[str, object])
]
"""Amounts by dimension where absent and 0 differ."""
