"""The resource vector: whole numbers, checked arithmetic, built-in and extended dimensions alike.

CPU is counted in millicores, RAM and disk in MB, instances and extended resources in pieces.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

CPU = "cpu_millicores"
RAM = "ram_mb"
DISK = "disk_mb"
INSTANCES = "instances"
BUILT_IN = (CPU, RAM, DISK, INSTANCES)
SPOKEN_NAMES = frozenset({*BUILT_IN, "cpu", "cpu_cores", "ram", "disk"})
"""Names that an extended resource may not take, so that a dimension's name says which one it is."""

DEFAULT_INSTANCES = 110
"""Instances that a node holds when it does not say (DESIGN section 5)."""

LARGEST = 2**53 - 1
"""Every JSON reader can hold amounts up to this one exactly."""

Extended = tuple[tuple[str, int], ...]


class Resources(NamedTuple):
    """An amount of every dimension. Immutable; `extended` is sorted by name and holds no zeros. `+` adds amounts.

    A tuple, because every fold makes several per placement (ADR 13).
    """

    cpu_millicores: int = 0
    ram_mb: int = 0
    disk_mb: int = 0
    instances: int = 0
    extended: Extended = ()

    def __add__(self, other: "Resources") -> "Resources":  # pyright: ignore[reportIncompatibleMethodOverride]
        cpu, ram, disk, instances, extended = self
        more_cpu, more_ram, more_disk, more_instances, more_extended = other
        if more_extended:
            extended = _merged(extended, more_extended, 1)
        return Resources(cpu + more_cpu, ram + more_ram, disk + more_disk, instances + more_instances, extended)

    def __sub__(self, other: "Resources") -> "Resources":
        """What is left when `other` goes; it must be there (a release of what was never charged is a bug)."""
        left = self.minus(other)
        assert left.is_non_negative(), f"{other} is not contained in {self}"
        return left

    def minus(self, other: "Resources") -> "Resources":
        """The difference, negative where `other` is larger (an over-committed node has less than nothing)."""
        cpu, ram, disk, instances, extended = self
        less_cpu, less_ram, less_disk, less_instances, less_extended = other
        if less_extended:
            extended = _merged(extended, less_extended, -1)
        return Resources(cpu - less_cpu, ram - less_ram, disk - less_disk, instances - less_instances, extended)

    def beyond(self, other: "Resources") -> "Resources":
        """What this vector has more than `other`, 0 where it has less: used beyond held, short of free."""
        left = self.minus(other)
        return Resources(
            max(0, left.cpu_millicores),
            max(0, left.ram_mb),
            max(0, left.disk_mb),
            max(0, left.instances),
            tuple((name, amount) for name, amount in left.extended if amount > 0),
        )

    def times(self, count: int) -> "Resources":
        """This vector `count` times over."""
        return Resources(
            self.cpu_millicores * count,
            self.ram_mb * count,
            self.disk_mb * count,
            self.instances * count,
            tuple((name, amount * count) for name, amount in self.extended) if count else (),
        )

    def fits_in(self, free: "Resources") -> bool:
        """R39: each dimension asked for is there; a dimension not asked for never refuses."""
        cpu, ram, disk, instances, extended = self
        free_cpu, free_ram, free_disk, free_instances, _ = free
        if (
            (cpu and cpu > free_cpu)
            or (ram and ram > free_ram)
            or (disk and disk > free_disk)
            or (instances and instances > free_instances)
        ):
            return False
        return not extended or all(amount <= free.amount(name) for name, amount in extended)

    def amount(self, dimension: str) -> int:
        """How much of `dimension` (a built-in or an extended name); 0 where it is absent."""
        if dimension in BUILT_IN:
            return int(getattr(self, dimension))
        for name, amount in self.extended:
            if name == dimension:
                return amount
        return 0

    def dimensions(self) -> Iterator[tuple[str, int]]:
        """The dimensions that are not zero: built-in ones first, then extended ones by name."""
        for name, amount in zip(BUILT_IN, self[:4], strict=True):
            if amount:
                yield name, amount
        yield from self.extended

    def is_non_negative(self) -> bool:
        cpu, ram, disk, instances, extended = self
        if cpu < 0 or ram < 0 or disk < 0 or instances < 0:
            return False
        return not extended or all(amount >= 0 for _, amount in extended)

    def as_mapping(self) -> dict[str, object]:
        """The vector as events write it: absent is 0."""
        written: dict[str, object] = {}
        cpu, ram, disk, instances, extended = self
        if cpu:
            written[CPU] = cpu
        if ram:
            written[RAM] = ram
        if disk:
            written[DISK] = disk
        if instances:
            written[INSTANCES] = instances
        if extended:
            written["extended"] = dict(extended)
        return written


NOTHING = Resources()
ONE_INSTANCE = Resources(instances=1)


def resources(amounts: Mapping[str, int]) -> Resources:
    """The vector of named amounts, extended names among them: `resources({"ram_mb": 5, "gpu": 1})`."""
    extended = tuple(sorted((n, a) for n, a in amounts.items() if n not in BUILT_IN and a))
    return Resources(
        amounts.get(CPU, 0), amounts.get(RAM, 0), amounts.get(DISK, 0), amounts.get(INSTANCES, 0), extended
    )


def _merged(left: Extended, right: Extended, sign: int) -> Extended:
    if not right:
        return left
    if not left and sign == 1:
        return right
    total = dict(left)
    for name, amount in right:
        total[name] = total.get(name, 0) + sign * amount
    return tuple(sorted((name, amount) for name, amount in total.items() if amount))
