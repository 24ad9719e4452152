"""`python -m berth_agent`: the agent as its settings say, until SIGTERM."""

import sys

from berth_agent.process import main

if __name__ == "__main__":
    sys.exit(main())
