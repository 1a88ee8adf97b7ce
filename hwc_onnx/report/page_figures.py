"""Figures of the report page, one function each; colours that can be told apart, on light and on dark paper."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hwc_onnx.report.origins import origin
from hwc_onnx.report.page_parts import clear
from hwc_onnx.report.quantities import energy, percent, points, size, unit_of
from hwc_onnx.report.run_record import RunRecord

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FAINT, DARK = "#f7f7f9", "#101418"
"""The faintest cell of a heat strip, and the words on all cells: the others are light enough for them, on either paper."""
GREY, BEST, GOOD, BAD = "#8a8f98", "#d9480f", "#2b8a3e", "#c92a2a"
BESIDE = ("#1864ab", "#5f3dc4", "#0b7285", "#862e9c", "#5c940d")
MARKS = {
    "seed": ("#8a8f98", "circle"),
    "rollout": ("#4269d0", "square"),
    "policy": ("#a463f2", "diamond"),
    "local_search": ("#3ca951", "triangle-up"),
    "referee": ("#4269d0", "square"),
    "closing": ("#d9480f", "star"),
}
"""Colour and mark of a trial by its origin."""


def layers(record: RunRecord, names: Sequence[str]) -> Figure:
    """What became of each layer: a strip with a column for each, in the order of execution."""
    from plotly.graph_objects import Heatmap
    from plotly.subplots import make_subplots

    rows = layer_rows(record, names)
    made: Figure = make_subplots(rows=5, cols=1, shared_xaxes=True, vertical_spacing=0.02)
    strips = (
        ("weight bits", [row["weight_bits"] for row in rows], 2, 8, "#6baed6"),
        ("activation bits", [row["activation_bits"] for row in rows], 2, 8, "#a9a6d3"),
        ("% zeros", [row["zeros"] for row in rows], 0, 100, "#74c476"),
        ("% channels off", [row["channels"] for row in rows], 0, 100, "#fd8d3c"),
        ("% energy saved", [row["saved"] for row in rows], 0, 100, "#fb7d62"),
    )
    hover = [
        f"<b>{html.escape(row['name'])}</b><br>{html.escape(row['words'])}<br>{row['energy']}" for row in rows
    ]
    for place, (title, values, low, high, colour) in enumerate(strips, 1):
        made.add_trace(
            Heatmap(
                z=[values],
                x=list(range(1, len(rows) + 1)),
                y=[title],
                zmin=low,
                zmax=high,
                colorscale=[[0.0, FAINT], [1.0, colour]],
                showscale=False,
                text=[[f"{value:.0f}" for value in values]],
                texttemplate="%{text}" if len(rows) <= 40 else "",
                textfont={"color": DARK},
                customdata=[hover],
                hovertemplate="%{customdata}<br>" + title + ": %{z:.0f}<extra></extra>",
                xgap=1 if len(rows) <= 60 else 0,
                ygap=1,
            ),
            row=place,
            col=1,
        )
    made.update_xaxes(showgrid=False, zeroline=False)
    made.update_xaxes(title_text="layer, in the order of execution (names: table below)", row=5, col=1)
    return clear(made, 300)


def layer_rows(record: RunRecord, names: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each layer of the plan, in the order of execution."""
    nodes = [{node["key"]: node for node in payload["nodes"]} for payload in (record.before, record.after)]
    unit = record.before["energy_unit"]
    rows = []
    for name in names:
        layer, achieved = record.plan["layers"][name], record.plan.get("achieved", {}).get(name, {})
        before, after = (found[name]["energy_pj"]["total"] if name in found else 0.0 for found in nodes)
        coarse = achieved.get("kept_channels") is not None
        ratio = float(achieved.get("ratio", layer["ratio"]))
        zeros = 100.0 * (1.0 - float(achieved.get("weight_density", 1.0)))
        pruned = f"{layer['algorithm']}, {percent(ratio)}" if layer["algorithm"] != "none" else "not pruned"
        rows.append(
            {
                "name": name,
                "op_type": nodes[1].get(name, {}).get("op_type", ""),
                "weight_bits": layer["weight_bits"],
                "activation_bits": layer["activation_bits"],
                "zeros": zeros,
                "channels": 100.0 * ratio if coarse else 0.0,
                "saved": 100.0 * (1.0 - after / before) if before else 0.0,
                "pruned": pruned,
                "words": f"{pruned}; W{layer['weight_bits']} A{layer['activation_bits']}",
                "energy": f"{energy(before, unit)} to {energy(after, unit)}",
                "before": before,
                "after": after,
            }
        )
    return rows


