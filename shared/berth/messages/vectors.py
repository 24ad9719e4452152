"""The resource vector as a field of messages and events: whole numbers, absent is 0."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler
from pydantic.functional_serializers import PlainSerializer
from pydantic.functional_validators import PlainValidator
from pydantic_core import CoreSchema, core_schema

from berth.messages.validation import expected
from berth.resources import BUILT_IN, CPU, DISK, INSTANCES, LARGEST, RAM, Extended, Resources


def read_vector(value: Any) -> Resources:
    """`{cpu_millicores, ram_mb, disk_mb, instances, extended: {name: n}}`; other members are ignored."""
    if type(value) is Resources:
        return value
    if type(value) is not dict:
        raise expected("expected a mapping of amounts")
    members: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType] a JSON mapping
    get = members.get
    extended = _pairs(members["extended"]) if "extended" in members else ()
    vector = Resources(get(CPU, 0), get(RAM, 0), get(DISK, 0), get(INSTANCES, 0), extended)
    for amount in vector[:4]:
        if type(amount) is not int or not -LARGEST <= amount <= LARGEST:
            raise expected(f"expected whole numbers of at most {LARGEST}")
    return vector


def _pairs(extended: Any) -> Extended:
    if type(extended) is not dict:
        raise expected("expected a mapping of amounts by name")
    named: dict[str, Any] = extended  # pyright: ignore[reportUnknownVariableType] a JSON mapping
    for amount in named.values():
        if type(amount) is not int or not -LARGEST <= amount <= LARGEST:
            raise expected(f"expected whole numbers of at most {LARGEST}")
    return tuple(sorted((name, amount) for name, amount in named.items() if amount))


def _written_vector() -> CoreSchema:
    """What JSON schema says of a vector."""
    amount = core_schema.int_schema(strict=True, ge=-LARGEST, le=LARGEST)
    field = core_schema.typed_dict_field
    extended = core_schema.dict_schema(core_schema.str_schema(), amount)
    fields = {name: field(core_schema.with_default_schema(amount, default=0), required=False) for name in BUILT_IN}
    return core_schema.typed_dict_schema({**fields, "extended": field(extended, required=False)})


class _AsWritten:
    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(read_vector)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(_written_vector())


Vector = Annotated[Resources, _AsWritten, PlainSerializer(Resources.as_mapping, return_type=dict[str, object])]


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
