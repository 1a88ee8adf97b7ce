"""Results as JSON, in the shapes of the schemas that ship with the package."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hwc_onnx.accuracy.types import Evaluation
from hwc_onnx.cost.types import ModelCost
from hwc_onnx.graph.layer_graph import Layer, LayerGraph, Member
from hwc_onnx.report.prunable import Share, prunable_share

if TYPE_CHECKING:
    from hwc_onnx.export import Written
    from hwc_onnx.plan import CompressionPlan
    from hwc_onnx.polish import Polished
    from hwc_onnx.verification import VerifyReport

SCHEMA = 1


class Applied(Protocol):
    """What `applied_payload` reads of the result of `hwc_onnx.apply_plan`."""

    @property
    def plan(self) -> CompressionPlan:
        """The plan with what it achieved."""

    @property
    def cost(self) -> ModelCost:
        """The compressed model's cost."""

    @property
    def baseline(self) -> ModelCost:
        """The INT8 baseline's cost."""

    @property
    def float_cost(self) -> ModelCost:
        """The unquantized model's cost."""

    @property
    def evaluation(self) -> Evaluation | None:
        """The measured drop."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""

    @property
    def polished(self) -> Polished | None:
        """What a polish cost and gained."""

    @property
    def accelerator(self) -> str:
        """The profile's name."""

    @property
    def int8_bytes(self) -> int | None:
        """Size of the INT8 baseline's file, None where there is none."""

    @property
    def original_bytes(self) -> int:
        """Size of the original file."""

    @property
    def real_data(self) -> bool:
        """Whether samples were given."""


def inspect_payload(graph: LayerGraph, cost: ModelCost | None = None, accelerator: str | None = None) -> dict[str, Any]:
    """Layers, channel groups, activation groups and unmodelled nodes of a model; with its `cost`, shares of its energy."""
    energy_of = None if cost is None else {node.key: node.total for node in cost.nodes}
    producers = {key: group.root for group in graph.channel_groups for key in group.producers}
    return {
        "schema": SCHEMA,
        "source_digest": graph.source_digest,
        "opset": graph.opset,
        "inputs": [_tensor(graph, name) for name in graph.inputs],
        "outputs": [_tensor(graph, name) for name in graph.outputs],
        "node_count": len(graph.nodes),
        "op_types": dict(sorted(Counter(node.op_type for node in graph.nodes).items())),
        "macs": sum(layer.macs for layer in graph.layers),
        "params": sum(layer_params(layer) for layer in graph.layers),
        "prunable": _share(prunable_share(graph, graph.channel_groups, energy_of)),
        "accelerator": None if cost is None else accelerator,
        "layers": [
            {
                "key": layer.key,
                "op_type": layer.op_type,
                "weight_shape": list(layer.weight_shape),
                "macs": layer.macs,
                "params": layer_params(layer),
                "group": producers.get(layer.key),
                "activation_group": _group_name(graph, layer),
                "weight_bits": layer.weight_bits,
                "activation_bits": layer.activation_bits,
                "weight_density": layer.weight_density,
            }
            for layer in graph.layers
        ],
        "groups": [
            {
                "id": group.root,
                "channels": group.channels,
                "parts": list(group.part_sizes),
                "fixed": group.fixed if group.locked_because is None else group.channels,
                "prunable": _share(prunable_share(graph, [group], energy_of)),
                "members": [_member(member) for member in group.members],
                "producers": list(group.producers),
                "consumers": list(group.consumers),
                "locked_because": group.locked_because,
            }
            for group in graph.channel_groups
        ],
        "activation_groups": [
            {"id": group.tensor, "tensors": list(group.tensors), "readers": list(group.readers)}
            for group in graph.activation_groups
        ],
        "unmodelled": [{"key": key, "reason": reason} for key, reason in graph.unmodelled],
    }


def _share(share: Share) -> dict[str, Any]:
    return {"params": share.params, "macs": share.macs, "energy": share.energy}


def _member(member: Member) -> dict[str, Any]:
    """Where a group lies: from position `offset` on, `positions` of them (not always side by side)."""
    places = [place for place, channel in enumerate(member.index) if channel >= 0]
    return {"tensor": member.tensor, "axis": member.axis, "offset": places[0], "positions": len(places)}


def layer_params(layer: Layer) -> int:
    """Weights of a layer; a product of two activations has none."""
    return layer.params


def reduction(value: float, reference: float) -> float:
    """Share of `reference` that is saved: 1 - value / reference (0 when the reference is 0)."""
    return 1.0 - value / reference if reference else 0.0


