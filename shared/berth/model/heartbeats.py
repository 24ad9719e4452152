"""How often nodes beat and how long silence means loss: the scheduler proposes by it, the leader checks by it."""

BEATS_PER_SECOND_MAX = 200
"""What the heartbeats of the whole cluster may cost together."""

INTERVAL_MIN_MS = 1_000
LOST_AFTER_MIN_MS = 5_000
LOST_AFTER_INTERVALS = 5
MASS_LOSS_PATIENCE = 5
"""When more than a third of the ready nodes would be lost at once, they are given this many times as long."""


def heartbeat_interval_ms(nodes: int) -> int:
    """The interval assigned at registration, so that `nodes` nodes send at most 200 beats a second together."""
    assert nodes >= 0
    return max(INTERVAL_MIN_MS, nodes * 1000 // BEATS_PER_SECOND_MAX)


def node_lost_after_ms(nodes: int) -> int:
    """Silence of that long makes a node lost: five intervals, at least five seconds."""
    return max(LOST_AFTER_MIN_MS, LOST_AFTER_INTERVALS * heartbeat_interval_ms(nodes))
