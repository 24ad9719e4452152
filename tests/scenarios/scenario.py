"""A scenario: commands in a text file, and under each what passed from hand to hand because of it.

    # Comments say why.
    given node n1 cores=4           what was there before; tells nothing
    submit web cores=2              a command, or several, one a line; `&` at its end: at once with the next
    ----
    request    Request web          what happened, step by step, up to an empty line

`REWRITE=1` writes what happens now in place of what is said to happen.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from berth import subjects
from berth.ids import Namespace, NodeId, RequestId
from berth.messages.commands import (
    ApplyQuotas,
    CancelReservation,
    CreateReservation,
    ExtendReservation,
    NodeLeave,
    NodeRegister,
    ReleaseBatch,
    RequestBatch,
    ShrinkReservation,
    SkipReservation,
)
from berth.messages.documents import (
    CLUSTER,
    NODE,
    QUOTAS,
    RESERVATION,
    NodeDocument,
    QuotaDocument,
    ReservationDocument,
    time_text,
)
from berth.messages.node_commands import RemoveNode, SetNode
from berth.messages.requests import REQUEST_LIST, Request
from berth_cell.cell import Cell, Step
from berth_cell.seed import Dated, of_document
from tests.builders import T0, TEAM_A
from tests.scenarios.telling import Line, lines_of, moment

RULE = "----"
GIVEN = "given "
TOGETHER = " &"
Words = dict[str, Any]
Play = Callable[[Cell, list[str], Words], None]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some commands, and what is said to happen; without commands only the lines of a comment."""

    above: tuple[str, ...]
    commands: tuple[str, ...]
    told: tuple[str, ...]


def parse(text: str) -> list[Block]:
    """The blocks of a file, in order."""
    blocks: list[Block] = []
    for part in text.strip("\n").split("\n\n"):
        lines = part.strip("\n").split("\n")
        cut = lines.index(RULE) if RULE in lines else len(lines)
        comments = tuple(line for line in lines[:cut] if line.startswith("#"))
        commands = tuple(line for line in lines[:cut] if line and not line.startswith("#"))
        blocks.append(Block(above=comments, commands=commands, told=tuple(lines[cut + 1 :])))
    return blocks


def written(blocks: list[Block]) -> str:
    """The file again."""
    return "\n\n".join("\n".join(_block_lines(block)) for block in blocks) + "\n"


def _block_lines(block: Block) -> Iterator[str]:
    yield from block.above
    yield from block.commands
    if any(not command.startswith(GIVEN) for command in block.commands):
        yield RULE
        yield from block.told


def played(blocks: list[Block]) -> list[Block]:
    """The same blocks with what happens now."""
    stage = Stage()
    return [Block(above=block.above, commands=block.commands, told=stage.play(block.commands)) for block in blocks]


# --- commands ----------------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """The cell of one scenario, made when its first command comes."""

    given: dict[str, list[Words]] = field(default_factory=dict[str, list[Words]])
    _cell: Cell | None = None
    _told: list[Line] = field(default_factory=list[Line])
    _told_at: int = T0

    def play(self, commands: tuple[str, ...]) -> tuple[str, ...]:
        """What happens because of these commands."""
        self._told = []
        for command in commands:
            if command.startswith(GIVEN):
                self._give(command.removeprefix(GIVEN))
            else:
                self._do(command.removesuffix(TOGETHER))
                if not command.endswith(TOGETHER):
                    self.cell.run()
        return tuple(f"{step:<10} {text}" for step, text in self._told)

    def _do(self, command: str) -> None:
        verb, _, rest = command.partition(" ")
        names, words = _split(rest)
        COMMANDS[verb](self.cell, names, words)

    def _give(self, command: str) -> None:
        assert self._cell is None, f"given {command}: after the first command it is too late"
        kind, _, rest = command.partition(" ")
        (name,), words = _split(rest)
        self.given.setdefault(f"{kind}s", []).append(_document(kind, name, words))

    @property
    def cell(self) -> Cell:
        if self._cell is None:
            document = CLUSTER.validate_python(self.given, strict=False)
            history: list[Dated] = of_document(document, at_ms=T0)
            self._cell = Cell(at_ms=T0, history=history)
            self._cell.watch = self._passed
        return self._cell

    def _passed(self, step: Step) -> None:
        lines = lines_of(step, began_ms=T0)
        if lines and step.at_ms > self._told_at:
            self._told_at = step.at_ms
            self._told.append(("time", moment(step.at_ms, T0)))
        self._told += lines


def _split(rest: str) -> tuple[list[str], Words]:
    """Names, and words with a value: `web cores=2 label.app=db` (values as YAML reads them)."""
    names: list[str] = []
    words: Words = {}
    for part in rest.split():
        word, sign, value = part.partition("=")
        if sign:
            words[word] = yaml.safe_load(value)
        else:
            names.append(word)
    return names, words


SECONDS = {"s": 1, "m": 60, "h": 3_600}
AMOUNTS = {"cores": "cpu_cores", "ram": "ram_mb", "disk": "disk_mb", "instances": "instances"}


def _document(kind: str, name: str, words: Words) -> Words:
    match kind:
        case "node":
            return {"id": name, "capacity": _amounts(words), **_rest(words)}
        case "quota":
            return {"namespace": name, "hard": _amounts(words), **_rest(words)}
        case "cohort":
            return {"name": name, **_rest(words)}
        case _:
            return {"id": name, "namespace": TEAM_A, "resources": _amounts(words), **_rest(words)}


def _amounts(words: Words) -> Words:
    found = {AMOUNTS[word]: words.pop(word) for word in list(words) if word in AMOUNTS}
    if "gpu" in words:
        found["extended"] = {"gpu": words.pop("gpu")}
    return found


