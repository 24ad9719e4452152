"""Node agent: decides nothing; registers a node and reports its capacity and heartbeats."""
