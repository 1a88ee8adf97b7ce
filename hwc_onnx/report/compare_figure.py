"""`compare --figure`: the best saving so far of each strategy, median and quartiles, as a page that needs no network.

The horizontal axis is the budget in evaluation-equivalents, preparation included; lines are steps, because a saving holds
until a better plan is found.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwc_onnx.files import write_atomic
from hwc_onnx.report.profile_figure import CONFIG

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
    from plotly.io import to_html

    model = Path(payload["model"]["path"] or "model").name
    title = html.escape(f"Search strategies on {model}")
    said = "".join(f"<p>{html.escape(line)}</p>\n" for line in payload["summary"]["verdict"])
    drawn = to_html(compare_figure(payload), full_html=False, include_plotlyjs=True, div_id="figure0", config=CONFIG)
    style = "body{font-family:sans-serif;margin:1.5em}h1{font-size:1.3em}p{color:#444}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{style}</style></head><body>\n<h1>{title}</h1>\n{said}{drawn}\n</body></html>\n"
    )


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
    made.update_layout(
        template="plotly_white",
        height=520,
        hovermode="x unified",
        legend={"orientation": "h", "y": -0.18},
        margin={"l": 60, "r": 25, "t": 30, "b": 60},
    )
    made.update_xaxes(title_text="evaluation-equivalents, preparation included", rangemode="tozero")
    made.update_yaxes(title_text="best energy saved vs INT8, percent", rangemode="tozero")
    return made


def _faint(colour: str) -> str:
    """A colour #rrggbb with the band's opacity."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{BAND})"