def _rest(words: Words) -> Words:
    """Everything else as the document has it: `label.zone=a`, `require.zone=a`, `soft.cores=4`, `nodes=n1,n2`,
    `start=+60`.
    """
    found: Words = {}
    for word, value in words.items():
        what, _, key = word.partition(".")
        match what:
            case "label":
                found.setdefault("labels", {})[key] = str(value)
            case "require":
                found.setdefault("constraints", []).append({"key": key, "operator": "equals", "values": [str(value)]})
            case "soft" | "borrowing_limit" | "lending_limit":
                found.setdefault(what, {})[AMOUNTS[key]] = value
            case "nodes":
                found[what] = str(value).split(",")
            case "spread":
                found[what] = [{"topology_key": str(value)}]
            case "daily":
                found["recurrence"] = {"cron": f"0 {value} * * *", "time_zone": "UTC"}
            case "start" | "end":
                found[what] = time_text(T0 + int(value) * 1000)
            case _:
                found[what] = value
    return found


def _submit(cell: Cell, names: list[str], words: Words) -> None:
    requests = tuple(_request(name, dict(words)) for name in names)
    namespace = requests[0].namespace
    cell.store(subjects.REQUEST, RequestBatch(namespace=namespace, requests=requests), namespace)


def _request(name: str, words: Words) -> Request:
    (request,) = REQUEST_LIST.validate_python([_document("request", name, words)], strict=False)
    return request


def _release(cell: Cell, names: list[str], words: Words) -> None:
    namespace = Namespace(words.get("namespace", TEAM_A))
    body = ReleaseBatch(namespace=namespace, requests=tuple(RequestId(name) for name in names))
    cell.store(subjects.RELEASE, body, namespace)


def _node(cell: Cell, names: list[str], words: Words) -> None:
    for name in names:
        node: NodeDocument = NODE.validate_python(_document("node", name, dict(words)), strict=False)
        cell.silent.discard(node.id)
        cell.ask(subjects.NODE_REGISTER, NodeRegister(node=node, session="scenario"), node=name)


def _leave(cell: Cell, names: list[str], _words: Words) -> None:
    for name in names:
        cell.ask(subjects.NODE_LEAVE, NodeLeave(node=NodeId(name)), node=name)


def _set(*, schedulable: bool | None = None, draining: bool | None = None) -> Play:
    def play(cell: Cell, names: list[str], words: Words) -> None:
        deadline = int(words["deadline"]) if "deadline" in words else None
        for name in names:
            change = SetNode(node=NodeId(name), schedulable=schedulable, draining=draining, deadline_seconds=deadline)
            cell.ask(subjects.ADMIN_NODE, change)

    return play


def _remove(cell: Cell, names: list[str], words: Words) -> None:
    for name in names:
        cell.ask(subjects.ADMIN_NODE, RemoveNode(node=NodeId(name), force=bool(words.get("force"))))


def _silence(cell: Cell, names: list[str], _words: Words) -> None:
    """Their agents beat no more."""
    cell.silent.update(NodeId(name) for name in names)


def _quota(cell: Cell, names: list[str], words: Words) -> None:
    documents: tuple[QuotaDocument, ...] = QUOTAS.validate_python(
        {"quotas": [_document("quota", name, dict(words)) for name in names]}, strict=False
    ).quotas
    cell.ask(subjects.ADMIN_QUOTA, ApplyQuotas(quotas=documents))


def _reserve(cell: Cell, names: list[str], words: Words) -> None:
    for name in names:
        written = _document("reservation", name, dict(words))
        reservation: ReservationDocument = RESERVATION.validate_python(written, strict=False)
        command = CreateReservation(reservation=reservation)
        cell.ask(subjects.RESERVE, command, namespace=reservation.namespace, verb=command.verb)


def _cancel(cell: Cell, names: list[str], words: Words) -> None:
    for name in names:
        command = CancelReservation(reservation=name, evict=bool(words.get("evict", False)))
        cell.ask(subjects.RESERVE, command, namespace=words.get("namespace", TEAM_A), verb=command.verb)


def _advance(cell: Cell, names: list[str], _words: Words) -> None:
    """`advance 10s`: to ten seconds later than now; `m` are minutes, `h` hours."""
    (time,) = names
    cell.advance(cell.now_ms + int(time[:-1]) * SECONDS[time[-1]] * 1000)


def _resize(kind: type[ExtendReservation] | type[ShrinkReservation]) -> Play:
    def play(cell: Cell, names: list[str], words: Words) -> None:
        for name in names:
            command = kind.model_validate({"reservation": name, **_rest(dict(words))})
            cell.ask(subjects.RESERVE, command, namespace=TEAM_A, verb=command.verb)

    return play


def _skip(cell: Cell, names: list[str], _words: Words) -> None:
    for name in names:
        command = SkipReservation(reservation=name)
        cell.ask(subjects.RESERVE, command, namespace=TEAM_A, verb=command.verb)


COMMANDS: dict[str, Play] = {
    "submit": _submit,
    "release": _release,
    "node": _node,
    "leave": _leave,
    "cordon": _set(schedulable=False),
    "uncordon": _set(schedulable=True),
    "drain": _set(draining=True),
    "undrain": _set(schedulable=True, draining=False),
    "remove": _remove,
    "silence": _silence,
    "quota": _quota,
    "reserve": _reserve,
    "cancel": _cancel,
    "extend": _resize(ExtendReservation),
    "shrink": _resize(ShrinkReservation),
    "skip": _skip,
    "advance": _advance,
}
