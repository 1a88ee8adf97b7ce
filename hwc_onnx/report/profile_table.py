"""Tables of `profile`: energy node by node, one accelerator in depth or several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from hwc_onnx.cost.types import COMPONENTS
from hwc_onnx.errors import UsageError
from hwc_onnx.plugins import nearest
from hwc_onnx.report.console import table, wrapped
from hwc_onnx.report.quantities import change, count, energy, latency, percent, power, size

DENSITIES = {
    "dense": "Activations count as dense; --data measures their zeros.",
    "measured": "Zeros among activations: measured on the given samples.",
    "recorded": "Zeros among activations: as recorded in the file. INT8 and float are this\n"
    "network's, without removed channels; result.json compares with the original.",
    "plan": "Zeros among activations: as recorded in the plan, for INT8 and float too.",
}

ZEROS = {
    "none": "",
    "own": "Zeros among the weights are the unquantized file's own: INT8 and float have them too.",
    "unknown": "INT8 and float have no zero weights: which ones the original had is not known from this file.",
}

ABREAST = 4
"""Accelerators that fit beside each other in 80 columns."""

HEADINGS = 50
"""Columns that the accelerators' names take together; a name longer than its share goes over several lines."""

NAMED = 3
"""Nodes named for each reason why they are not modelled."""

Payload = dict[str, Any]


def with_nodes(payloads: Sequence[Payload], top: int | None = None, key: str | None = None) -> list[Payload]:
    """The payloads with some of their nodes only; totals stay those of the whole model.

    Args:
        payloads: results of `profile_payload`, one for each accelerator.
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


def profile_tables(payloads: Sequence[Payload]) -> list[RenderableType]:
    """Tables for the payloads of one model on one or several accelerators."""
    shown: list[RenderableType] = []
    groups = [payloads[i : i + ABREAST] for i in range(0, len(payloads), ABREAST)]
    for group in groups:
        shown += [_nodes(group[0]) if len(payloads) == 1 else _side_by_side(group), ""]
    for group in groups:
        shown += [_totals(group), "", _components(group), ""]
    shown += [wrapped(line) for payload in payloads for line in _remarks(payload)]
    if len({payload["energy_unit"] for payload in payloads}) > 1:
        shown.append(
            wrapped(
                "Figures in multiples of a MAC and figures in joules do not compare; the ratios to INT8 and float do."
            )
        )
    zeros = ZEROS[payloads[0]["baseline_zeros"]]
    return [*shown, DENSITIES[payloads[0]["activation_densities"]], *([wrapped(zeros)] if zeros else [])]


def _nodes(payload: Payload) -> RenderableType:
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
        "used",
        "bound by",
        left=2,
    )
    made.padding = (0, 1, 0, 0)
    made.columns[1].max_width = 10
    bound = made.columns[-1]
    bound.justify, bound.no_wrap, bound.overflow, bound.max_width = "left", False, "fold", 10
    for node in payload["nodes"]:
        parts = node["energy_pj"]
        made.add_row(
            node["key"],
            node["op_type"],
            count(node["macs"]) if node["macs"] else "",
            energy(parts["total"], unit),
            percent(parts["total"] / total if total else 0.0),
            f"{100 * parts['dram'] / parts['total']:.0f}%" if parts["total"] else "",
            latency(node["latency_s"]) if node["cycles"] else "",
            f"{100 * node['utilisation']:.0f}%" if node["macs"] else "",
            node["bound_by"],
        )
    return made


def _side_by_side(payloads: Sequence[Payload]) -> RenderableType:
    made = _beside("Energy per inference", payloads, "node", "op")
    made.columns[1].max_width = 10
    units = [payload["energy_unit"] for payload in payloads]
    for nodes in zip(*(payload["nodes"] for payload in payloads), strict=True):
        figures = [energy(node["energy_pj"]["total"], unit) for node, unit in zip(nodes, units, strict=True)]
        made.add_row(nodes[0]["key"], nodes[0]["op_type"], *figures)
    return made


def _totals(payloads: Sequence[Payload]) -> RenderableType:
    """Each total as a row, each accelerator as a column."""
    made = _beside("Total", payloads, "")

    def row(name: str, figure: Callable[[Payload], str]) -> None:
        made.add_row(name, *(figure(payload) for payload in payloads))

    row("energy of this model", lambda p: energy(p["totals"]["energy_pj"]["total"], p["energy_unit"]))
    row("  INT8", lambda p: energy(p["baseline_int8"]["energy_pj"], p["energy_unit"]))
    row("  float", lambda p: energy(p["float"]["energy_pj"], p["energy_unit"]))
    row("  vs INT8", lambda p: change(p["reduction_vs_int8"]))
    row("  vs float", lambda p: change(p["reduction_vs_float"]))
    row("inferences per joule", _inferences)
    row("latency", lambda p: latency(p["totals"]["latency_s"]))
    row("static power", lambda p: "not stated" if p["static_power_mw"] is None else power(p["static_power_mw"]))
    row("bytes of weights", lambda p: size(p["totals"]["accelerator_bytes"]))
    row("MACs modelled", _macs_modelled)
    row("traffic modelled", lambda p: percent(p["coverage"]["traffic"]))
    return made


def _inferences(payload: Payload) -> str:
    found = payload["totals"]["inferences_per_joule"]
    if found is None:
        return "unknown"
    return count(found) if payload["energy_unit"] == "pJ" else f"{count(found)} *"


def _components(payloads: Sequence[Payload]) -> RenderableType:
    made = _beside("Energy by component", payloads, "")
    for name in COMPONENTS:
        if any(payload["totals"]["energy_pj"][name] for payload in payloads):
            made.add_row(name, *(_part(payload, name) for payload in payloads))
    return made


def _part(payload: Payload, name: str) -> str:
    parts = payload["totals"]["energy_pj"]
    return f"{energy(parts[name], payload['energy_unit'])} {percent(parts[name] / parts['total'] if parts['total'] else 0.0):>5}"


def _remarks(payload: Payload) -> Iterator[str]:
    """What must be said of one accelerator's figures: what is not modelled, sums that do not fit, an assumed unit."""
    name = payload["accelerator"]
    if payload["unmodelled"]:
        yield f"{name}: not modelled: " + ", ".join(_by_reason(payload["unmodelled"]))
    yield from _overflow(payload)
    if payload["reference_mac_pj"] is not None:
        yield f"* {name}: assuming reference_mac_pj, {payload['reference_mac_pj']:g} pJ for its reference MAC."


