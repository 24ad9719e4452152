"""The whole walk in memory: the real services and the leader's judgement, no bus, no disk, no clock."""
