"""The page of documents: every field that people write, and every field of a decision, with defaults and bounds."""

import inspect
from typing import Any, cast, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.functional_serializers import PlainSerializer

from berth.messages.decisions import (
    Decision,
    EvictedAllocation,
    NodeVerdict,
    PlacedAllocation,
    PlanResult,
    QuotaClasses,
)
from berth.messages.documents import (
    AllocationDocument,
    ClusterDocument,
    CohortDocument,
    NodeDocument,
    Owner,
    QuotaDocument,
    QuotasDocument,
    Recurrence,
    ReservationDocument,
    UnitSpread,
)
from berth.messages.reasons import Reason, ReasonCode
from berth.messages.requests import (
    AffinityTerm,
    Amounts,
    Capacity,
    Constraint,
    Request,
    SpreadTerm,
    Taint,
    Toleration,
)
from docs.generator.markdown import one_line, page, table
from docs.generator.settings import bounds

INTRODUCTION = """\
What people and scripts write as YAML or JSON, and below what a decision says. An unknown field, a wrong type or a
value out of bounds is refused with its path. Names (of requests, namespaces, nodes, reservations, cohorts) have 1
to 63 of `a-z`, `0-9` and `-`, and begin and end with a letter or digit; keys and values of labels follow the
grammar of Kubernetes. How it is all meant is in [the guide](../guide/README.md)."""

WRITTEN: tuple[type[BaseModel], ...] = (
    Request,
    Amounts,
    Constraint,
    AffinityTerm,
    SpreadTerm,
    Toleration,
    ClusterDocument,
    NodeDocument,
    Capacity,
    Taint,
    AllocationDocument,
    QuotasDocument,
    QuotaDocument,
    CohortDocument,
    ReservationDocument,
    Owner,
    Recurrence,
    UnitSpread,
)
ANSWERED: tuple[type[BaseModel], ...] = (
    PlanResult,
    Decision,
    PlacedAllocation,
    EvictedAllocation,
    Reason,
    NodeVerdict,
    QuotaClasses,
)


def documents() -> str:
    lines: list[str] = []
    for model in WRITTEN:
        lines += [f"## {model.__name__}", "", *_about(model), *_fields(model, mode="validation"), ""]
    lines += ["# What is answered", ""]
    for model in ANSWERED:
        lines += [f"## {model.__name__}", "", *_about(model), *_fields(model, mode="serialization"), ""]
    return page(
        "Documents",
        INTRODUCTION,
        lines[:-1],
    )


def _about(model: type[BaseModel]) -> list[str]:
    text = one_line(inspect.cleandoc(model.__doc__ or ""))
    return [text, ""] if text and "__doc__" in vars(model) else []


def _fields(model: type[BaseModel], *, mode: Any) -> list[str]:
    schema = model.model_json_schema(mode=mode)
    required = schema.get("required", ())
    definitions: dict[str, Any] = schema.get("$defs", {})
    written = {field.alias or name: field for name, field in model.model_fields.items()}
    rows = [
        (f"`{name}`", *_said_otherwise(written[name], member, definitions, is_required=name in required))
        for name, member in schema.get("properties", {}).items()
    ]
    return table(("field", "value", "when absent"), *rows)


def _said_otherwise(
    field: FieldInfo, schema: dict[str, Any], definitions: dict[str, Any], *, is_required: bool
) -> tuple[str, str]:
    """Value and default; of what is a whole number inside and something else outside (times, weights), the outside."""
    outside = next((one for one in _metadata(field) if isinstance(one, PlainSerializer)), None)
    absent = _default(schema, is_required=is_required)
    spoken: Any = None if outside is None else outside.return_type
    if outside is not None and spoken is str:
        return "time such as `2026-01-01T09:00:00Z`", absent
    if outside is not None and spoken is float:
        convert: Any = outside.func
        return "number ≥ 0, at most three decimals", absent if is_required else f"`{convert(field.default):g}`"
    return _in_words(schema, definitions), absent


def _metadata(field: FieldInfo) -> list[Any]:
    """What is annotated on the field, or on the type inside `… | None`."""
    inner = [one for part in get_args(field.annotation) for one in getattr(part, "__metadata__", ())]
    return [*field.metadata, *inner]


def _in_words(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        target = definitions[name]
        if name == ReasonCode.__name__:
            return "[code](reasons.md)"
        return _in_words(target, definitions) if "enum" in target else f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_in_words(one, definitions) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_in_words(schema.get('items', {}), definitions)}"
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        return f"mapping to {_in_words(cast('dict[str, Any]', values), definitions)}"
    return " ".join(filter(None, (schema.get("type", "anything"), bounds(schema))))


def _default(schema: dict[str, Any], *, is_required: bool) -> str:
    if is_required:
        return "**required**"
    if "default" not in schema:
        return "empty"
    match schema["default"]:
        case None:
            return "–"
        case [] | {}:
            return "empty"
        case bool() as value:
            return f"`{str(value).lower()}`"
        case "":
            return '`""`'
        case value:
            return f"`{value}`"
