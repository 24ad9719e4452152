"""Pages about what passes between processes: events, reasons and refusals, subjects and streams."""

import json
from typing import Any, cast

from berth import subjects
from berth.messages.commands import RefusalCode
from berth.messages.events import EVENT_TYPES
from berth.messages.reasons import Reason, ReasonCode, sentence
from docs.generator.docstrings import field_docstrings
from docs.generator.markdown import first_sentence, page, table


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
    meanings = field_docstrings(RefusalCode)
    refusals = [(f"`{code.value}`", meanings[code.name]) for code in RefusalCode]
    return page(
        "Reasons and refusals",
        "Why a request is not placed, or no longer is, in order of precedence: over one evaluation a node is counted\n"
        "under its first reason.",
        [
            *table(("code", "sentence"), *codes),
            "",
            "## Refusals of a proposal or command",
            "",
            *table(("code", "meaning"), *refusals),
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
