"""The resource vector as a field of messages and events: whole numbers, absent is 0."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic.functional_serializers import PlainSerializer
from pydantic.functional_validators import PlainValidator
from pydantic_core import CoreSchema, core_schema

from berth.messages.validation import expected
from berth.resources import BUILT_IN, LARGEST, Resources


def _sorted_pairs(extended: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, amount) for name, amount in extended.items() if amount))


def _written_vector() -> CoreSchema:
    """`{cpu_millicores, ram_mb, disk_mb, instances, extended: {name: n}}`, read without a call into Python
    where there are no extended resources: every event of every placement holds one.
    """
    amount = core_schema.int_schema(strict=True, ge=-LARGEST, le=LARGEST)
    extended = core_schema.no_info_after_validator_function(
        _sorted_pairs, core_schema.dict_schema(core_schema.str_schema(), amount)
    )
    fields = [
        *(core_schema.dataclass_field(name, core_schema.with_default_schema(amount, default=0)) for name in BUILT_IN),
        core_schema.dataclass_field("extended", core_schema.with_default_schema(extended, default=())),
    ]
    arguments = core_schema.dataclass_args_schema(Resources.__name__, fields)
    return core_schema.dataclass_schema(Resources, arguments, [*BUILT_IN, "extended"], slots=True, frozen=True)


class _AsWritten:
    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> CoreSchema:
        return _written_vector()


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
