"""A small lint of the repository, for what ruff cannot see. Every message says what to do instead.

A rule is a function of one file that yields what is wrong with it. `RULES` are run over every file of
the repository; `PLANTED` shows each of them an offence that it must catch.
"""

import ast
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pytest

LINES_MAX = 400
LINES_MAX_OF = {"services/berth_raft/core/node.py": 540}
FUNCTION_LINES_MAX = 70

GENERATED_FOLDERS = {"__pycache__", "build", "dist", "node_modules", "test-results"}
HIDDEN_BUT_OURS = {".ci", ".dockerignore", ".gitignore"}
SHAPE_OF_A_SERVICE = {"__init__.py", "__main__.py", "settings.py"}
DECIDING_SERVICES = ("berth_quota", "berth_reservation", "berth_scheduler")


@dataclass(frozen=True)
class File:
    """One text file of the repository; `path` is relative to its root."""

    path: PurePosixPath
    text: str

    @cached_property
    def module(self) -> ast.Module | None:
        """The parsed source of a Python file, None for any other."""
        return ast.parse(self.text, str(self.path)) if self.path.suffix == ".py" else None

    @property
    def nodes(self) -> Iterator[ast.AST]:
        yield from ast.walk(self.module) if self.module else ()


Rule = Callable[[File], Iterator[str]]


# ---------------------------------------------------------------- names


def names_a_thing_not_a_place(file: File) -> Iterator[str]:
    if re.fullmatch(r"_?(utils?|helpers?|common|base|misc|core|logic|handlers?)\.py", file.path.name):
        yield (
            "is named after a place, not after what is in it: use the noun (resources.py, quorum.py); "
            "a lone function lives next to its only caller"
        )


def classes_are_not_agents(file: File) -> Iterator[str]:
    for node in file.nodes:
        if not isinstance(node, ast.ClassDef):
            continue
        agent = re.search(r"(Manager|Helper|Handler|Processor|Util|Utils)$", node.name)
        misplaced = re.search(r"\wService$", node.name) and file.path.name not in {"service.py", "test_tidy.py"}
        if agent or misplaced:
            yield (
                f"line {node.lineno}: class {node.name} hides the verb: write a function "
                "(place, admit, renew) on a frozen dataclass; a service's class lives in service.py"
            )


def words_are_whole(file: File) -> Iterator[str]:
    short = {"alloc": "allocation", "req": "request", "mgr": "the verb", "cfg": "settings", "ts": "at_ms"}
    for node in file.nodes:
        if isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name = node.name
        else:
            continue
        for part in short.keys() & set(name.lower().split("_")):
            yield f"line {node.lineno}: {name}: write the word out ({short[part]})"


def records_of_decisions_and_changes_are_named_alike(file: File) -> Iterator[str]:
    folder, name = str(file.path.parent), file.path.name
    if folder == "changelog.d" and not re.fullmatch(
        r"README\.md|[\w-]+\.(added|changed|fixed|removed|safety)\.md", name
    ):
        yield "name it <issue>.<added|changed|fixed|removed|safety>.md"
    if folder == "docs/adr" and not re.fullmatch(r"README\.md|\d{4}-[a-z0-9-]+\.md", name):
        yield "name it <four digits>-<the-decision-in-words>.md"


# ---------------------------------------------------------------- shape


def modules_say_what_is_here(file: File) -> Iterator[str]:
    if file.module and not (ast.get_docstring(file.module) or "").strip():
        yield "has no docstring: begin with one sentence that says what is here"


def packages_have_no_logic(file: File) -> Iterator[str]:
    if file.path.name != "__init__.py" or not file.module:
        return
    for node in file.module.body:
        constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        exported = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in {"__all__", "__version__"}
        if not (constant or exported or isinstance(node, ast.Import | ast.ImportFrom)):
            yield f"line {node.lineno}: a docstring and re-exports only: move the code to a module with a name"


def files_tell_one_story(file: File) -> Iterator[str]:
    limit = LINES_MAX_OF.get(str(file.path), LINES_MAX)
    if file.module and (lines := file.text.count("\n")) > limit:
        yield f"has {lines} lines, more than {limit}: give the second story in it a file of its own"


def functions_fit_on_a_screen(file: File) -> Iterator[str]:
    for node in file.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield (
                    f"line {node.lineno}: {node.name} has {lines} lines, more than {FUNCTION_LINES_MAX}: "
                    "name its steps and make them functions"
                )


