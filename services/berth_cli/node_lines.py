"""How nodes and their drains are shown to people. Pure: rows of the read model in, lines out."""

from collections.abc import Iterable
from typing import Any

from berth.messages.reasons import Reason, sentence
from berth.resources import CPU, DISK, RAM
from berth_cli.output import table

Row = dict[str, Any]

_UNITS = {RAM: 1024, DISK: 1000}
_SHORT = {CPU: "cpu", RAM: "ram", DISK: "disk"}
NEEDS = {"deadline": "must not run elsewhere: leaves at the deadline", "grace": "has been told to stop"}


def listed(rows: Iterable[Row]) -> list[str]:
    """A line a node: what it is doing, how much of it is used, what it is."""
    return table(
        ("node", "state", "cpu", "ram", "disk", "instances", "extended", "taints", "labels"),
        [
            (
                row["id"],
                state_of(row),
                *(_part(row, dimension) for dimension in ("cpu_millicores", "ram_mb", "disk_mb", "instances")),
                " ".join(f"{name}:{_part(row, name)}" for name in sorted(row["capacity"]["extended"])) or None,
                " ".join(map(taint, row["taints"])) or None,
                _labels(row) or None,
            )
            for row in rows
        ],
    )


def shown(row: Row) -> list[str]:
    """One node whole: what it is, each dimension, how far its drain has come and what that waits for."""
    facts = [("node", row["id"]), ("state", state_of(row)), ("labels", _labels(row) or "-")]
    facts.append(("taints", " ".join(map(taint, row["taints"])) or "-"))
    drain = row["drain"]
    if drain is not None:
        facts.append(("drain", progress(drain)))
        facts.append(("since", drain["since"]))
        facts.append(("deadline", drain["deadline"] or "none: it waits for as long as it takes"))
    width = max(len(name) for name, _ in facts)
    lines = [f"{name.ljust(width)}  {value}" for name, value in facts]
    lines += ["", *_dimensions(row)]
    if drain is not None and drain.get("waiting"):
        lines += ["", *_waiting(drain)]
    return lines


def state_of(row: Row) -> str:
    """`ready`, `lost`, `cordoned`, `draining` (how many are left), `drained`: what an operator wants to know first."""
    words = [] if row["state"] == "ready" else [row["state"]]
    drain = row["drain"]
    if drain is not None:
        left = drain["left"] + drain["releasing"]
        words.append(f"draining ({left} left)" if left else "drained")
    elif not row["schedulable"]:
        words.append("cordoned")
    return ", ".join(words) or "ready"


def progress(drain: Row) -> str:
    """`48 moved, 1 evicted, 1 left`."""
    words = [f"{drain['moved']} moved", f"{drain['left']} left"]
    words += [f"{drain[name]} {name}" for name in ("evicted", "releasing") if drain[name]]
    return ", ".join(words)


def taint(written: Row) -> str:
    """`dedicated=gpu:no_schedule`."""
    value = f"={written['value']}" if written.get("value") else ""
    return f"{written['key']}{value}:{written['effect']}"


def waiting_for(row: Row) -> str:
    """Why one allocation is still on the node."""
    if row["waits_for"] in NEEDS:
        return NEEDS[row["waits_for"]]
    reasons = [Reason.model_validate(reason) for reason in row["reasons"]]
    return "; ".join(map(_counted, reasons)) or "moves now"


def _counted(reason: Reason) -> str:
    nodes = f" on {reason.nodes} node{'s' if reason.nodes != 1 else ''}" if reason.nodes else ""
    return sentence(reason) + nodes


def _waiting(drain: Row) -> list[str]:
    rows = [(f"{one['namespace']}/{one['id']}", one["until"], waiting_for(one)) for one in drain["waiting"]]
    more = drain["left"] + drain["releasing"] - len(rows)
    return [*table(("still here", "until", "waits for"), rows), *([f"and {more} more"] if more > 0 else [])]


def _dimensions(row: Row) -> list[str]:
    names = [name for name in row["capacity"] if name != "extended"]
    rows = [_dimension(row, name) for name in (*names, *sorted(row["capacity"]["extended"]))]
    return table(("dimension", "used", "reserved", "capacity", "used %"), rows)


def _dimension(row: Row, name: str) -> tuple[object, ...]:
    used, reserved, capacity = (_amount(row[part], name) for part in ("used", "reserved", "capacity"))
    room = capacity - reserved
    share = f"{100 * used / room:.0f}" if room > 0 else None
    return (_SHORT.get(name, name), *(amount(name, each) for each in (used, reserved, capacity)), share)


def _part(row: Row, name: str) -> str:
    return f"{amount(name, _amount(row['used'], name))}/{amount(name, _amount(row['capacity'], name))}"


def _amount(vector: Row, name: str) -> int:
    return vector.get(name, vector.get("extended", {}).get(name, 0))


def amount(name: str, value: int) -> str:
    """Cores of CPU, GB of RAM and disk from a GB on; what else there is in pieces."""
    if name == CPU:
        return f"{value / 1000:g}"
    unit = _UNITS.get(name)
    if unit is None:
        return str(value)
    return f"{value / unit:.4g}G" if value >= unit else f"{value}M" if value else "0"


def _labels(row: Row) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(row["labels"].items()))