def evaluation_payload(measured: Evaluation, model: str, against: str | None) -> dict[str, Any]:
    """One measurement; the drop and its interval are null when nothing was compared."""
    return {
        "schema": SCHEMA,
        "model": model,
        "against": against,
        "metric": measured.metric,
        "value": measured.value,
        "reference": measured.reference if against is not None else None,
        "drop_points": measured.drop_points if against is not None else None,
        "ci95": list(measured.ci95),
        "standard_error": measured.standard_error,
        "n_samples": measured.n_samples,
        "damage": measured.damage,
        "ce_shift": measured.ce_shift,
        "threads": measured.threads,
        "cpu_features": measured.cpu_features,
    }


def _tensor(graph: LayerGraph, name: str) -> dict[str, Any]:
    info = graph.tensors[name]
    return {"name": name, "shape": list(info.shape), "dtype": info.dtype}


def _group_name(graph: LayerGraph, layer: Layer) -> str | None:
    group = graph.activation_group_of(layer.inputs[0]) if layer.inputs else None
    return group.tensor if group is not None else None


def verify_payload(report: VerifyReport, compressed: str, original: str) -> dict[str, Any]:
    """The checks of a written file and what was counted from it; infinite errors (it does not open) become null."""
    cost, reference = report.cost, report.float_cost
    return {
        "schema": SCHEMA,
        "compressed": compressed,
        "original": original,
        "passed": report.passed,
        "checks": [{"name": check.name, "passed": check.passed, "found": check.found} for check in report.checks],
        "levels": [
            {
                "level": item.level,
                "opens": item.opens,
                "relative_error": _finite(item.relative_error),
                "agreement": item.agreement,
                "message": item.message,
            }
            for item in report.levels
        ],
        "agreement": report.agreement,
        "relative_error": _finite(report.relative_error),
        "n_samples": report.n_samples,
        "data": "real" if report.real_samples else "random",
        "file_bytes": report.file_bytes,
        "original_bytes": report.original_bytes,
        "weight_bits": {str(bits): number for bits, number in report.weight_bits.items()},
        "activation_bits": {str(bits): number for bits, number in report.activation_bits.items()},
        "weight_density": report.weight_density,
        "energy_pj": {"float": reference.total, "compressed": cost.total} if cost and reference else None,
        "energy_unit": cost.energy_unit if cost else None,
        "cpu_features": report.cpu_features,
        "dialect": report.dialect,
        "capabilities": [
            {
                "runtime": row.runtime,
                "version": row.version or None,
                "level": row.level,
                "status": row.status,
                "relative_error": None if row.relative_error is None else _finite(row.relative_error),
                "agreement": row.agreement,
                "found": row.found,
            }
            for row in report.capabilities
        ],
    }


def applied_payload(applied: Applied, written: Written, notes: Sequence[str]) -> dict[str, Any]:
    """A plan carried out: the file, what each layer became, energy beside INT8 and float, and the measured drop.

    Args:
        applied: the model, its plan and costs.
        written: the file.
        notes: what was left out of the plan and why.
    """
    plan, measured = applied.plan, applied.evaluation
    return {
        "schema": SCHEMA,
        "output": {
            "path": str(written.path),
            "sha256": written.sha256,
            "file_bytes": written.file_bytes,
            "original_file_bytes": applied.original_bytes,
            "baseline_file_bytes": applied.int8_bytes,
            "parts": dict(written.parts),
        },
        "plan_sha256": plan.digest(),
        "layers": [
            {
                "key": key,
                **config.model_dump(),
                **({"achieved": plan.achieved[key].model_dump()} if key in plan.achieved else {}),
            }
            for key, config in plan.layers.items()
        ],
        "accelerator": applied.accelerator,
        "energy_pj": {
            "float": applied.float_cost.total,
            "baseline_int8": applied.baseline.total,
            "compressed": applied.cost.total,
        },
        "energy_unit": applied.cost.energy_unit,
        "reduction_vs_int8": reduction(applied.cost.total, applied.baseline.total),
        "reduction_vs_float": reduction(applied.cost.total, applied.float_cost.total),
        "data": "real" if applied.real_data else "synthetic",
        "metric": None
        if measured is None
        else {
            "name": measured.metric,
            "original": measured.reference,
            "compressed": measured.value,
            "drop_points": measured.drop_points,
            "drop_ci95": list(measured.ci95),
            "n_samples": measured.n_samples,
        },
        "calibration": _calibration(plan) if plan.calibration.samples else None,
        "polish": None if applied.polished is None else applied.polished.payload(),
        "notes": [*applied.notes, *notes],
    }


def _calibration(plan: CompressionPlan) -> dict[str, Any]:
    """How the plan's layers were repaired, and what from."""
    record = plan.calibration
    names = ("samples", "split_seed", "ranges", "recovery", "power_of_two")
    return {**{name: getattr(record, name) for name in names}, "repairs": list(record.repairs)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
