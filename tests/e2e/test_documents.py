"""README and guide on a real cluster: every command runs, and what comes out is what the page shows."""

import ast
import asyncio
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from tests.documents import Block, blocks, misshapen, pages, unlike, with_outputs
from tests.e2e.up_cluster import UpCluster
from tests.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).parent.parent.parent
BUS, CONSOLE, FOLDER = "nats://127.0.0.1:4222", "http://127.0.0.1:4223", ".berth/"
"""Where the pages find a cluster of `make up`."""

SCRIPT_WITHIN_S = 120
RESTARTS = Path("docs/guide/operating.md")
"""This page stops its cluster and starts it again with other nodes."""


def with_blocks(language: str) -> list[Path]:
    return [page for page in pages(REPOSITORY) if any(one.language == language for one in blocks(REPOSITORY, page))]


@dataclass(frozen=True)
class Reader:
    """Somebody who does what a page says, in a folder of their own."""

    cluster: UpCluster
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("BERTH_", "OTEL_"))}
        told = self.cluster.description
        return {
            **clean,
            "PATH": f"{Path(sys.executable).parent}:{clean['PATH']}",
            "BERTH_DIR": str(self.cluster.folder),
            "BERTH_URL": told["nats_url"],
            "BERTH_KEY": str(self.cluster.folder / "keys/client.nk"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-eu", "-c", script],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SCRIPT_WITHIN_S,
            check=False,
        )

    def here(self, text: str) -> str:
        """What a page says of its own cluster, said of this one."""
        told = self.cluster.description
        named = text.replace(BUS, told["nats_url"]).replace(CONSOLE, told["console_url"])
        return named.replace(f'"{FOLDER}', f'"{self.cluster.folder}/')

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(self.cluster.description["console_url"] + path, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@pytest.fixture(scope="module")
def demo_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpCluster]:
    """What `make up` starts: 20 nodes and the demo workload, decided."""
    cluster = UpCluster(tmp_path_factory.mktemp("demo") / "cluster")
    cluster.up()
    until(lambda: len(cluster.json("requests")) >= 8)
    yield cluster
    cluster.down()


def a_reader(cluster: UpCluster, folder: Path) -> Reader:
    (folder / "examples").symlink_to(REPOSITORY / "examples")
    return Reader(cluster, folder)


@pytest.fixture
def reader(demo_cluster: UpCluster, tmp_path: Path) -> Reader:
    return a_reader(demo_cluster, tmp_path)


# --- shell ------------------------------------------------------------------------------------------------------------


def do_what_it_says(reader: Reader, page: Path) -> None:
    for block, output in with_outputs(blocks(REPOSITORY, page)):
        if not block.is_run:
            continue
        done = reader.run(block.text)
        assert done.returncode == 0, f"{block} ended with {done.returncode}: {done.stderr}{done.stdout}"
        if output is not None:
            why = differs(output, done.stdout + done.stderr if output.language == "text" else done.stdout)
            assert why is None, f"{output}: {why}\nwhat came out:\n{done.stdout}"


def differs(shown: Block, printed: str) -> str | None:
    """What the page shows and the command does not print."""
    if shown.language == "text":
        missing = unlike(shown.text, printed)
        return None if missing is None else f"nothing like {missing!r} came out here"
    found = json.loads(printed)
    return misshapen(json.loads(shown.text), found) if found else "nothing came out"


@pytest.mark.parametrize("page", [page for page in with_blocks("sh") if page != RESTARTS], ids=str)
def test_what_a_page_says_happens(reader: Reader, page: Path) -> None:
    do_what_it_says(reader, page)


def test_stopping_killing_and_starting_again(tmp_path: Path) -> None:
    cluster = UpCluster(tmp_path / "cluster")
    cluster.up()
    try:
        do_what_it_says(a_reader(cluster, tmp_path), RESTARTS)
    finally:
        cluster.down()


# --- Python -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", with_blocks("python"), ids=str)
def test_the_programs_of_a_page_run(reader: Reader, page: Path) -> None:
    programs = [block for block in blocks(REPOSITORY, page) if block.language == "python" and not block.about]

    async def in_order() -> None:
        known: dict[str, Any] = {}
        for program in programs:
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            code = compile(reader.here(program.text), str(program), "exec", flags=flags)
            outcome = eval(code, known)  # noqa: S307 - the repository's own documentation
            if inspect.isawaitable(outcome):
                await outcome

    asyncio.run(in_order())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("submit.py", "placed ["),
        ("script.py", "job-19 placed ["),
    ],
)
def test_the_example_programs_run(reader: Reader, name: str, says: str) -> None:
    done = reader.run(f"python examples/{name}")

    assert done.returncode == 0, done.stderr
    assert says in done.stdout


# --- the bus, by hand -------------------------------------------------------------------------------------------------

NATS_COMMAND = re.compile(r"^nats (?P<verb>pub|req) .*$", re.MULTILINE)


async def by_hand(bus: Client, verb: str, subject: str, payload: str) -> bytes:
    """What `nats pub` leads to: the decision about the first request; or what `nats req` is answered."""
    if verb == "req":
        return (await bus.request(subject, payload.encode(), timeout=10)).data
    first = json.loads(payload)[0]
    name = first if isinstance(first, str) else first["id"]
    decisions = await bus.subscribe(  # pyright: ignore[reportUnknownMemberType] nats-py is partly typed
        f"berth.v1.decision.team-a.{name}"
    )
    await bus.flush()
    await bus.publish(subject, payload.encode())
    decision = await decisions.next_msg(timeout=20)
    await decisions.unsubscribe()
    return decision.data


def test_what_is_published_by_hand_is_answered_as_the_page_shows(reader: Reader) -> None:
    page = Path("docs/guide/bus.md")

    async def story() -> int:
        told = reader.cluster.description
        seed = str(reader.cluster.folder / told["credentials"]["client"])
        bus = await nats.connect(  # pyright: ignore[reportUnknownMemberType] as above
            told["nats_url"], nkeys_seed=seed, inbox_prefix=b"_INBOX_client"
        )
        compared = 0
        for block, output in with_outputs(blocks(REPOSITORY, page)):
            for match in NATS_COMMAND.finditer(block.text):
                _, verb, subject, payload = shlex.split(match[0])
                answer = await by_hand(bus, verb, subject, payload)
                if output is not None:
                    why = differs(output, answer.decode())
                    assert why is None, f"{output}: {why}\n{answer.decode()}"
                    compared += 1
        await bus.close()
        return compared

    assert asyncio.run(story()) == 3


# --- the console ------------------------------------------------------------------------------------------------------


def test_the_console_answers_at_the_addresses_of_its_page(reader: Reader) -> None:
    text = (REPOSITORY / "docs/guide/console.md").read_text()
    addresses = re.findall(r"`GET (/[\w/]*)`", text)

    assert len(addresses) >= 6
    for address in addresses:
        status, _ = reader.get(address)
        assert status == 200, address


def test_the_console_answers_searches_as_its_page_shows(reader: Reader) -> None:
    compared = 0
    for block, output in with_outputs(blocks(REPOSITORY, Path("docs/guide/console.md"))):
        if (fetched := re.search(rf"curl '{CONSOLE}(/[^']*)'", block.text)) and output is not None:
            _, body = reader.get(fetched[1])
            why = differs(output, body.decode())
            assert why is None, f"{output}: {why}\n{body.decode()}"
            compared += 1
    assert compared == 2
