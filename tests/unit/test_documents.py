"""README, guide, runbooks and examples say what the software takes.

That what they show comes out, on a real cluster, is tested in tests/e2e/test_documents.py.
"""

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import TypeAdapter

from berth.exports import PUBLIC
from berth.messages.documents import CLUSTER, NODE, QUOTAS, RESERVATION
from berth.messages.requests import REQUEST_LIST
from berth.messages.validation import parse
from berth.messages.what_if import WHAT_IF
from berth.runtime.telemetry import GAUGES
from berth_cli.documents import read_document, read_requests
from berth_cli.main import root
from tests.documents import NOT_RUN, PART_OF_A_REQUEST, Block, blocks, every_block, misshapen, pages, unlike

REPOSITORY = Path(__file__).parent.parent.parent

LINES_MAX = {"README.md": 110, "ARCHITECTURE.md": 300}
LANGUAGES = {"sh", "text", "json", "yaml", "python"}

EXAMPLES: dict[str, tuple[TypeAdapter[Any], str]] = {
    "cluster.yaml": (CLUSTER, "cluster"),
    "node.yaml": (NODE, "node"),
    "quotas.yaml": (QUOTAS, ""),
    "requests.yaml": (REQUEST_LIST, "requests"),
    "reservation.yaml": (RESERVATION, "reservation"),
    "series.yaml": (RESERVATION, "reservation"),
    "three-teams.yaml": (QUOTAS, ""),
    "web.yaml": (REQUEST_LIST, "requests"),
    "what-if.yaml": (WHAT_IF, "what_if"),
    "window.yaml": (RESERVATION, "reservation"),
}
"""What each document is: its reader, and how the paths of its problems begin."""


def of(language: str) -> list[Block]:
    return [block for block in every_block(REPOSITORY) if block.language == language]


def names(block: object) -> str:
    return str(block)


# --- the pages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LINES_MAX)
def test_a_page_is_no_longer_than_it_may_be(name: str) -> None:
    assert len((REPOSITORY / name).read_text().splitlines()) <= LINES_MAX[name]


def test_every_block_says_what_it_is() -> None:
    for block in every_block(REPOSITORY):
        assert block.language in LANGUAGES, f"{block}: {block.language!r} is none of {sorted(LANGUAGES)}"
        if block.language == "sh":
            assert not block.about or block.about.startswith(NOT_RUN), f"{block}: say `{NOT_RUN}` and why"
        if block.language == "yaml":
            assert block.about == PART_OF_A_REQUEST or (REPOSITORY / block.about).is_file(), str(block)


def test_the_guide_lists_every_page() -> None:
    index = (REPOSITORY / "docs/guide/README.md").read_text()

    listed = set(re.findall(r"\]\((\w+\.md)\)", index))

    assert listed == {page.name for page in pages(REPOSITORY)} - {"README.md"}


def test_every_runbook_is_listed() -> None:
    operating = (REPOSITORY / "docs/guide/operating.md").read_text()

    for runbook in (REPOSITORY / "docs/runbooks").glob("*.md"):
        assert f"(../runbooks/{runbook.name})" in operating, f"list {runbook.name} under Runbooks"