def _by_reason(items: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """A few nodes for each reason and how many more there are; --json has all of them."""
    keys: dict[str, list[str]] = {}
    for item in items:
        keys.setdefault(item["reason"], []).append(item["key"])
    for reason, found in keys.items():
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        yield f"{', '.join(found[:NAMED])}{more} ({reason})"


def _macs_modelled(payload: Payload) -> str:
    # a node of unknown work counts one per output element, most often too little
    return f"{'at most ' if payload['unmodelled'] else ''}{percent(payload['coverage']['macs'])}"


def _overflow(payload: Payload) -> Iterator[str]:
    found, model = payload["accumulators"], "this model"
    judged = found["this_model"]
    if not judged["checked"]:
        judged, model = found["baseline_int8"], "INT8"
    bits, wide = found["bits"], judged["overflow"]
    if wide:
        worst = wide[0]
        how = "going by its weights" if worst["bound"] == "weights" else "at most, going by its widths"
        yield (
            f"{payload['accelerator']}: {bits}-bit accumulators can overflow in {len(wide)} of {judged['checked']} layers of "
            f"{model}; most bits are needed by {worst['key']}: {worst['needed_bits']} {how}."
        )


def _beside(title: str, payloads: Sequence[Payload], *words: str) -> Table:
    """An empty table with one column of figures for each accelerator."""
    made = table(
        title,
        *words,
        *(_heading(payload["accelerator"], HEADINGS // len(payloads)) for payload in payloads),
        left=len(words),
    )
    for column in made.columns[len(words) :]:
        column.min_width = None
    return made


def _heading(name: str, most: int) -> str:
    """A name over several short lines, broken at hyphens where it has any."""
    lines = [""]
    for part in name.replace("-", "-\n").split("\n"):
        while len(part) > most:
            lines.append(part[:most])
            part = part[most:]
        if len(lines[-1]) + len(part) <= most:
            lines[-1] += part
        else:
            lines.append(part)
    return "\n".join(line for line in lines if line)
