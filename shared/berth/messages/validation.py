"""From what pydantic found to problems that name the path and what was expected."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from berth.errors import InvalidCommand, Problem

T = TypeVar("T")

PROBLEMS_SHOWN = 50
"""More than this many lines help nobody."""


def expected(sentence: str) -> PydanticCustomError:
    """Raised inside a validator: what should have stood there."""
    return PydanticCustomError("expected", "{sentence}", {"sentence": sentence})


@dataclass(frozen=True, slots=True)
class Matching:
    """On a string field: it must match `pattern`, else `sentence` says what should have stood there.

    Checked without a call into Python: names and labels stand in every message. `$` is the very end.
    """

    pattern: str
    sentence: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        matching = core_schema.custom_error_schema(
            core_schema.str_schema(pattern=self.pattern),
            custom_error_type="expected",
            custom_error_message="{sentence}",
            custom_error_context={"sentence": self.sentence},
        )
        return core_schema.chain_schema([handler(source), matching])

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The schema says string: what must match is said in words where the field is described."""
        return handler(core_schema.str_schema())


def parse(adapter: TypeAdapter[T], body: bytes | str, *, root: str) -> T:
    """Validate JSON text strictly.

    Raises:
        InvalidCommand: with one problem a line, each path beginning with `root`.
    """
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise InvalidCommand(problems(error, root=root)) from None


def check(model: type[BaseModel], values: Any, *, root: str) -> None:
    """Validate Python values strictly; see `parse` for errors."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        raise InvalidCommand(problems(error, root=root)) from None


def problems(error: ValidationError, *, root: str) -> list[Problem]:
    """One problem for each thing found, in document order, at most PROBLEMS_SHOWN."""
    found = error.errors(include_url=False, include_context=True, include_input=True)
    return [Problem(path=_path(root, item["loc"]), expected=_sentence(item)) for item in found[:PROBLEMS_SHOWN]]


def _path(root: str, location: Sequence[int | str]) -> str:
    path = root
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += f".{step}" if path else step
    return path or "document"


def _sentence(item: ErrorDetails) -> str:
    context = item.get("ctx", {})
    kind = item["type"]
    match kind:
        case "expected":
            text = str(context["sentence"])
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "unknown field; check its spelling"
        case "enum" | "literal_error":
            text = f"expected one of {context.get('expected')}"
        case "json_invalid":
            return f"is not JSON: {context.get('error')}"
        case "string_type":
            text = "expected a string (quote it)"
        case "int_type" | "int_from_float":
            text = "expected a whole number"
        case "float_type":
            text = "expected a number"
        case "bool_type":
            text = "expected true or false"
        case "list_type" | "tuple_type":
            text = "expected a list"
        case "dict_type" | "model_type" | "model_attributes_type":
            text = "expected a mapping"
        case _:
            message = item["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            text = f"expected {_lower_first(message)}"
    return f"{text}, found {_shown(item['input'])}"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _shown(value: Any) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)  # pyright: ignore[reportUnknownArgumentType]
    return text if len(text) <= 60 else text[:57] + "..."
