"""`compare --figure`: the best saving so far of each strategy, median and quartiles, as a page that needs no network.

The horizontal axis is the budget in evaluation-equivalents, preparation included; lines are steps, because a saving holds
until a better plan is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwc_onnx.files import write_atomic
from hwc_onnx.report.page_frame import framed
from hwc_onnx.report.page_parts import clear, figure, folded, paragraph, section, table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLOURS = ("#4269d0", "#ff725c", "#3ca951", "#efb118", "#a463f2", "#6cc5b0", "#9c6b4e", "#9498a0")
DASHES = {"seeds": "solid", "cold": "dash"}
"""Line of each start; a strategy keeps its colour over both."""
BAND = 0.15
"""Opacity of the quartile band."""


def write_compare_figure(path: Path, payload: Mapping[str, Any]) -> None:
    """Write `compare_page` (UsageError where the place is not writable)."""
    write_atomic(path, compare_page(payload).encode(), "--figure")


def compare_page(payload: Mapping[str, Any]) -> str:
    """The page for `Comparison.payload`."""
    model = Path(payload["model"]["path"] or "model").name
    said = "Best saving so far, median and quartiles over seeds, by the budget that was used; a strategy keeps its colour over both starts."
    curves = section(
        "curves", "Best saving so far", figure("curves", compare_figure(payload), said), folded("The same as a table", _table(payload))
    )
    return framed(f"Search strategies on {model}", [*(paragraph(line) for line in payload["summary"]["verdict"]), curves], {})


def _table(payload: Mapping[str, Any]) -> str:
    """Quartiles of each strategy at a third of the budget and at the end."""
    budget = payload["summary"]["budget"]
    places = (budget // 3, budget)
    rows = []
    for one in payload["summary"]["strategies"]:
        cells = [[100.0 * one["band"][key][place] for key in ("median", "q1", "q3")] for place in places]
        rows.append((one["sampler"], one["start"], *(f"{middle:.1f} % ({low:.1f} - {high:.1f})" for middle, low, high in cells)))
    return table("Energy saved against INT8, median (quartiles)", ("strategy", "start", *(f"after {at}" for at in places)), rows, words=(1,))


def compare_figure(payload: Mapping[str, Any]) -> Figure:
    """One median with its quartile band for each strategy; savings in percent of the INT8 baseline's energy."""
    from plotly.graph_objects import Figure, Scatter

    summary = payload["summary"]
    samplers = list(dict.fromkeys(one["sampler"] for one in summary["strategies"]))
    axis = list(range(summary["budget"] + 1))
    made = Figure()
    for one in summary["strategies"]:
        colour = COLOURS[samplers.index(one["sampler"]) % len(COLOURS)]
        name = f"{one['sampler']}, start {one['start']}"
        low, median, high = ([100.0 * value for value in one["band"][key]] for key in ("q1", "median", "q3"))
        shared = {"x": axis, "legendgroup": name, "mode": "lines"}
        edge = {"shape": "hv", "width": 0, "color": colour}
        made.add_trace(Scatter(**shared, y=low, line=edge, showlegend=False, hoverinfo="skip"))
        made.add_trace(
            Scatter(**shared, y=high, line=edge, showlegend=False, hoverinfo="skip", fill="tonexty", fillcolor=_faint(colour))
        )
        made.add_trace(
            Scatter(
                **shared,
                y=median,
                name=name,
                line={"shape": "hv", "width": 2, "color": colour, "dash": DASHES[one["start"]]},
                customdata=[f"{a:.1f} - {b:.1f}" for a, b in zip(low, high, strict=True)],
                hovertemplate="%{y:.1f}% (quartiles %{customdata}) after %{x}",
            )
        )
    made.update_xaxes(title_text="evaluation-equivalents, preparation included", rangemode="tozero")
    made.update_yaxes(title_text="best energy saved vs INT8, percent", rangemode="tozero")
    return clear(made, 520, hovermode="x unified")


def _faint(colour: str) -> str:
    """A colour #rrggbb with the band's opacity."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{BAND})"
