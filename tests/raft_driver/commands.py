"""What may stand in a command, and how anything else is refused."""

from typing import cast

from berth_raft.core.messages import Tip
from tests.raft_driver.nodes import TYPES

Command = dict[str, object]


class Refused(Exception):
    """A command that cannot be carried out; it has changed nothing."""


def only(command: Command, fields: str = "") -> Command:
    unknown = sorted(command.keys() - {"do", *fields.split()})
    if unknown:
        raise Refused(f"{unknown[0]}: expected nothing but {fields or 'do'}")
    return command


def whole(command: Command, name: str, *, default: int | None = None, most: int = 2**53) -> int:
    found = command.get(name, default)
    if type(found) is not int or not 0 <= found <= most:
        raise Refused(f"{name}: expected a whole number from 0 to {most}, found {found!r}")
    return found


def yes(command: Command, name: str, *, default: bool = True) -> bool:
    found = command.get(name, default)
    if not isinstance(found, bool):
        raise Refused(f"{name}: expected true or false, found {found!r}")
    return found


def node_id(command: Command, name: str) -> str:
    return str(whole(command, name))


def listed(command: Command, name: str) -> list[object]:
    found = command.get(name)
    if not isinstance(found, list):
        raise Refused(f"{name}: expected a list, found {found!r}")
    return cast("list[object]", found)


def node_ids(command: Command, name: str, *, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
    if default is not None and name not in command:
        return default
    return tuple(node_id({name: one}, name) for one in listed(command, name))


def tip_of(command: Command) -> Tip:
    found = listed({"tip": [0, 0], **command}, "tip")
    if len(found) != 2:
        raise Refused(f"tip: expected [barrier term, sequence], found {found!r}")
    return Tip(barrier_term=whole({"tip": found[0]}, "tip"), sequence=whole({"tip": found[1]}, "tip"))


def types_of(command: Command) -> set[str]:
    if command.get("types") is None:
        return set(TYPES.values())
    named = [str(one) for one in listed(command, "types")]
    unknown = [one for one in named if one not in TYPES.values()]
    if unknown:
        raise Refused(f"types: expected some of {', '.join(TYPES.values())}, found {unknown[0]!r}")
    return set(named)
