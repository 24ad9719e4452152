"""`berth context`: which cluster commands mean when they do not say."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from berth.errors import InvalidSetting, NotFound
from berth_cli.context import Context, load_contexts, save_contexts
from berth_cli.output import note, print_json, print_lines, table

app = typer.Typer()


@app.command("list")
def list_contexts(as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False) -> None:
    """Every context; the current one is marked."""
    contexts = load_contexts()
    rows = [
        {
            "name": name,
            "current": name == contexts.chosen,
            "url": context.url,
            "nkey": None if context.nkey is None else str(context.nkey),
            "dir": None if context.folder is None else str(context.folder),
        }
        for name, context in contexts.named.items()
    ]
    if as_json:
        print_json(rows)
    elif rows:
        marked = [("*" if row["current"] else "", row["name"], row["url"], row["nkey"], row["dir"]) for row in rows]
        print_lines(*table(("", "name", "url", "nkey", "dir"), marked))
    else:
        note("no contexts; `berth context set NAME --dir DIR` makes one")


@app.command("set")
def set_context(
    name: str,
    url: Annotated[str | None, typer.Option(help="Address of the bus.")] = None,
    nkey: Annotated[Path | None, typer.Option(help="Seed file of the user.")] = None,
    folder: Annotated[Path | None, typer.Option("--dir", help="Folder of a cluster of `berth up`.")] = None,
) -> None:
    """Name a cluster, and make it the current one."""
    if (url is None) == (folder is None) or (nkey is not None and url is None):
        raise InvalidSetting(f"context {name} would name no cluster, or two", hint="give --url (and --nkey), or --dir")
    context = Context(
        url=url,
        nkey=None if nkey is None else nkey.absolute(),
        folder=None if folder is None else folder.absolute(),
    )
    contexts = load_contexts()
    save_contexts(replace(contexts, chosen=name, named={**contexts.named, name: context}))


@app.command("use")
def use_context(name: str) -> None:
    """Make this context the current one."""
    contexts = load_contexts()
    if name not in contexts.named:
        raise NotFound(f"no context {name}", hint=f"there are {', '.join(contexts.named) or 'none'}")
    save_contexts(replace(contexts, chosen=name))


@app.command("remove")
def remove_context(name: str) -> None:
    """Forget this context; the cluster is not touched."""
    contexts = load_contexts()
    if name not in contexts.named:
        raise NotFound(f"no context {name}", hint=f"there are {', '.join(contexts.named) or 'none'}")
    left = {other: context for other, context in contexts.named.items() if other != name}
    save_contexts(replace(contexts, chosen=None if contexts.chosen == name else contexts.chosen, named=left))