# ---------------------------------------------------------------- code


def errors_are_not_swallowed(file: File) -> Iterator[str]:
    instead = "let it crash (state is in the ledger), or catch the one type that you can act on"
    for node in file.nodes:
        if isinstance(node, ast.ExceptHandler):
            silent = all(isinstance(line, ast.Pass) for line in node.body)
            if node.type is None or silent:
                yield (
                    f"line {node.lineno}: an except that hides what went wrong: {instead}; "
                    "where nothing is to be done, contextlib.suppress(ThatOneType) and why"
                )
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            everything = {ast.unparse(kind) for kind in node.args} & {"Exception", "BaseException"}
            if everything:
                yield f"line {node.lineno}: suppress of everything: {instead}"


def nothing_is_mocked(file: File) -> Iterator[str]:
    for node in file.nodes:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        module = node.module if isinstance(node, ast.ImportFrom) else None
        if (module == "unittest" and "mock" in names) or "unittest.mock" in {module, *names}:
            yield "mocks: use berth.sim's world or a real nats-server; contract tests keep the two alike"


def the_raft_core_stands_alone(file: File) -> Iterator[str]:
    if not str(file.path).startswith("services/berth_raft/core/"):
        return
    for node in file.nodes:
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or "."]
        else:
            continue
        for module in modules:
            own = module == "berth_raft.core" or module.startswith("berth_raft.core.")
            if not own and module.split(".")[0] not in sys.stdlib_module_names:
                yield (
                    f"line {node.lineno}: imports {module}: the core knows the standard library and itself; "
                    "hand the value in as an argument"
                )


# ---------------------------------------------------------------- text


