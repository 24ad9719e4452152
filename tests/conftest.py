"""What every test gets: a time limit by its kind, seeds, repeatable hypothesis runs, a browser to drive."""

import os
import shutil
from pathlib import Path

import hypothesis
import pytest

from tests.seeds import SEEDS

# Seconds after which a test that hangs is ended. They measure nothing, so they are generous:
# the machine that runs the tests may be busy with something else.
TIME_LIMITS = {"nats": 60, "slow": 120, "e2e": 240}

# What a whole folder needs, so that no test of it can forget to say so.
KIND_OF_FOLDER = {"integration": "nats", "e2e": "e2e"}

hypothesis.settings.register_profile("check", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("search", deadline=None, max_examples=2_000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "check"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for folder, kind in KIND_OF_FOLDER.items():
            if Path(__file__).parent / folder in item.path.parents:
                item.add_marker(kind)
        limits = [limit for kind, limit in TIME_LIMITS.items() if item.get_closest_marker(kind)]
        if limits and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(max(limits)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `seed` runs once for each of `SEEDS`."""
    if "seed" in metafunc.fixturenames and not any(
        "seed" in str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize")
    ):
        metafunc.parametrize("seed", SEEDS)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def chromium() -> str:
    """The system's Chromium, which playwright drives (it brings none of its own here).

    Where there is none, the test is skipped with the reason, and fails in CI.
    """
    for name in (os.environ.get("BERTH_CHROMIUM", "chromium"), "chromium-browser", "google-chrome"):
        if program := shutil.which(name):
            return program
    missing = "no Chromium on PATH: run `make browser` as root, or set BERTH_CHROMIUM to its program"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
