"""Tables of `apply`: what each layer became, the drop, the energy and the file."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from hwc_onnx.pruning.table import COARSE, FINE
from hwc_onnx.report.console import table, wrapped
from hwc_onnx.report.polish_table import polish_tables
from hwc_onnx.report.quantities import change, energy, file_shares, metric_value, percent, points, size, unit_of

MORE = 0.01
"""Share of zeros beyond those asked for that is worth a word."""
REPAIRED = ("full", "sequential")


def applied_tables(payload: dict[str, Any]) -> list[RenderableType]:
    """Layers, then one line each for accuracy, energy and file, then what was left out and why."""
    layers = table("Layers", "layer", "pruning", "weights", "activations", "not zero", left=2)
    for layer in payload["layers"]:
        # channels are counted as removed; zeros as asked for, since the last column counts them
        coarse = "achieved" in layer and layer["algorithm"] in COARSE
        ratio = layer["achieved"]["ratio"] if coarse else layer["ratio"]
        pruning = layer["algorithm"] if layer["algorithm"] == "none" else f"{layer['algorithm']} {percent(ratio)}"
        density = layer["achieved"]["weight_density"] if "achieved" in layer else None
        layers.add_row(
            layer["key"],
            pruning,
            f"{layer['weight_bits']} bit",
            f"{layer['activation_bits']} bit",
            percent(density) if density is not None else "",
        )
    figures, unit, output = payload["energy_pj"], payload["energy_unit"], payload["output"]
    lines: list[RenderableType] = [layers, *_remarks(payload["layers"]), "", *polish_tables(payload["polish"])]
    if payload["calibration"] is not None:
        lines.append(wrapped(_calibration(payload["calibration"])))
    metric = payload["metric"]
    if metric is not None:
        name = metric["name"]
        low, high = metric["drop_ci95"]
        # sqnr has no value for the original itself
        before = f"{name} of INT8" if name == "sqnr" else name
        lines.append(
            f"{before} {metric_value(name, metric['original'])} -> {metric_value(name, metric['compressed'])}, drop "
            f"{points(metric['drop_points'])} {unit_of(name)} ({points(low)} .. {points(high)}, {metric['n_samples']} {payload['data']} samples)"
        )
    lines += [
        f"energy on {payload['accelerator']}: {energy(figures['compressed'], unit)}, "
        f"{change(payload['reduction_vs_int8'])} vs INT8, {change(payload['reduction_vs_float'])} vs float",
        f"written: {output['path']}, {size(output['file_bytes'])} ({_beside(output)})",
        wrapped(f"of these: {file_shares(output['parts'])}"),
    ]
    return lines + [f"note: {text}" for text in payload["notes"]]


def _beside(output: dict[str, Any]) -> str:
    """The file's size beside others."""
    int8 = output["baseline_file_bytes"]
    share = "" if int8 is None else f", INT8's {size(int8)}: {output['file_bytes'] / int8:.2f} of it"
    return f"original {size(output['original_file_bytes'])}{share}"


def _remarks(layers: list[dict[str, Any]]) -> list[RenderableType]:
    """What a reader of the table may wonder at: more zeros than were asked for, and a file that is no smaller for them."""
    zeros = [layer for layer in layers if layer["algorithm"] in FINE and "achieved" in layer]
    said = []
    if any(layer["achieved"]["weight_density"] < 1.0 - layer["ratio"] - MORE for layer in zeros):
        said.append("rounding to few bits makes more weights zero than were pruned")
    if zeros:
        said.append("zeros save energy where the accelerator uses them; in the file they take the place of any other weight")
    return [wrapped("; ".join(said))] if said else []


def _calibration(record: dict[str, Any]) -> str:
    """How layers were repaired and ranges chosen."""
    repairs = f" with {', '.join(record['repairs'])}" if record["repairs"] and record["recovery"] in REPAIRED else ""
    powers = ", scales powers of two" if record["power_of_two"] else ""
    return f"recovery {record['recovery']}{repairs}; ranges {record['ranges']} of {record['samples']} samples{powers}"
