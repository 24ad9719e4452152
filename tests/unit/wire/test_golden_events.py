"""Every event ever written is read by today's code: one file a type and version, kept for ever.

A new type or version: write its line to `tests/golden/events/<Type>.v<version>.json` and never edit it again.
"""

import json
from pathlib import Path

import pytest

from berth.messages.events import EVENT_TYPES
from berth.wire.codec import decode_event, encode_event

GOLDEN = sorted((Path(__file__).parents[2] / "golden" / "events").glob("*.json"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_stored_event_is_still_read(path: Path) -> None:
    name, version = path.stem.split(".v")
    stored = path.read_bytes().strip()

    event = decode_event(json.loads(stored))

    assert event.type == name
    if int(version) == EVENT_TYPES[name][1]:
        assert encode_event(event) == stored, "today's version is written byte for byte as it is read"


def test_every_type_has_a_golden_event_of_the_version_written_today() -> None:
    stems = {path.stem for path in GOLDEN}

    assert {f"{name}.v{version}" for name, (_, version) in EVENT_TYPES.items()} <= stems


def test_a_member_of_a_newer_release_is_ignored() -> None:
    stored = json.loads((GOLDEN[0].parent / "NodeLost.v1.json").read_bytes())
    stored["data"]["since_version_9"] = True

    assert decode_event(stored).type == "NodeLost"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_an_event_that_writes_itself_writes_what_its_fields_say(path: Path) -> None:
    data = decode_event(json.loads(path.read_bytes())).data

    assert json.dumps(data.written()) == json.dumps(data.model_dump(mode="json", exclude_none=True))
