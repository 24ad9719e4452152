"""Scheduler service: decides placement, preemption victims, node liveness and drain."""
