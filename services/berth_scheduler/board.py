"""What placements on one state have in common, kept between them and renewed where the state has changed.

A request's *shape* is everything about it that a node's own row and room are judged by. For each shape the
board remembers which nodes can hold an instance and how well; when a node's row or what is used on it has
been replaced by another object, its entries are worked out again. Rows are immutable, so the same object
says the same: nothing here can be stale, whatever was folded, tried or taken back in between. Nodes on
which a reservation or a promise keeps something are never remembered: their room depends on more than their rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import is_not

from berth.ids import NodeId
from berth.messages.reasons import Reason
from berth.messages.requests import Mode, Request, Strategy
from berth.model.cluster import Node
from berth.model.feasibility import (
    admits,
    by_precedence,
    fits,
    intolerable,
    is_outside_reservation,
    node_reasons,
    preferred_weight,
    topology_keys,
)
from berth.model.fragmentation import Profile
from berth.model.ledger import State
from berth.model.windows import free_now
from berth.resources import Resources
from berth_scheduler.ranking import NOTHING_FITS, Ranking
from berth_scheduler.scores import packing

SHAPES_MAX = 256
"""Shapes remembered at once; beyond that all are forgotten, and those still in use come back."""

ShapeKey = tuple[object, ...]


def shape_of(request: Request) -> ShapeKey:
    """What tells two shapes apart."""
    return (
        request.vector,
        request.strategy,
        request.node,
        request.constraints,
        request.any_of,
        request.tolerations,
        request.reservation,
        tuple(topology_keys(request)),
    )


@dataclass(frozen=True, slots=True)
class Room:
    """What one node offers a shape: the strategy's score (None: it says nothing), raw preference, bad taints."""

    strategy: int | None
    preferred: int
    intolerable: int


@dataclass(slots=True, kw_only=True)
class Shape:
    """One shape's view of every node, by position. `plain`: the strategy's score, and who has the highest.

    `barred`: the first reason of a node that is not admitted, found when somebody asks.
    `seen`: how much of the board's log of changes is worked in. `tainted`: how many rooms have bad taints.
    `profile`: what the strategy `fragmentation` judged the rooms by; None for other strategies.
    """

    admitted: list[bool]
    barred: list[Reason | None]
    judged: list[Node | None]
    rooms: list[Room | None]
    plain: Ranking
    seen: int = 0
    tainted: int = 0
    prefers: bool = False
    profile: Profile | None = None


