"""What `compress` returns, and its record `result.json` (schema 1, `result.schema.json`)."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx

from hwc_onnx.accuracy.types import Evaluation
from hwc_onnx.cost.types import ModelCost
from hwc_onnx.export import write_model
from hwc_onnx.plan import CompressionPlan

PACKAGES = ("hwc-onnx", "onnx", "onnxruntime", "numpy", "scipy", "torch", "optuna")


@dataclass(frozen=True)
class Figures:
    """One accelerator's cost of the float, INT8 and compressed network."""

    name: str
    digest: str
    unquantized: ModelCost
    baseline_int8: ModelCost
    compressed: ModelCost

    @property
    def reduction_vs_int8(self) -> float:
        """Share of the INT8 baseline's energy that is saved."""
        return 1.0 - self.compressed.total / self.baseline_int8.total

    @property
    def reduction_vs_float(self) -> float:
        """Share of the unquantized network's energy that is saved."""
        return 1.0 - self.compressed.total / self.unquantized.total

    def triple(self, attribute: str) -> dict[str, float]:
        """One figure of the three networks."""
        costs = {"float": self.unquantized, "baseline_int8": self.baseline_int8, "compressed": self.compressed}
        return {kind: getattr(cost, attribute) for kind, cost in costs.items()}

    def coverage(self) -> dict[str, float]:
        """Shares of MACs and tensor traffic that the cost model covers."""
        return {"macs": self.compressed.coverage_macs, "traffic": self.compressed.coverage_traffic}

    def payload(self) -> dict[str, Any]:
        """This accelerator's row of `compared_accelerators`."""
        return {
            "name": self.name,
            "sha256": self.digest,
            "energy_pj": self.triple("total"),
            "energy_unit": self.compressed.energy_unit,
            "reduction_vs_int8": self.reduction_vs_int8,
            "reduction_vs_float": self.reduction_vs_float,
            "latency_s": self.triple("latency_s"),
            "coverage": self.coverage(),
        }


@dataclass(frozen=True)
class Result:
    """The outcome of one compression.

    `proto` is the file that was written, `plan` its settings with what they achieved (None when the original was
    returned), `evaluation` its drop on the holdout, `pareto` the search's accepted plans that no other beats in both
    (energy fraction of INT8, drop in points on the search samples), least energy first, `payload` the content of
    result.json, `figures` the costs before and after (None: read back from a run that was finished before).
    """

    proto: onnx.ModelProto
    plan: CompressionPlan | None
    cost: ModelCost
    evaluation: Evaluation
    pareto: tuple[tuple[float, float], ...]
    payload: Mapping[str, Any]
    study: Path | None
    figures: Figures | None = None

    @property
    def goal_met(self) -> bool:
        """Whether the limits that were asked for hold."""
        return bool(self.payload["goal_met"])

    @property
    def exit_code(self) -> int:
        """What the command line returns: 0, or 3 when a valid file was written but the goal was missed."""
        return int(self.payload["exit_code"])

    def to_json(self) -> dict[str, Any]:
        """The content of result.json."""
        return dict(self.payload)

    def save(self, path: str | Path) -> Path:
        """Write the model to another place (UsageError when that fails)."""
        return write_model(self.proto, path).path


def sha256(data: bytes) -> str:
    """Hexadecimal digest."""
    return hashlib.sha256(data).hexdigest()


def versions() -> dict[str, str]:
    """Versions that a result depends on; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