def accuracy(stages: Sequence[Mapping[str, Any]], limit: float | None, unit: str) -> Figure:
    """Drop of each stage with its interval, and the limit, in `unit`."""
    from plotly.graph_objects import Figure, Scatter

    made = Figure()
    drops = [stage["drop"] for stage in stages]
    low = [max(stage["drop"] - stage["ci95"][0], 0.0) if stage["ci95"] else 0.0 for stage in stages]
    high = [max(stage["ci95"][1] - stage["drop"], 0.0) if stage["ci95"] else 0.0 for stage in stages]
    made.add_trace(
        Scatter(
            x=drops,
            y=[stage["name"] for stage in stages],
            mode="markers",
            marker={"size": 10, "color": [GOOD if stage["passed"] else BAD if stage["passed"] is False else GREY for stage in stages]},
            error_x={"type": "data", "symmetric": False, "array": high, "arrayminus": low, "color": GREY},
            customdata=[points(drop) for drop in drops],
            hovertemplate="%{y}: %{customdata} " + unit + "<extra></extra>",
            showlegend=False,
        )
    )
    if limit is not None:
        made.add_vline(x=limit, line={"color": BAD, "dash": "dash", "width": 1.5}, annotation_text=f"limit {limit:.2f}")
    made.update_yaxes(autorange="reversed")
    made.update_xaxes(title_text=f"{unit} lost against {'INT8' if unit == 'dB' else 'the original'} (bars: 95 % interval)", zeroline=True)
    return clear(made, 110 + 34 * len(stages))


def search(record: RunRecord) -> Figure:
    """Energy of each trial by who proposed it, and the best so far."""
    from plotly.graph_objects import Figure, Scatter

    made, unit = Figure(), unit_of(record.result["metric"]["name"])
    for name in dict.fromkeys(trial.origin for trial in record.trials):
        words, (colour, mark) = origin(name), MARKS.get(name, (GREY, "circle"))
        found = [trial for trial in record.trials if trial.origin == name and not trial.failed]
        made.add_trace(
            Scatter(
                x=[trial.evaluations for trial in found],
                y=[100.0 * trial.energy for trial in found],
                mode="markers",
                marker={
                    "size": 8,
                    "color": colour,
                    "symbol": [mark if trial.accepted else f"{mark}-open" for trial in found],
                },
                name=words,
                customdata=[
                    f"{points(trial.drop)} {unit}{'' if trial.complete else ', stopped early'}" for trial in found
                ],
                hovertemplate="evaluation %{x}: %{y:.1f} % of INT8's energy, %{customdata}<extra>" + words + "</extra>",
            )
        )
    lines = [(record, "best accepted" if not record.beside else f"best accepted, {record.strategy}", {"color": BEST, "width": 2.5})]
    for place, other in enumerate(record.beside):
        style = {"color": BESIDE[place % len(BESIDE)], "width": 2, "dash": "dot"}
        lines.append((other, f"best accepted, {other.strategy}", style))
    for one, name, style in lines:
        steps = best_so_far(one)
        made.add_trace(
            Scatter(
                x=[at for at, _ in steps],
                y=[100.0 * best for _, best in steps],
                mode="lines",
                line={"shape": "hv", **style},
                name=name,
                hovertemplate="after %{x}: %{y:.1f} % of INT8's energy<extra>" + name + "</extra>",
            )
        )
    made.update_xaxes(title_text="evaluations", rangemode="tozero")
    made.update_yaxes(title_text="energy, % of INT8", rangemode="tozero")
    return clear(made, 400)


def best_so_far(record: RunRecord) -> list[tuple[int, float]]:
    """(evaluations, least accepted energy) at each improvement, and at the end."""
    steps: list[tuple[int, float]] = []
    for trial in record.trials:
        if trial.accepted and (not steps or trial.energy < steps[-1][1]):
            steps.append((trial.evaluations, trial.energy))
    if steps:
        steps.append((record.trials[-1].evaluations, steps[-1][1]))
    return steps


def sizes(result: Mapping[str, Any]) -> Figure:
    """Bytes of the file and of the weights on the accelerator, before and after."""
    from plotly.graph_objects import Bar, Figure

    output, weights = result["output"], result["accelerator_bytes"]
    rows = {
        "file": (output["original_file_bytes"], output["baseline_file_bytes"], output["file_bytes"]),
        "weights on the accelerator": (weights["float"], weights["baseline_int8"], weights["compressed"]),
    }
    made = Figure()
    for place, (name, colour) in enumerate((("original", GREY), ("INT8", "#4269d0"), ("result", BEST))):
        values = [row[place] for row in rows.values()]
        made.add_trace(
            Bar(
                name=name,
                y=list(rows),
                x=[value / 1000.0 for value in values],
                orientation="h",
                marker_color=colour,
                customdata=[size(value) for value in values],
                hovertemplate="%{y}, " + name + ": %{customdata}<extra></extra>",
            )
        )
    made.update_yaxes(autorange="reversed")
    made.update_xaxes(title_text="KB")
    return clear(made, 240)
