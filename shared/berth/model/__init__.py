"""State folded from events, and what the leader checks again: pure."""
