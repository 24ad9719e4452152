"""Which seeds the simulation runs: `SEED="41 97"` these, `SEEDS=5000` that many, ten otherwise."""

import os


def chosen(environment: dict[str, str]) -> list[int]:
    """The seeds that `environment` asks for; named ones win over a count."""
    if named := environment.get("SEED", "").split():
        return [int(seed) for seed in named]
    return list(range(int(environment.get("SEEDS") or 10)))


SEEDS = chosen(dict(os.environ))
