"""The page of the command line, from the commands themselves."""

import importlib
from collections.abc import Iterator
from typing import Any

import typer

from berth_cli.main import COMMANDS, HELP, Entry
from docs.generator.markdown import one_line, page, table

CLUSTER_OPTIONS = ("url", "nkey", "folder", "as_json")


def commands() -> str:
    found = {name: _command(name, entry) for name, entry in COMMANDS.items()}
    shared = next(
        _options(command)
        for _, command in found.values()
        if {parameter.name for parameter in command.params} >= set(CLUSTER_OPTIONS)
    )
    lines = [
        "## Which cluster",
        "",
        one_line(HELP.split("\n\n")[1]),
        "",
        "Commands marked with ✱ take these:",
        "",
        *table(("option", "default", "what"), *(row for name, row in shared if name in CLUSTER_OPTIONS)),
        "",
    ]
    for entry, command in found.values():
        lines += _section(command, entry.help)
    return page(
        "Commands",
        "What `berth --help` says, in one place. Results are on standard output, everything else on standard error.\n"
        "Exit codes and the shapes of `--json` are in [the guide](../guide/scripting.md).",
        lines[:-1],
    )


def _command(name: str, entry: Entry) -> tuple[Entry, Any]:
    app: typer.Typer = importlib.import_module(entry.module).app
    if not entry.group:
        (info,) = (one for one in app.registered_commands if one.name == name)
        app = typer.Typer(add_completion=False)
        app.registered_commands.append(info)
    command: Any = typer.main.get_command(app)
    command.name = name
    return entry, command


def _section(command: Any, said: str) -> Iterator[str]:
    yield from (f"## berth {command.name}", "", said, "")
    if not hasattr(command, "commands"):
        yield from _one(command, command.name)
        return
    for name, sub in command.commands.items():
        yield from (f"### berth {command.name} {name}", "", one_line(sub.help or ""), "")
        yield from _one(sub, f"{command.name} {name}")


def _one(command: Any, name: str) -> Iterator[str]:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    usage = " ".join(["berth", name, *(_spoken(one) for one in arguments)])
    takes_cluster = {one.name for one in command.params} >= set(CLUSTER_OPTIONS)
    yield from (f"`{usage}`" + (" ✱" if takes_cluster else ""), "")
    rows = [(f"`{_spoken(one)}`", "", one_line(one.help or "")) for one in arguments if one.help]
    rows += [row for option, row in _options(command) if not (takes_cluster and option in CLUSTER_OPTIONS)]
    if rows:
        yield from (*table(("option", "default", "what"), *rows), "")


def _spoken(argument: Any) -> str:
    name: str = argument.metavar or argument.name.upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _options(command: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Name and row of each option; `--help` is no news."""
    return [
        (one.name, (f"`{_written(one)}`", _default(one), one_line(one.help or "")))
        for one in command.params
        if one.param_type_name == "option" and one.name != "help"
    ]


def _written(option: Any) -> str:
    value = "" if option.is_flag else f" {option.metavar or _kind(option)}"
    return f"{', '.join(option.opts)}{value}" + (" …" if option.multiple else "")


def _kind(option: Any) -> str:
    kinds = {"int": "NUMBER", "float": "NUMBER", "Path": "PATH"}
    annotation = option.type_descriptor.annotation
    name = str(getattr(annotation, "__name__", annotation))
    return kinds.get(name, "TEXT")


def _default(option: Any) -> str:
    if isinstance(option.show_default, str):
        return option.show_default
    if option.required:
        return "**required**"
    return "" if option.is_flag or option.default in (None, (), "") else f"`{option.default}`"
