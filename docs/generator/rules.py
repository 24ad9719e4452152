"""docs/reference/rules.md: which test holds which rule of semantics, found by the tests' names.

A test that is named `test_r34_…` holds R34, `test_r43_r44_…` both, `test_r1_to_r4_…` all of them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from docs.generator.markdown import page, table

TESTS = Path(__file__).parents[2] / "tests"
NAMED = re.compile(r"^ *(?:async )?def (test_r\d+\w*)\(", re.MULTILINE)

LAST = 58
"""Up to here every rule has a test, or a reason why Berth does not follow it."""

NOT_TAKEN = {
    10: "there are no field selectors: `node.id` is a key like any other",
    14: "operators are those of Kubernetes (R1–R5)",
    15: "operators are those of Kubernetes (R1–R5)",
    16: "there is no `set_contains`",
    17: "there are no version operators",
    18: "keys are not interpolated",
    22: "tolerations know `exists` and `equals`",
    38: "`anti_affinity` and `spread` say it instead",
    40: "scores are Nomad's (R43, R44)",
    41: "scores are Nomad's (R43, R44)",
    42: "scores are Nomad's (R43, R44)",
    46: "preferred anti-affinity subtracts as in Kubernetes (R12)",
    47: "failures on a node are not remembered",
    49: "spread has no target shares",
    50: "preferred spread counts neighbours, the fewest first",
    52: "nodes are scored, not sorted by dominant use",
    56: "there are no disruption budgets",
    58: "evict and place are one transaction: nothing is nominated",
}


def rules() -> str:
    held = named_by_rule()
    rows = [(f"R{number}", _tests(held.get(number, []), number)) for number in sorted({*held, *range(1, LAST + 1)})]
    introduction = (
        "Where the rules come from other systems, a test is named after the rule that it holds, so that "
        "`pytest -k r34` runs what there is about it. This is what the names say."
    )
    return page("Rules and their tests", introduction, table(("rule", "held by"), *rows))


def named_by_rule() -> dict[int, list[tuple[str, str]]]:
    """(file, test) of each rule, sorted."""
    found: dict[int, list[tuple[str, str]]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for name in NAMED.findall(path.read_text()):
            for number in rules_of(name):
                found.setdefault(number, []).append((path.relative_to(TESTS.parent).as_posix(), name))
    return found


def rules_of(name: str) -> Iterator[int]:
    """The rules at the beginning of a test's name."""
    words = name.removeprefix("test_").split("_")
    last: int | None = None
    for place, word in enumerate(words):
        if re.fullmatch(r"r\d+", word):
            number = int(word[1:])
            is_range = words[place - 1] == "to" and last is not None
            yield from range(last + 1, number + 1) if is_range and last is not None else (number,)
            last = number
        elif word != "to":
            return


def _tests(held: list[tuple[str, str]], number: int) -> str:
    if not held:
        return f"not followed: {NOT_TAKEN[number]}"
    return "<br>".join(f"[`{name}`](../../{file})" for file, name in held)
