"""Tables of `profile`: energy node by node, one accelerator in depth or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType

from hwc_onnx.cost.types import COMPONENTS
from hwc_onnx.errors import UsageError
from hwc_onnx.plugins import nearest
from hwc_onnx.report.console import table
from hwc_onnx.report.quantities import change, count, energy, latency, percent, size

DENSITIES = {
    "dense": "Activations count as dense; --data measures their zeros.",
    "measured": "Zeros among activations: measured on the given samples.",
    "recorded": "Zeros among activations: as recorded in the file. INT8 and float are this\n"
    "network's, without removed channels; result.json compares with the original.",
    "plan": "Zeros among activations: as recorded in the plan, for INT8 and float too.",
}


def with_nodes(
    payloads: Sequence[dict[str, Any]], top: int | None = None, key: str | None = None
) -> list[dict[str, Any]]:
    """The payloads with some of their nodes only; totals stay those of the whole model.

    Args:
        payloads: results of `payloads.profile_payload`, one for each accelerator.
        top: keep this many nodes, those that cost most on the first accelerator, costliest first.
        key: keep this node alone.

    Raises:
        UsageError: no node has this key.
    """
    nodes = payloads[0]["nodes"]
    keys = [node["key"] for node in nodes]
    if key is not None:
        if key not in keys:
            raise UsageError(
                f"--explain: no node '{key}'{nearest(key, keys)}; `hwc-onnx profile MODEL` lists the nodes by name"
            )
        keys = [key]
    elif top is not None:
        costliest = sorted(nodes, key=lambda node: node["energy_pj"]["total"], reverse=True)
        keys = [node["key"] for node in costliest[:top]]
    named = [{node["key"]: node for node in payload["nodes"]} for payload in payloads]
    return [payload | {"nodes": [known[key] for key in keys]} for payload, known in zip(payloads, named, strict=True)]


def profile_tables(payloads: Sequence[dict[str, Any]]) -> list[RenderableType]:
    """Tables for the payloads of one model on one or several accelerators (`payloads.profile_payload`)."""
    nodes = _nodes(payloads[0]) if len(payloads) == 1 else _side_by_side(payloads)
    return [nodes, "", *_summary(payloads), "", DENSITIES[payloads[0]["activation_densities"]]]


def explain_tables(payloads: Sequence[dict[str, Any]]) -> list[RenderableType]:
    """How one node's energy comes about on each accelerator: its parts, its accesses and its mapping.

    `payloads` are of `with_nodes`, with that node alone.
    """
    shown: list[RenderableType] = []
    for payload in payloads:
        (node,) = payload["nodes"]
        unit = payload["energy_unit"]
        parts = table(f"{node['key']} ({node['op_type']}) on {payload['accelerator']}", "part", "energy", "share")
        total = node["energy_pj"]["total"]
        for name in COMPONENTS:
            part = node["energy_pj"][name]
            if part:
                parts.add_row(name, energy(part, unit), percent(part / total))
        parts.add_row("total", energy(total, unit), percent(1.0))
        shown.append(parts)
        counts = table("\nAccesses in words", "memory", "operand", "read", "written", left=2)
        for memory, operands in node["accesses"].items():
            for operand, numbers in operands.items():
                counts.add_row(memory, operand, count(numbers.get("read", 0.0)), count(numbers.get("write", 0.0)))
        shown.append(counts)
        mapping = ", ".join(f"{name}: {value}" for name, value in node["mapping"].items())
        shown.append(f"\n{count(node['macs'])} MACs, {count(node['cycles'])} cycles, method {node['method']}")
        shown.append(f"mapping {mapping}\n" if mapping else "")
    return shown


def _nodes(payload: dict[str, Any]) -> RenderableType:
    unit, total = payload["energy_unit"], payload["totals"]["energy_pj"]["total"]
    made = table(
        f"Energy per inference on {payload['accelerator']}",
        "node",
        "op",
        "MACs",
        "energy",
        "share",
        "DRAM",
        "latency",
        left=2,
    )
    for node in payload["nodes"]:
        parts = node["energy_pj"]
        share = parts["total"] / total if total else 0.0
        made.add_row(
            node["key"],
            node["op_type"],
            count(node["macs"]),
            energy(parts["total"], unit),
            percent(share),
            energy(parts["dram"], unit),
            latency(node["latency_s"]),
        )
    return made


def _side_by_side(payloads: Sequence[dict[str, Any]]) -> RenderableType:
    made = table("Energy per inference", "node", "op", *(payload["accelerator"] for payload in payloads), left=2)
    units = [payload["energy_unit"] for payload in payloads]
    for nodes in zip(*(payload["nodes"] for payload in payloads), strict=True):
        figures = [energy(node["energy_pj"]["total"], unit) for node, unit in zip(nodes, units, strict=True)]
        made.add_row(nodes[0]["key"], nodes[0]["op_type"], *figures)
    return made


def _summary(payloads: Sequence[dict[str, Any]]) -> list[RenderableType]:
    made = table("Total", "accelerator", "this model", "INT8", "vs INT8", "vs float", "latency", "bytes")
    lines: list[RenderableType] = [made]
    for payload in payloads:
        unit, totals = payload["energy_unit"], payload["totals"]
        made.add_row(
            payload["accelerator"],
            energy(totals["energy_pj"]["total"], unit),
            energy(payload["baseline_int8"]["energy_pj"], unit),
            change(payload["reduction_vs_int8"]),
            change(payload["reduction_vs_float"]),
            latency(totals["latency_s"]),
            size(totals["accelerator_bytes"]),
        )
        if payload["unmodelled"]:
            coverage = payload["coverage"]
            lines.append(
                f"{payload['accelerator']}: modelled {percent(coverage['macs'])} of the MACs and "
                f"{percent(coverage['traffic'])} of the traffic; left out: "
                + ", ".join(f"{item['key']} ({item['reason']})" for item in payload["unmodelled"])
            )
    return lines