def headings(page: Path) -> set[str]:
    """The anchors of a page, as its readers' sites make them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_to_a_heading_find_it() -> None:
    written = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(REPOSITORY)}: {target}#{anchor}"
        for page in written
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", page.read_text())
        if anchor not in headings((page.parent / target) if target else page)
    ]

    assert broken == []


def test_what_a_runbook_is_found_by_is_what_the_software_says() -> None:
    sources = "".join(
        path.read_text() for folder in ("services", "shared") for path in (REPOSITORY / folder).rglob("*.py")
    )
    for runbook in (REPOSITORY / "docs/runbooks").glob("*.md"):
        text = runbook.read_text()
        for said in re.findall(r"log line ((?:`\w+`(?: or )?)+)", text):
            for event in re.findall(r"`(\w+)`", said):
                assert f'"{event}"' in sources, f"{runbook.name}: nothing logs {event}"
        for metric in re.findall(r"metric\s+`([\w.]+)`", text):
            assert metric in GAUGES, f"{runbook.name}: there is no metric {metric}"


# --- the map ------------------------------------------------------------------------------------------------------

ARCHITECTURE = (REPOSITORY / "ARCHITECTURE.md").read_text()
INVARIANTS = dict(re.findall(r"^\| (I\d+) \| (.*) \|$", ARCHITECTURE, re.MULTILINE))
LATER = {number for number, text in INVARIANTS.items() if text.startswith("*Later.*")}


def test_what_the_map_names_is_there() -> None:
    named = re.findall(r"`((?:shared|services|tests|docs)/[\w/.-]+)`", ARCHITECTURE)

    assert named
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_every_service_is_on_the_map() -> None:
    for service in (REPOSITORY / "services").glob("berth_*"):
        assert f"`services/{service.name}`" in ARCHITECTURE


def test_every_invariant_is_asserted_or_checked_under_its_number() -> None:
    files = [path for folder in ("shared", "services", "tests") for path in (REPOSITORY / folder).rglob("*.py")]
    used = {number for path in files for number in re.findall(r"\bI\d{1,2}\b", path.read_text())}

    assert list(INVARIANTS) == [f"I{number}" for number in range(1, 21)]
    assert used == INVARIANTS.keys() - LATER, (
        "give each its number, and say `*Later.*` of those that nothing can break yet"
    )


# --- documents ----------------------------------------------------------------------------------------------------


def test_every_example_document_is_known_here() -> None:
    assert {path.name for path in (REPOSITORY / "examples").glob("*.yaml")} == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_document_is_what_the_software_reads(name: str) -> None:
    adapter, begins = EXAMPLES[name]

    parse(adapter, read_document(str(REPOSITORY / "examples" / name)), root=begins)


def test_every_field_of_a_request_that_fits_beside_the_others_is_in_the_example() -> None:
    (request,) = read_requests(str(REPOSITORY / "examples/requests.yaml"))

    left_out = type(request).model_fields.keys() - request.model_fields_set

    assert left_out == {"node", "reservation", "if_sequence"}


@pytest.mark.parametrize("block", [one for one in of("yaml") if one.about != PART_OF_A_REQUEST], ids=names)
def test_a_document_in_a_page_is_the_example(block: Block) -> None:
    assert block.text == (REPOSITORY / block.about).read_text()


@pytest.mark.parametrize("block", [one for one in of("yaml") if one.about == PART_OF_A_REQUEST], ids=names)
def test_a_part_of_a_request_is_valid_in_one(block: Block) -> None:
    whole = {"id": "part", "namespace": "team-a", "resources": {"cpu_cores": 1}} | yaml.safe_load(block.text)

    parse(REQUEST_LIST, json.dumps([whole]), root="requests")


@pytest.mark.parametrize("block", of("json"), ids=names)
def test_what_is_shown_as_json_is_json(block: Block) -> None:
    json.loads(block.text)


# --- programs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", of("python"), ids=names)
def test_a_program_in_a_page_uses_what_there_is(block: Block) -> None:
    if block.about:
        assert block.text == (REPOSITORY / block.about).read_text()

    tree = compile(block.text, str(block), "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "berth"
    }
    assert used <= PUBLIC.keys()


# --- commands -----------------------------------------------------------------------------------------------------

ENDS_A_COMMAND = re.compile(r"\s#|\s\d?>|[|;)`]|&&|$", re.MULTILINE)
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b")


def command_lines(text: str) -> list[list[str]]:
    """The words of each `berth …` in a shell script."""
    found: list[list[str]] = []
    for match in re.finditer(r"(?:^|[\s(|])berth (?=[a-z-])", text, re.MULTILINE):
        end = ENDS_A_COMMAND.search(text, match.end())
        assert end is not None
        written = PLACEHOLDER.sub("1", text[match.end() : end.start()])
        found.append(shlex.split(written))
    return found


def parsed(words: list[str]) -> None:
    """Read a command line as `berth` reads it, without doing anything. Raises: it is no command line of `berth`."""
    command: Any = typer.main.get_command(root(words))
    depth = 0
    while hasattr(command, "commands"):
        assert words[depth] in command.commands, f"no command {' '.join(words[: depth + 1])}"
        command = command.commands[words[depth]]
        depth += 1
    command.make_context(" ".join(["berth", *words[:depth]]), words[depth:])


def scripts() -> list[Block]:
    runbooks = sorted((REPOSITORY / "docs/runbooks").glob("*.md"))
    return of("sh") + [
        block
        for page in runbooks
        for block in blocks(REPOSITORY, page.relative_to(REPOSITORY))
        if block.language == "sh"
    ]


@pytest.mark.parametrize("block", scripts(), ids=names)
def test_every_command_line_is_one(block: Block) -> None:
    for words in command_lines(block.text):
        parsed(words)


def test_a_command_line_that_is_none_is_found() -> None:
    (words,) = command_lines("x | berth submit f.yaml --wait 5 --colour red  # why not")

    assert words == ["submit", "f.yaml", "--wait", "5", "--colour", "red"]
    with pytest.raises(Exception, match="No such option: --colour"):
        parsed(words)


@pytest.mark.parametrize(
    "line",
    [
        "deadletter list",
        "doctor",
        "ledger roll",
        "simulate --seeds 3",
    ],
)
def test_what_is_said_not_to_be_there_is_not(line: str) -> None:
    """ARCHITECTURE, "Not there yet"; the guide's pages say the same. Who adds one takes it out there."""
    with pytest.raises((AssertionError, typer.exceptions.TyperException)):
        parsed(line.split())


# --- how outputs are compared -----------------------------------------------------------------------------------------


def test_what_is_shown_must_come_in_order() -> None:
    printed = "raft-1 leads at term 7\nweb-1    placed: web-1.0 on node-003\nexit code 5\n"

    assert unlike("web-9 placed: web-9.0 on node-001\nexit code 5\n", printed) is None
    assert unlike("exit code 4\n", printed) == "exit code 4"
    assert unlike("web-9 placed\nraft-1 leads\n", printed) == "raft-1 leads"


@pytest.mark.parametrize(
    ("shown", "found", "why"),
    [
        ({"a": 1}, {"a": 2}, None),
        ({"a": None}, {"a": 2}, None),
        ({"a": 1}, {"a": "x"}, "$.a is 'x', the page shows 1"),
        ({"a": 1}, {"a": 1, "b": 1}, "$ lacks [] and has ['b'] more"),
        ({"labels": {"zone": "a"}}, {"labels": {"region": "b"}}, None),
        ([{"a": 1}, {"b": 1}], [{"b": 2}, {"a": 3}], None),
        ([{"a": 1}], [{"b": 2}], "$[0] lacks ['a'] and has ['b'] more"),
        ([1.5], [2], None),
        ([True], [1], "$[0] is 1, the page shows True"),
    ],
)
def test_shapes_are_members_and_types(shown: object, found: object, why: str | None) -> None:
    assert misshapen(shown, found) == why
