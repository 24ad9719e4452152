"""One JSON object a line on standard input is one command, one line on standard output its answer, until end of file.

Nodes are whole numbers; time passes only by `tick`, for each node by itself; a message moves only by `deliver`. The
rules that the cores follow are in RAFT, "Elections, exactly"; what the commands do stands at each of them in `world`.
"""

import json
import sys

from tests.raft_driver.world import World


def main() -> None:
    world = World()
    for line in sys.stdin:
        if line.strip():
            sys.stdout.write(json.dumps(world.answer(line)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
