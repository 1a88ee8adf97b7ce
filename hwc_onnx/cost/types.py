"""What the cost model returns. Energies in picojoules (or the profile's own unit, see `AcceleratorProfile`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

COMPONENTS = ("mac", "register", "noc", "buffer", "dram", "vector", "decode", "leakage")


@dataclass(frozen=True)
class NodeCost:
    """One node: energy by component (keys of COMPONENTS), cycles, latency in seconds and how it was costed.

    `method` is "mapped" (a MAC layer with a searched mapping), "vector", "fused", "free" or "unmodelled".
    `accesses` is {memory: {operand: {"read": n, "write": n}}} in words; `mapping` names the spatial unroll and nest.
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

    @property
    def total(self) -> float:
        """Energy of all components."""
        return sum(self.energy.values())


@dataclass(frozen=True)
class ModelCost:
    """The whole network for one inference of the stated input shape; the total is the sum of the nodes."""

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

    @property
    def total(self) -> float:
        """Energy of one inference."""
        return sum(self.energy.values())
