"""Writes docs/reference from the code: events, reasons, subjects, AsyncAPI. `make docs` runs it.

A test fails when what is stored differs from what this makes, so the reference is never older than the code.
"""

import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

import berth.messages
from berth import subjects
from berth.messages.commands import RefusalCode
from berth.messages.events import EVENT_TYPES
from berth.messages.reasons import Reason, ReasonCode, sentence

FOLDER = Path(__file__).parent / "reference"
MADE_BY = "<!-- Made by `make docs`; edit the code instead. -->"


def page(title: str, introduction: str, lines: list[str]) -> str:
    return "\n".join([f"# {title}", "", MADE_BY, "", introduction, "", *lines, ""])


def table(*rows: tuple[str, ...]) -> list[str]:
    """The first row is the heading."""
    cells = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return [f"| {cells[0]} |", "|" + "---|" * len(rows[0]), *(f"| {row} |" for row in cells[1:])]


def first_sentence(thing: object) -> str:
    """Of a docstring, in one line; empty where the class has none of its own."""
    text = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    return re.split(r"\n\n|(?<=\.)\s", text)[0].replace("\n", " ")


# ---------------------------------------------------------------- pages


def type_in_words(schema: dict[str, Any]) -> str:
    """A JSON schema as a reader of JSON would say it."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(type_in_words(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {type_in_words(schema.get('items', {}))}"
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        return f"object of {type_in_words(cast('dict[str, Any]', values))}"
    return schema.get("type", "anything")


def members_of(schema: dict[str, Any]) -> list[str]:
    required = schema.get("required", ())
    rows = [
        (
            f"`{name}`",
            type_in_words(member),
            "always there"
            if name in required
            else f"`{json.dumps(member['default'])}`"
            if "default" in member
            else "empty",
        )
        for name, member in schema.get("properties", {}).items()
    ]
    return [*table(("member", "type", "when absent"), *rows), ""] if rows else ["No members.", ""]


def events() -> str:
    lines: list[str] = []
    parts: dict[str, Any] = {}
    for name, (model, version) in EVENT_TYPES.items():
        schema = model.model_json_schema(mode="serialization")
        parts |= schema.get("$defs", {})
        lines += [f"## {name}", "", f"Version {version}. {first_sentence(model)}".rstrip(), "", *members_of(schema)]
    lines += ["## Parts of events", ""]
    for name, schema in sorted(parts.items()):
        lines += [f"### {name}", ""]
        lines += members_of(schema) if "properties" in schema else [f"{type_in_words(schema)}", ""]
    return page(
        "Events",
        "Every type of event that a ledger may hold, and the members of its `data`. Names and versions are stored;\n"
        "old versions are read through upcasters. `berth schema` prints the same as JSON Schema.",
        lines[:-1],
    )


def reasons() -> str:
    codes = [(f"`{code.value}`", sentence(Reason(code=code))) for code in ReasonCode]
    refusals = [(f"`{code.value}`",) for code in RefusalCode]
    return page(
        "Reasons and refusals",
        "Why a request is not placed, or no longer is, in order of precedence: over one evaluation a node is counted\n"
        "under its first reason.",
        [
            *table(("code", "sentence"), *codes),
            "",
            "## Refusals of a proposal or command",
            "",
            *table(("code",), *refusals),
        ],
    )


def subject_tree() -> str:
    rows = [
        (
            f"`{subject.template}`",
            f"`{subject.message}`" + (f" → `{subject.reply}`" if subject.reply else ""),
            ", ".join(subject.publishers),
            ", ".join(subject.subscribers) or f"stream {subject.stream}",
            subject.summary,
        )
        for subject in subjects.SUBJECTS
    ]
    streams = [
        (
            stream.name,
            ", ".join(f"`{name}`" for name in stream.subjects),
            stream.retention,
            f"{stream.max_msg_size:,} bytes",
        )
        for stream in subjects.STREAMS
    ]
    return page(
        "Subjects and streams",
        "In the order in which a request meets them. The server's permissions are made from the same list.",
        [
            *table(("subject", "message → reply", "publish", "receive", "what"), *rows),
            "",
            "## Streams",
            "",
            *table(("stream", "subjects", "retention", "largest message"), *streams),
        ],
    )


# ---------------------------------------------------------------- AsyncAPI


def message_types() -> dict[str, type[BaseModel]]:
    """Every model of `berth.messages`, by name."""
    found: dict[str, type[BaseModel]] = {}
    for module in pkgutil.iter_modules(berth.messages.__path__, "berth.messages."):
        members = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        found |= {name: value for name, value in members if issubclass(value, BaseModel)}
    return found


def payload_of(message: str, schemas: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of `A | B` or `list[A]`, with what it refers to entered in `schemas`; None if it has none."""
    types, names = message_types(), re.findall(r"\w+", message.removeprefix("list"))
    if not all(name in types for name in names):
        return None
    for name in names:
        schema = types[name].model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[name] = schema
    references = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    if message.startswith("list["):
        return {"type": "array", "items": references[0]}
    return references[0] if len(references) == 1 else {"oneOf": references}


def operations_of(subject: subjects.Subject) -> Iterator[tuple[str, dict[str, Any]]]:
    for action, roles in (("send", subject.publishers), ("receive", subject.subscribers)):
        for role in roles:
            operation: dict[str, Any] = {"action": action, "channel": {"$ref": f"#/channels/{subject.name}"}}
            if subject.reply:
                operation["reply"] = {"channel": {"$ref": f"#/channels/{subject.name}_reply"}}
            yield f"{role}.{action}.{subject.name}", operation | {"tags": [{"name": role}]}


def asyncapi() -> str:
    schemas: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    channels: dict[str, Any] = {}
    for subject in subjects.SUBJECTS:
        for name, address, message in (
            (subject.name, subject.template, subject.message),
            (f"{subject.name}_reply", None, subject.reply),
        ):
            if message:
                payload = payload_of(message, schemas)
                messages[name] = {"title": message} | ({"payload": payload} if payload else {})
                channels[name] = {"address": address, "messages": {name: {"$ref": f"#/components/messages/{name}"}}}
        channels[subject.name] |= {"summary": subject.summary} | (
            {"parameters": {token: {} for token in re.findall(r"{(\w+)}", subject.template)}}
            if "{" in subject.template
            else {}
        )
    document = {
        "asyncapi": "3.0.0",
        "info": {"title": "Berth", "version": subjects.ROOT, "license": {"name": "Apache-2.0"}},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": dict(pair for subject in subjects.SUBJECTS for pair in operations_of(subject)),
        "components": {"messages": messages, "schemas": dict(sorted(schemas.items()))},
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "asyncapi.json": asyncapi,
    "events.md": events,
    "reasons.md": reasons,
    "subjects.md": subject_tree,
}


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make())
        print(f"wrote {(FOLDER / name).relative_to(Path.cwd())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
