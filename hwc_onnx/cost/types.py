"""What the cost model returns. Energies in picojoules (or the profile's own unit, see `AcceleratorProfile`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

COMPONENTS = ("mac", "register", "noc", "buffer", "dram", "vector", "decode", "leakage")


@dataclass(frozen=True)
class Term:
    """One product of a node's energy: `count` x `factor` x `bits` (where the constant is per bit) x `constant`.

    `count` is in `unit` ("words", "MACs", "operations" ...). `field` is the constant's path in the accelerator file,
    `why` says in words how the factor, the bits or a derived constant come about.
    """

    component: str
    what: str
    count: float
    unit: str
    factor: float
    bits: float | None
    constant: float
    field: str
    why: tuple[str, ...] = ()

    @property
    def energy(self) -> float:
        """The product."""
        return self.count * self.factor * (1.0 if self.bits is None else self.bits) * self.constant


@dataclass(frozen=True)
class Accumulator:
    """Bits an accumulator has and bits it needs for every sum of a layer to fit.

    `exact`: computed from the integers of the weights; otherwise a bound from the widths and the number of products.
    """

    bits: int
    needed: int
    exact: bool

    @property
    def overflows(self) -> bool:
        """Whether some input can make a sum that does not fit."""
        return self.needed > self.bits


@dataclass(frozen=True)
class NodeCost:
    """One node: energy by component (keys of COMPONENTS), cycles, latency in seconds and how it was costed.

    `method` is "mapped" (a MAC layer with a searched mapping), "vector", "fused", "free", "unmodelled", or, for a node with
    a body, which one runs and how often, such as "body x 3".
    `accesses` is {memory: {operand: {"read": n, "write": n}}} in words, with "read_done" and "write_done" where zeros
    spare some of them; `mapping` names the spatial unroll, the nest and the tile that each memory holds; `utilisation`
    is the share of the array's multiplications in these cycles that are done; `bound_by` names what sets the time:
    "array", "vector" or a memory. `terms` add up to `energy`.
    """

    key: str
    op_type: str
    macs: int
    energy: Mapping[str, float]
    cycles: float
    latency_s: float
    method: str
    accesses: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    mapping: Mapping[str, object] = field(default_factory=dict)
    utilisation: float = 0.0
    bound_by: str = ""
    terms: tuple[Term, ...] = ()
    accumulator: Accumulator | None = None

    @property
    def total(self) -> float:
        """Energy of all components."""
        return sum(self.energy.values())


@dataclass(frozen=True)
class ModelCost:
    """The whole network for one inference of the stated input shape; the total is the sum of the nodes.

    `accelerator_bytes` is what the weights take in the outermost memory, `activation_bytes` what stored activations take there
    at once. `reference_mac_pj` turns the energies of a profile in multiples of a MAC into picojoules (assumed; None: unknown).
    """

    nodes: tuple[NodeCost, ...]
    energy: Mapping[str, float]
    energy_unit: str
    cycles: float
    latency_s: float
    coverage_macs: float
    coverage_traffic: float
    accelerator_bytes: int
    macs: int
    unmodelled: tuple[tuple[str, str], ...] = ()
    reference_mac_pj: float | None = None
    activation_bytes: int = 0

    @property
    def memory_bytes(self) -> int:
        """What weights and activations take together."""
        return self.accelerator_bytes + self.activation_bytes

    @property
    def total(self) -> float:
        """Energy of one inference."""
        return sum(self.energy.values())

    @property
    def joules(self) -> float | None:
        """Energy of one inference in joules; None where the profile is in multiples of a MAC of unknown energy."""
        if self.energy_unit == "pJ":
            return self.total * 1e-12
        return None if self.reference_mac_pj is None else self.total * self.reference_mac_pj * 1e-12

    @property
    def inferences_per_joule(self) -> float | None:
        """Inferences from one joule; None where `joules` is unknown or nothing costs anything."""
        return 1.0 / self.joules if self.joules else None