@dataclass(slots=True)
class Board:
    """One state's nodes in order of their ids, with what is free on each. `silent` ones take nothing new.

    Call `renew` before reading, and `renew_at` after a change on a known node during a trial.
    """

    state: State
    silent: frozenset[NodeId] = frozenset()
    ids: list[NodeId] = field(default_factory=list[NodeId])
    nodes: list[Node] = field(default_factory=list[Node])
    allocatable: list[Resources] = field(default_factory=list[Resources])
    free: list[Resources] = field(default_factory=list[Resources])
    position: dict[NodeId, int] = field(default_factory=dict[NodeId, int])
    _used: list[Resources | None] = field(default_factory=list["Resources | None"])
    _held: frozenset[int] = frozenset()
    _muted: frozenset[NodeId] = frozenset()
    _log: list[int] = field(default_factory=list[int])
    _shapes: dict[ShapeKey, Shape] = field(default_factory=dict[ShapeKey, Shape])
    _profile: Profile = field(default_factory=lambda: Profile(()))
    _news: tuple[dict[NodeId, None], dict[NodeId, None]] | None = None

    @classmethod
    def following(cls, state: State) -> "Board":
        """A board for as long as `state` lives: it is told what changes, and need not compare every node."""
        return cls(state, _news=(state.cluster.nodes.changes(), state.cluster.used.changes()))

    # ------------------------------------------------------------------ what changed

    def renew(self) -> None:
        """Find the nodes whose row or use has been replaced since the last call."""
        cluster = self.state.cluster
        changed = self._replaced() if self._news is None else self._told(*self._news)
        if len(cluster.nodes) != len(self.ids) or any(self.ids[position] not in cluster.nodes for position in changed):
            self._begin_again()
            return
        held = self._held_positions()
        if held or self._held:
            changed += sorted(held | self._held)
            self._held = held
        if self.silent != self._muted:
            changed += sorted(self.position[node] for node in self.silent ^ self._muted if node in self.position)
            self._muted = self.silent
        for position in changed:
            self.renew_at(position)

    def _replaced(self) -> list[int]:
        """Where the node's row or its use is another object than before, found by comparing all of them."""
        cluster = self.state.cluster
        nodes: list[Node | None] = list(map(cluster.nodes.get, self.ids))
        used = list(map(cluster.used.get, self.ids))
        return _differing(self.nodes, nodes) + _differing(self._used, used)

    def _told(self, rows: dict[NodeId, None], uses: dict[NodeId, None]) -> list[int]:
        """Where a row or a use was put since the last call."""
        changed = [self.position[name] for name in {**rows, **uses} if name in self.position]
        rows.clear()
        uses.clear()
        return changed

    def renew_at(self, position: int) -> None:
        """Take in what has changed on the node at `position`."""
        cluster = self.state.cluster
        name = self.ids[position]
        node = cluster.nodes[name]
        if node is not self.nodes[position]:
            self.nodes[position] = node
            self.allocatable[position] = node.allocatable
        used = cluster.used.get(name)
        self._used[position] = used
        if position in self._held:
            self.free[position] = free_now(self.state, node)
        else:  # what `free_now` says where no reservation holds anything
            self.free[position] = self.allocatable[position] if used is None else self.allocatable[position].minus(used)
        self._log.append(position)

    def _begin_again(self) -> None:
        cluster = self.state.cluster
        self.ids = sorted(cluster.nodes)
        self.nodes = [cluster.nodes[name] for name in self.ids]
        self.allocatable = [node.allocatable for node in self.nodes]
        self.free = list(self.allocatable)
        self.position = {name: position for position, name in enumerate(self.ids)}
        self._used = [None] * len(self.ids)
        self._held = self._held_positions()
        self._muted = self.silent
        self._shapes.clear()
        self._log.clear()
        for position in range(len(self.ids)):
            self.renew_at(position)
        self._log.clear()

    def _held_positions(self) -> frozenset[int]:
        reservations, promised = self.state.reservations, self.state.queue.promised_nodes()
        if not reservations.open and not promised:
            return frozenset()
        held = {node for name in reservations.open for node, _ in reservations.reservations[name].holds}
        return frozenset(self.position[node] for node in held.union(promised) if node in self.position)

    # ------------------------------------------------------------------ shapes

    def shape(self, request: Request, at: int) -> Shape:
        """The request's shape, up to date with the last `renew` for work that begins at `at` (milliseconds UTC)."""
        key = shape_of(request)
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= SHAPES_MAX:
                self._shapes.clear()
            shape = self._shapes[key] = self._new_shape(request)
            self._work_out(shape, request, at, range(len(self.ids)))
        else:
            self.refresh(shape, request, at)
        return shape

    def refresh(self, shape: Shape, request: Request, at: int) -> None:
        """Work out again what has changed since this shape was last looked at."""
        if shape.profile is not None and shape.profile is not self._renewed_profile():
            shape.profile = self._profile
            self._work_out(shape, request, at, range(len(self.ids)))
        elif shape.seen < len(self._log):
            self._work_out(shape, request, at, self._log[shape.seen :])

    def _new_shape(self, request: Request) -> Shape:
        size = len(self.ids)
        return Shape(
            admitted=[False] * size,
            barred=[None] * size,
            judged=[None] * size,
            rooms=[None] * size,
            plain=Ranking(size),
            prefers=any(one.mode is Mode.PREFERRED and one.weight for one in request.constraints),
            profile=self._renewed_profile() if request.strategy is Strategy.FRAGMENTATION else None,
        )

    def _renewed_profile(self) -> Profile:
        """The typical shapes as they are now: asked for by who places by them, and by nobody else."""
        typical = self.state.demand.typical
        if typical is not self._profile.typical:
            self._profile = Profile(typical)
        return self._profile

    def _work_out(self, shape: Shape, request: Request, at: int, positions: Iterable[int]) -> None:
        shape.seen = len(self._log)
        for position in positions:
            before = shape.rooms[position]
            after = self._room(shape, request, at, position)
            shape.rooms[position] = after
            shape.plain.put(position, NOTHING_FITS if after is None else after.strategy or 0)
            shape.tainted += _is_tainted(after) - _is_tainted(before)
        if len(self._log) > 4 * len(self.ids) + 64:
            self._forget_log(shape)

    def _forget_log(self, current: Shape) -> None:
        """Shapes that have not kept up are forgotten; the log begins anew."""
        self._shapes = {key: shape for key, shape in self._shapes.items() if shape.seen == len(self._log)}
        self._log.clear()
        for shape in [*self._shapes.values(), current]:
            shape.seen = 0

    def barred(self, shape: Shape, request: Request, position: int) -> Reason:
        """The first reason why the node at `position` does not admit the request."""
        reason = shape.barred[position]
        if reason is None:
            reason = shape.barred[position] = by_precedence(node_reasons(self.nodes[position], request))[0]
        return reason

    def is_held(self, position: int) -> bool:
        """Whether anything is kept there, now or later, for a reservation or by a promise."""
        return position in self._held

    def _room(self, shape: Shape, request: Request, at: int, position: int) -> Room | None:
        node = self.nodes[position]
        if shape.judged[position] is not node:
            shape.judged[position] = node
            shape.admitted[position] = admits(node, request)
            shape.barred[position] = None
        if not shape.admitted[position] or node.id in self.silent:
            return None
        free = self.free[position]
        if request.reservation is not None:
            if is_outside_reservation(self.state, node, request):
                return None
            free = free_now(self.state, node, request.reservation)
        if not (
            request.charge.fits_in(free) and (position not in self._held or fits(self.state, node, request, free, at))
        ):
            return None
        return Room(
            self._strategy_score(request, node, free, position),
            preferred_weight(node, request) if shape.prefers else 0,
            intolerable(node, request) if node.taints else 0,
        )

    def _strategy_score(self, request: Request, node: Node, free: Resources, position: int) -> int | None:
        """Where the recent shapes say nothing, `fragmentation` packs."""
        if request.strategy is Strategy.FRAGMENTATION:
            kept = self._profile.keeping(node, free, request.charge)
            if kept is not None:
                return kept
        return packing(request, free, self.allocatable[position])


def _is_tainted(room: Room | None) -> int:
    return 1 if room is not None and room.intolerable else 0


def _differing(before: Sequence[object], after: Sequence[object]) -> list[int]:
    """The positions where the object is another one."""
    return list(compress(range(len(before)), map(is_not, before, after)))
