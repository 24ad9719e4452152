"""A builder for what a request wants of its nodes; it makes the same documents that people write in YAML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from berth.errors import InvalidCommand
from berth.messages.requests import (
    AffinityTerm,
    Constraint,
    Effect,
    Mode,
    Operator,
    Request,
    SpreadTerm,
    Strategy,
    Toleration,
    TolerationOperator,
)
from berth.messages.validation import problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """Immutable: every call answers a new one. `apply` puts all of it into a request.

    `Preferences.binpack().require("region", "in", ["us-east-1"]).prefer("disk", "equals", ["ssd"], weight=50)`
    """

    strategy: Strategy
    constraints: tuple[Constraint, ...] = ()
    any_of: tuple[tuple[Constraint, ...], ...] = ()
    affinity: tuple[AffinityTerm, ...] = ()
    anti_affinity: tuple[AffinityTerm, ...] = ()
    spread_terms: tuple[SpreadTerm, ...] = ()
    tolerations: tuple[Toleration, ...] = ()

    @classmethod
    def binpack(cls) -> "Preferences":
        """Fill nodes up before others are used."""
        return cls(strategy=Strategy.BINPACK)

    @classmethod
    def spread(cls) -> "Preferences":
        """Use the emptiest nodes first."""
        return cls(strategy=Strategy.SPREAD)

    @classmethod
    def random(cls) -> "Preferences":
        """Any node, drawn by a hash of request, attempt and node."""
        return cls(strategy=Strategy.RANDOM)

    @classmethod
    def by_affinity(cls) -> "Preferences":
        """Follow the preferences and affinities before packing."""
        return cls(strategy=Strategy.AFFINITY)

    @classmethod
    def least_fragmentation(cls) -> "Preferences":
        """Take what the recent requests could not use anyway, and leave them the most room."""
        return cls(strategy=Strategy.FRAGMENTATION)

    def require(self, key: str, operator: str, values: Sequence[str] = ()) -> "Preferences":
        """Only nodes for which the condition holds.

        Raises:
            InvalidCommand: an unknown operator, or the wrong number of values for it.
        """
        return replace(self, constraints=(*self.constraints, _constraint(key, operator, values)))

    def prefer(self, key: str, operator: str, values: Sequence[str] = (), *, weight: int = 1) -> "Preferences":
        """Rather nodes for which the condition holds, by `weight`. Raises as `require`."""
        constraint = _constraint(key, operator, values, mode=Mode.PREFERRED, weight=weight)
        return replace(self, constraints=(*self.constraints, constraint))

    def either(self, *alternatives: "Preferences") -> "Preferences":
        """At least one alternative's required constraints hold; beside all of this one's own."""
        return replace(self, any_of=self.any_of + tuple(one.constraints for one in alternatives))

    def near(self, labels: Mapping[str, str], *, topology: str = "node", weight: int | None = None) -> "Preferences":
        """In a domain with allocations that have these labels; with a `weight`: rather so."""
        return replace(self, affinity=(*self.affinity, _term(labels, topology, weight)))

    def apart_from(
        self, labels: Mapping[str, str], *, topology: str = "node", weight: int | None = None
    ) -> "Preferences":
        """In no domain with allocations that have these labels; with a `weight`: rather so."""
        return replace(self, anti_affinity=(*self.anti_affinity, _term(labels, topology, weight)))

    def spread_over(self, topology: str, labels: Mapping[str, str], *, max_skew: int = 1) -> "Preferences":
        """Evenly over the domains of `topology`, counting allocations that have these labels."""
        term = SpreadTerm(topology_key=topology, max_skew=max_skew, match_labels=dict(labels))
        return replace(self, spread_terms=(*self.spread_terms, term))

    def tolerate(
        self, key: str, value: str | None = None, *, effect: str | None = None, seconds: int | None = None
    ) -> "Preferences":
        """Nodes with the taint `key` (and `value`, where one is given) are fine."""
        toleration = Toleration(
            key=key,
            operator=TolerationOperator.EXISTS if value is None else TolerationOperator.EQUALS,
            value=value or "",
            effect=None if effect is None else Effect(effect),
            seconds=seconds,
        )
        return replace(self, tolerations=(*self.tolerations, toleration))

    def apply(self, request: Request) -> Request:
        """`request` with all of this in place of what it said."""
        return request.model_copy(
            update={
                "strategy": self.strategy,
                "constraints": self.constraints,
                "any_of": self.any_of,
                "affinity": self.affinity,
                "anti_affinity": self.anti_affinity,
                "spread": self.spread_terms,
                "tolerations": self.tolerations,
            }
        )


def _constraint(key: str, operator: str, values: Sequence[str], **more: Any) -> Constraint:
    try:
        known = Operator(operator) if operator in [one.value for one in Operator] else operator
        return Constraint.model_validate({"key": key, "operator": known, "values": tuple(values), **more})
    except ValidationError as error:
        raise InvalidCommand(problems(error, root="constraint")) from None


def _term(labels: Mapping[str, str], topology: str, weight: int | None) -> AffinityTerm:
    if weight is None:
        return AffinityTerm(match_labels=dict(labels), topology_key=topology)
    return AffinityTerm(match_labels=dict(labels), topology_key=topology, mode=Mode.PREFERRED, weight=weight)
