"""Raft's elections as a pure state machine: messages and time in, effects out.

Read in this order: messages.py, effects.py, settings.py, quorum.py, outbox.py, node.py. The shell around it
delivers messages and time, performs the effects and reports what became durable. Standard library only: this
package knows nothing of Berth, has no clock, no randomness of its own and never waits.
"""
