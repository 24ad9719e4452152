"""`berth defrag --plan`: which moves would let more of the recent request shapes fit. It never moves anything."""

from typing import Annotated, Any

import typer

from berth.errors import InvalidSetting
from berth_cli.connection import on
from berth_cli.context import Target, on_cluster
from berth_cli.output import print_json, print_lines, table

app = typer.Typer()


@app.command("defrag")
@on_cluster
def defrag(
    target: Target,
    plan: Annotated[bool, typer.Option("--plan", help="Propose moves; there is nothing else that it can do.")] = False,
    moves: Annotated[int, typer.Option("--moves", min=1, max=64, help="How many moves at most.")] = 16,
) -> None:
    """Propose moves after which more of the recent requests would fit; carrying them out is up to you."""
    if not plan:
        raise InvalidSetting("defrag only proposes", hint="say --plan; then move work by draining or resubmitting")
    told = on(target, lambda cluster: cluster.query("defrag", document={"moves": moves}, seconds=30.0))[0]
    if target.as_json:
        print_json(told)
    else:
        print_lines(*lines(told))


def lines(told: dict[str, Any]) -> list[str]:
    """The moves in their order, and what they are good for."""
    if not told["moves"]:
        return ["no move would let more of the recent requests fit"]
    rows = [(f"{move['namespace']}/{move['allocation']}", move["from"], move["to"]) for move in told["moves"]]
    before, after = told["before"]["places"], told["after"]["places"]
    gain = f"places for recent requests, over all nodes: {before} before, {after} after"
    return [*table(("allocation", "from", "to"), rows), gain]