def what_is_to_be_done_has_an_issue(file: File) -> Iterator[str]:
    pattern = r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b(?!\(#\d+\))"
    for number, line in enumerate(file.text.splitlines(), 1):
        if found := re.search(pattern, line):
            yield f"line {number}: {found[1]} without an issue is for ever: write {found[1]}(#123), or do it now"


def nothing_names_this_machine(file: File) -> Iterator[str]:
    """The tree must build anywhere: no folder of a person's machine, no address of a package index."""
    paths = r"(?<![\w.*-])/(?:root|work|Users/\w+|home/\w+)/"
    hosts = r"https?://[\w.-]*(?:pypi|pythonhosted|npmjs|docker\.io)\b"
    options = r"^\s*--?(?:extra-)?(?:index-url|find-links|trusted-host)\b"
    for number, line in enumerate(file.text.splitlines(), 1):
        if re.search(paths, line):
            yield f"line {number}: names a folder of one machine: make it relative, or an argument"
        if re.search(hosts, line) or (file.path.suffix == ".txt" and re.search(options, line)):
            yield f"line {number}: names a package index: leave the choice to who installs"


RULES: list[Rule] = [
    names_a_thing_not_a_place,
    classes_are_not_agents,
    words_are_whole,
    records_of_decisions_and_changes_are_named_alike,
    modules_say_what_is_here,
    packages_have_no_logic,
    files_tell_one_story,
    functions_fit_on_a_screen,
    errors_are_not_swallowed,
    nothing_is_mocked,
    the_raft_core_stands_alone,
    what_is_to_be_done_has_an_issue,
    nothing_names_this_machine,
]


# ---------------------------------------------------------------- the repository


def files_of(root: Path) -> list[File]:
    """Every text file of the checkout, leaving out what tools and clusters made."""
    files: list[File] = []
    for folder, subfolders, names in os.walk(root):
        hidden = {name for name in [*subfolders, *names] if name.startswith(".")} - HIDDEN_BUT_OURS
        subfolders[:] = sorted(set(subfolders) - hidden - GENERATED_FOLDERS)
        for name in sorted(set(names) - hidden):
            path = Path(folder, name)
            content = path.read_bytes()
            if b"\0" not in content and not path.is_symlink():
                relative = PurePosixPath(path.relative_to(root).as_posix())
                files.append(File(relative, content.decode(errors="replace")))
    return files


@pytest.fixture(scope="module")
def files(repository: Path) -> list[File]:
    return files_of(repository)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_repository_is_tidy(rule: Rule, files: list[File]) -> None:
    found = [f"{file.path}: {message}" for file in files for message in rule(file)]

    assert not found, "\n".join(["", *found])


def test_every_decision_file_is_under_the_contract_of_pure_code(repository: Path, files: list[File]) -> None:
    settings = tomllib.loads((repository / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    (pure,) = (contract for contract in contracts if contract["name"] == "Pure code has no outside")

    decisions = {
        ".".join(file.path.parts[1:]).removesuffix(".py")
        for file in files
        if file.path.parts[0] == "services"
        and file.path.parts[1] in DECIDING_SERVICES
        and file.path.suffix == ".py"
        and file.path.name not in SHAPE_OF_A_SERVICE
    }
    missing = sorted(decisions - set(pure["source_modules"]))
    assert not missing, f"add to the contract 'Pure code has no outside' in pyproject.toml: {missing}"


def test_decisions_are_numbered_once(repository: Path) -> None:
    numbers = [path.name[:4] for path in sorted((repository / "docs/adr").glob("[0-9]*.md"))]

    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]


def test_links_between_documents_lead_somewhere(repository: Path, files: list[File]) -> None:
    broken = [
        f"{file.path}: {link}"
        for file in files
        if file.path.suffix == ".md"
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", file.text)
        if not (repository / file.path.parent / link).exists()
    ]

    assert not broken, f"correct or remove these links: {broken}"


# ---------------------------------------------------------------- the lint itself

PLANTED: list[tuple[Rule, str, str]] = [
    (names_a_thing_not_a_place, "shared/berth/utils.py", '"""Things."""'),
    (classes_are_not_agents, "shared/berth/quota.py", "class QuotaManager: ..."),
    (classes_are_not_agents, "shared/berth/quota.py", "class QuotaService: ..."),
    (words_are_whole, "shared/berth/quota.py", "def charge(alloc: int) -> None: ..."),
    (words_are_whole, "shared/berth/quota.py", "old_cfg = 1"),
    (records_of_decisions_and_changes_are_named_alike, "changelog.d/news.md", ""),
    (records_of_decisions_and_changes_are_named_alike, "docs/adr/1-tea.md", ""),
    (modules_say_what_is_here, "shared/berth/quota.py", "SIZE = 1"),
    (packages_have_no_logic, "shared/berth/__init__.py", "def connect() -> None: ..."),
    (packages_have_no_logic, "shared/berth/__init__.py", "for name in (): ..."),
    (files_tell_one_story, "shared/berth/quota.py", "\n" * (LINES_MAX + 1)),
    (functions_fit_on_a_screen, "shared/berth/quota.py", "def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX),
    (errors_are_not_swallowed, "shared/berth/quota.py", "try: x = 1\nexcept KeyError: pass"),
    (errors_are_not_swallowed, "shared/berth/quota.py", "try: x = 1\nexcept: raise"),
    (errors_are_not_swallowed, "shared/berth/quota.py", "with contextlib.suppress(Exception): x = 1"),
    (nothing_is_mocked, "tests/unit/test_quota.py", "from unittest.mock import Mock"),
    (nothing_is_mocked, "tests/unit/test_quota.py", "from unittest import mock"),
    (the_raft_core_stands_alone, "services/berth_raft/core/node.py", "import orjson"),
    (the_raft_core_stands_alone, "services/berth_raft/core/node.py", "from berth_raft.settings import X"),
    (what_is_to_be_done_has_an_issue, "README.md", "TO" + "DO: tell the rest"),
    (nothing_names_this_machine, "README.md", "cd /ro" + "ot/berth"),
    (nothing_names_this_machine, "requirements/runtime.txt", "--index-url mirror"),
    (nothing_names_this_machine, "README.md", "https://files.python" + "hosted.org/x"),
]


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED, ids=lambda value: getattr(value, "__name__", None))
def test_a_planted_offence_is_found(rule: Rule, path: str, text: str) -> None:
    (message, *others) = rule(File(PurePosixPath(path), text))

    assert not others
    assert len(message) > 20, "a message says what to do instead"


def test_every_rule_has_a_planted_offence() -> None:
    assert {rule for rule, _, _ in PLANTED} == set(RULES)


def test_good_code_passes_every_rule() -> None:
    good = File(
        PurePosixPath("services/berth_raft/core/quorum.py"),
        '"""Who is a majority."""\n\nimport enum\n\n\ndef majority(members: int) -> int:\n'
        "    # TO" + "DO(#7): learners do not count\n    return members // 2 + 1\n",
    )

    assert [message for rule in RULES for message in rule(good)] == []
