"""The cost of a model on an accelerator as JSON (`profile.schema.json`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwc_onnx.cost.accelerator import AcceleratorProfile
from hwc_onnx.cost.types import COMPONENTS, Accumulator, ModelCost, NodeCost, Term
from hwc_onnx.report.accel_table import show_payload
from hwc_onnx.report.payloads import SCHEMA, reduction


def profile_payload(
    profile: AcceleratorProfile,
    cost: ModelCost,
    baseline: ModelCost,
    float_cost: ModelCost,
    seconds: float,
    densities: str = "dense",
    explain: str | bool | None = None,
    baseline_zeros: str = "none",
) -> dict[str, Any]:
    """Per-node energy of one model on one accelerator, with the INT8 and float totals beside it.

    Args:
        profile: the accelerator.
        cost: the model as it is.
        baseline: the same network with every layer at 8 bits.
        float_cost: the same network unquantized.
        seconds: wall-clock time of the computation.
        densities: where the shares of zero activations come from: "dense" (unknown), "measured", "recorded" (in the
            file) or "plan" (recorded in it).
        explain: key of the node whose terms are included; True for all nodes.
        baseline_zeros: zero weights of the INT8 and float network: "none", the file's "own", or "unknown" (counted as none).
    """
    constants = {item["field"]: item for item in show_payload(profile)["constants"]} if explain else {}
    return {
        "schema": SCHEMA,
        "accelerator": profile.name,
        "activation_densities": densities,
        "baseline_zeros": baseline_zeros,
        "energy_unit": cost.energy_unit,
        "reference_mac_pj": cost.reference_mac_pj if cost.energy_unit != "pJ" else None,
        "static_power_mw": None if profile.static is None else profile.static.power_mw,
        "memories": [{"name": memory.name, "kind": memory.kind} for memory in profile.memories],
        "nodes": [
            _node(node) | ({"terms": _terms(node.terms, constants)} if explain is True or node.key == explain else {})
            for node in cost.nodes
        ],
        "totals": _totals(cost) | {"energy_pj": _energy(cost.energy, cost.total)},
        "baseline_int8": _totals(baseline),
        "float": _totals(float_cost),
        "reduction_vs_int8": reduction(cost.total, baseline.total),
        "reduction_vs_float": reduction(cost.total, float_cost.total),
        "accumulators": {
            "bits": profile.mac.accumulator_bits,
            "this_model": _accumulators(cost),
            "baseline_int8": _accumulators(baseline),
        },
        "coverage": {"macs": cost.coverage_macs, "traffic": cost.coverage_traffic},
        "unmodelled": [{"key": key, "reason": reason} for key, reason in cost.unmodelled],
        "seconds": seconds,
    }


def _node(node: NodeCost) -> dict[str, Any]:
    return {
        "key": node.key,
        "op_type": node.op_type,
        "macs": node.macs,
        "energy_pj": _energy(node.energy, node.total),
        "accesses": {memory: {op: dict(n) for op, n in operands.items()} for memory, operands in node.accesses.items()},
        "mapping": dict(node.mapping),
        "cycles": node.cycles,
        "latency_s": node.latency_s,
        "utilisation": node.utilisation,
        "bound_by": node.bound_by,
        "accumulator": None if node.accumulator is None else _accumulator(node.accumulator),
        "method": node.method,
    }


def _energy(parts: Mapping[str, float], total: float) -> dict[str, float]:
    return {**{name: float(parts.get(name, 0.0)) for name in COMPONENTS}, "total": total}


def _totals(cost: ModelCost) -> dict[str, Any]:
    return {
        "energy_pj": cost.total,
        "energy_j": cost.joules,
        "inferences_per_joule": cost.inferences_per_joule,
        "cycles": cost.cycles,
        "latency_s": cost.latency_s,
        "macs": cost.macs,
        "accelerator_bytes": cost.accelerator_bytes,
    }


def _accumulators(cost: ModelCost) -> dict[str, Any]:
    """How many layers were checked, and those whose sums can overflow, the widest first."""
    checked = [node for node in cost.nodes if node.accumulator is not None]
    found = [
        {"key": node.key, **_accumulator(node.accumulator)}
        for node in checked
        if node.accumulator is not None and node.accumulator.overflows
    ]
    return {"checked": len(checked), "overflow": sorted(found, key=lambda item: -item["needed_bits"])}


def _accumulator(found: Accumulator) -> dict[str, Any]:
    return {"needed_bits": found.needed, "bound": "weights" if found.exact else "widths"}


def _terms(terms: tuple[Term, ...], constants: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each product of a node's energy, with the unit and source of its constant."""
    return [
        {
            "component": term.component,
            "what": term.what,
            "count": term.count,
            "counted": term.unit,
            "factor": term.factor,
            "bits": term.bits,
            "constant": term.constant,
            "field": term.field,
            "value": constants[term.field]["value"],
            "unit": constants[term.field]["unit"],
            "source": constants[term.field]["source"],
            "why": list(term.why),
            "energy_pj": term.energy,
        }
        for term in terms
    ]
