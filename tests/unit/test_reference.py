"""docs/reference is what the code says today."""

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from berth.subjects import SUBJECTS
from docs.generate_reference import FOLDER, PAGES


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_stored_page_is_what_the_code_makes(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name](), "run `make docs` and commit docs/reference"


def references(node: Any) -> Iterator[str]:
    """Every `$ref` in a JSON document."""
    if isinstance(node, dict):
        members = cast("dict[str, Any]", node)
        yield from (value for name, value in members.items() if name == "$ref")
        node = list(members.values())
    if isinstance(node, list):
        for value in cast("list[Any]", node):
            yield from references(value)


def test_the_asyncapi_document_has_a_channel_for_every_subject_and_no_dangling_reference() -> None:
    document: dict[str, Any] = json.loads(PAGES["asyncapi.json"]())

    assert {subject.name for subject in SUBJECTS} <= document["channels"].keys()
    for reference in references(document):
        target: Any = document
        for step in reference.split("/")[1:]:
            target = target[step]
