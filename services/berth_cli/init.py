"""`berth init`: makes a cluster's folder ready for a server, a running server ready for a cluster, or one more key.

`berth up` needs none of it. Where the processes run apart (compose), it is run twice: before the server
starts, for keys and configuration, and with `--url` once it runs, for streams and first record.
"""

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Annotated

import typer

from berth import subjects
from berth.adapters.server_config import ServerSettings
from berth.adapters.users import seed_file
from berth.errors import InvalidSetting
from berth_cli import bootstrap, layout
from berth_cli.context import Target, on_cluster
from berth_cli.folder import Folder, is_held, recorded_processes
from berth_cli.output import note, print_json, print_lines

app = typer.Typer()

FOR_THE_HOST = (subjects.CLIENT, subjects.ADMIN)


@app.command("init")
@on_cluster
def init(
    target: Target,
    *,
    client: Annotated[list[str] | None, typer.Option(help="Make a key for the clients of this namespace.")] = None,
    agent: Annotated[list[str] | None, typer.Option(help="Make a key for the agent of this node.")] = None,
    raft: Annotated[int, typer.Option(help="Number of raft nodes.")] = 3,
    schedulers: Annotated[int, typer.Option(help="Number of schedulers that get a key.", min=1)] = 2,
    listen: Annotated[str, typer.Option(help="Address that the server is to listen on.")] = "127.0.0.1:4222",
    store: Annotated[Path | None, typer.Option(help="Where the server is to keep its streams.")] = None,
    private_network: Annotated[
        bool, typer.Option("--private-network", help="Everybody who can reach that address may read what passes.")
    ] = False,
    durability: Annotated[
        layout.Durability | None,
        typer.Option(help="Of a new ledger.", show_default="ledger, or as it was"),
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Copy the seeds of client and admin into this folder.")] = None,
) -> None:
    """Keys, streams and the first record; a key for a client or a node."""
    folder = Folder(path=target.folder_meant().absolute())
    if client or agent:
        _more_keys(folder, client or [], agent or [], as_json=target.as_json)
        return
    members = layout.raft_members(raft)
    if target.url is not None:
        seed = target.nkey or seed_file(folder.keys, subjects.INIT)
        keep = folder.first_record if os.access(folder.path, os.W_OK) else None
        created = asyncio.run(bootstrap.create_ledger(target.url, seed, members=members, level=durability, keep=keep))
        told = {"version": 1, "ledger_id": created.ledger_id, "members": list(created.members), "level": created.level}
        if target.as_json:
            print_json(told)
        else:
            print_lines(f"ledger {created.ledger_id} of {', '.join(created.members)} is there")
        return
    host, _, port = listen.rpartition(":")
    if not port.isdigit():
        raise InvalidSetting(f"--listen {listen}", hint="expected host:port, such as 127.0.0.1:4222")
    server = ServerSettings(
        store=store or folder.store,
        host=host,
        port=int(port),
        monitor_port=8222,
        insecure_network=private_network,
    )
    configuration = bootstrap.prepare(folder, server, bootstrap.Size(raft=raft, schedulers=schedulers))
    if export is not None:
        _export(folder, export)
    for path in folder.path.rglob("*"):
        _give(path, folder.path)
    if target.as_json:
        keys = {path.stem: str(path) for path in sorted(folder.keys.glob("*.nk"))}
        print_json({"version": 1, "configuration": str(configuration), "keys": keys})
    else:
        print_lines(f"keys are in {folder.keys}", f"start the server with `nats-server --config {configuration}`")


def _more_keys(folder: Folder, namespaces: list[str], nodes: list[str], *, as_json: bool) -> None:
    made = [bootstrap.add_client(folder, namespace) for namespace in namespaces]
    made += [bootstrap.add_agent(folder, node) for node in nodes]
    if not _reload_server(folder):
        note("no `berth up` runs here: the server knows the new keys once it has read users.conf again (SIGHUP)")
    if as_json:
        print_json({"version": 1, "keys": {path.stem: str(path) for path in made}})
    else:
        print_lines(*(str(path) for path in made))


def _reload_server(folder: Folder) -> bool:
    """Have the server of this folder's running cluster read its users again; False when none runs."""
    if not is_held(folder):
        return False
    for process in recorded_processes(folder):
        if process.role == "nats":
            os.kill(process.pid, signal.SIGHUP)
            return True
    return False


def _export(folder: Folder, destination: Path) -> None:
    """Copies of the seeds that the host needs, for the eyes of that folder's owner only."""
    destination.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in FOR_THE_HOST:
        copy = seed_file(destination, name)
        copy.unlink(missing_ok=True)
        shutil.copy2(seed_file(folder.keys, name), copy)
        _give(copy, destination)


def _give(path: Path, folder: Path) -> None:
    """What root makes for others (in a container) gets the owner of its folder."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
