"""`berth`: which module has which command, and how a problem becomes lines on stderr and an exit code.

Exit codes (DESIGN section 5): 0 ok, 1 failure, 2 usage or invalid input, 3 not found, 4 conflict, 5 not
placed, 6 timeout, 7 no connection. They are the `exit_code` of the errors; a command that has to end with
another one raises `typer.Exit`.
"""

import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import typer

INTERRUPTED = 128 + signal.SIGINT


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A command of its own name in its module's `app`; a `group` is all of that `app`."""

    module: str
    help: str
    group: bool = False


COMMANDS: dict[str, Entry] = {
    "up": Entry(module="berth_cli.up", help="Run all of Berth on this machine until Ctrl-C."),
    "down": Entry(module="berth_cli.up", help="Stop what `berth up` started."),
    "status": Entry(module="berth_cli.status", help="What runs, who leads, what is ready."),
    "demo": Entry(module="berth_cli.demo", help="Submit the sample workload."),
    "agent": Entry(module="berth_cli.agent", help="Offer this machine, or simulated ones, as nodes."),
    "submit": Entry(module="berth_cli.requests", help="Submit requests; with --wait, until they are decided."),
    "release": Entry(module="berth_cli.requests", help="Give back what a request holds."),
    "requests": Entry(module="berth_cli.requests", help="Where requests stand."),
    "allocations": Entry(module="berth_cli.requests", help="What runs where."),
    "explain": Entry(module="berth_cli.explaining", help="Why a request is where it is, and why not elsewhere."),
    "trace": Entry(module="berth_cli.explaining", help="A request's way through all services."),
    "plan": Entry(module="berth_cli.planning", help="What would be decided, offline or live; nothing is submitted."),
    "events": Entry(module="berth_cli.ledger", help="The ledger as a story."),
    "audit": Entry(module="berth_cli.ledger", help="Replay the ledger and check every invariant."),
    "schema": Entry(module="berth_cli.ledger", help="Every event type with its schema."),
    "backup": Entry(module="berth_cli.backups", help="Write the whole ledger to a file."),
    "restore": Entry(module="berth_cli.backups", help="Make a new ledger from such a file."),
    "nodes": Entry(module="berth_cli.nodes", help="List, show, cordon, uncordon, drain, remove.", group=True),
    "top": Entry(module="berth_cli.top", help="How full and how fragmented nodes are, by node or label."),
    "defrag": Entry(module="berth_cli.defrag", help="Which moves would let more requests fit; nothing is moved."),
    "quota": Entry(module="berth_cli.quotas", help="Limits of namespaces and cohorts.", group=True),
    "reservation": Entry(module="berth_cli.reservations", help="Capacity booked for a window.", group=True),
    "raft": Entry(module="berth_cli.raft", help="Who leads, and handing over.", group=True),
    "bench": Entry(module="berth_cli.bench", help="Measure, with floors of the same run.", group=True),
    "init": Entry(module="berth_cli.init", help="Keys, streams and the first record; a key for a client or a node."),
    "context": Entry(module="berth_cli.contexts", help="Which cluster commands mean when they do not say.", group=True),
}
"""In the order in which `berth --help` lists them. A new group of commands adds its rows here."""

HELP = """Berth places requests on a cluster's nodes; every decision is an event that the elected leader committed.

A command finds its cluster by --url and --nkey, else by --dir or BERTH_DIR, else by the current context,
else in .berth of the current folder."""


def root(words: Sequence[str]) -> typer.Typer:
    """The application that runs `words`: only the module of the command that they name is imported."""
    app = typer.Typer(name="berth", help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
    app.callback()(_options)
    named = next((word for word in words if not word.startswith("-")), None)
    for name, entry in COMMANDS.items():
        _add(app, name, entry, is_wanted=name == named)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"berth {version('berth')}")
        raise typer.Exit


def _options(
    *,
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
    ),
) -> None:
    """What stands before the command; each option acts by itself."""
    del version


def _add(app: typer.Typer, name: str, entry: Entry, *, is_wanted: bool) -> None:
    if not is_wanted:
        app.command(name, help=entry.help)(_listed)
        return
    found: typer.Typer = importlib.import_module(entry.module).app
    if entry.group:
        app.add_typer(found, name=name, help=entry.help, no_args_is_help=True)
        return
    (command,) = (command for command in found.registered_commands if command.name == name)
    app.registered_commands.append(command)


def _listed() -> None:
    """Stands in the list of commands for one whose module was not imported."""
    raise AssertionError("only the command that was named is run")


def run(words: Sequence[str]) -> int:
    """Run one command line and return its exit code; problems are on stderr, one line each, no traceback."""
    from berth.errors import BerthError

    logging.getLogger("berth").addHandler(logging.NullHandler())  # what goes wrong becomes a line below, once
    try:
        typer.main.get_command(root(words))(list(words), prog_name="berth")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except BerthError as error:
        sys.stderr.write(f"berth: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; nothing may be written to it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a file or folder that cannot be read or written
        sys.stderr.write(f"berth: {error}\n")
        return 1
    return 0


def main() -> None:
    """The program `berth`."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
