"""Bare raft cores, driven from outside: `python -m tests.raft_driver`."""
