"""The AsyncAPI document: every subject as a channel, every role's operations, every message's schema."""

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

import berth.messages
from berth import subjects


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
