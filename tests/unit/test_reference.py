"""docs/reference is what the code says today."""

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from berth.subjects import SUBJECTS
from docs.generate_reference import FOLDER, PAGES
from docs.generator.rules import LAST, NOT_TAKEN, named_by_rule, rules_of


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


def test_every_rule_of_placement_has_a_test_or_a_reason_why_there_is_none() -> None:
    held = named_by_rule().keys()

    assert [number for number in range(1, LAST + 1) if number not in held and number not in NOT_TAKEN] == []
    assert sorted(held & NOT_TAKEN.keys()) == [], "what a test holds is followed"


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("test_r34_the_skew", [34]),
        ("test_r43_r44_nomads_values", [43, 44]),
        ("test_r19_to_r21_what_is_tolerated", [19, 20, 21]),
        ("test_rules_of_r5", []),
    ],
)
def test_a_tests_name_begins_with_the_rules_that_it_holds(name: str, rules: list[int]) -> None:
    assert list(rules_of(name)) == rules
