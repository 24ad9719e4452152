"""`import berth` is cheap: each public name's module is imported when the name is first used (PEP 562)."""

from importlib import import_module

PUBLIC: dict[str, str] = {
    "connect": "berth.client",
    "Cluster": "berth.client",
    "Refused": "berth.client",
    "blocking": "berth.blocking",
    "Preferences": "berth.preferences",
    "Request": "berth.messages.requests",
    "Amounts": "berth.messages.requests",
    "Capacity": "berth.messages.requests",
    "Constraint": "berth.messages.requests",
    "AffinityTerm": "berth.messages.requests",
    "SpreadTerm": "berth.messages.requests",
    "Toleration": "berth.messages.requests",
    "Taint": "berth.messages.requests",
    "Decision": "berth.messages.decisions",
    "Reason": "berth.messages.reasons",
    "QuotaDocument": "berth.messages.documents",
    "CohortDocument": "berth.messages.documents",
    "ReservationDocument": "berth.messages.documents",
    "NodeDocument": "berth.messages.documents",
    "WhatIfDocument": "berth.messages.what_if",
    "BerthError": "berth.errors",
    "InvalidCommand": "berth.errors",
    "NotFound": "berth.errors",
    "TimedOut": "berth.errors",
    "Unreachable": "berth.errors",
}
"""Public name → the module that has it."""


def public(name: str) -> object:
    """What `berth.<name>` is.

    Raises:
        AttributeError: no such public name.
    """
    if name not in PUBLIC:
        raise AttributeError(f"module 'berth' has no attribute {name!r}")
    module = import_module(PUBLIC[name])
    return module if PUBLIC[name] == f"berth.{name}" else getattr(module, name)
