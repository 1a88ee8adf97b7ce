"""Which decisions of the plan cost most, by the damage table of the search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hwc_onnx.report.page_parts import clear, figure, folded, table
from hwc_onnx.report.profile_figure import short_name
from hwc_onnx.report.quantities import percent
from hwc_onnx.report.run_record import RunRecord

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST = 16
COLOURS = {"layer": "#4269d0", "channels": "#d9480f", "activation": "#3ca951"}
WORDS = {"layer": "weights", "channels": "channels removed", "activation": "stored tensor"}


def damages(record: RunRecord) -> str:
    """The decisions with the largest damage; nothing where the run did not keep them."""
    rows = record.result.get("damage", [])
    if not rows:
        return ""
    total = sum(row["damage"] for row in rows)
    head = rows[:MOST]
    share = sum(row["damage"] for row in head[:3]) / total
    said = (
        f"What each decision of the plan costs alone, all others at INT8. The {len(head[:3])} worst make up {percent(share)} of the sum: "
        + "; ".join(f"{row['name']} ({setting(row)})" for row in head[:3])
        + "."
    )
    listing = [(row["name"], WORDS[row["kind"]], setting(row), f"{1000.0 * row['damage']:.3f}", percent(row["damage"] / total)) for row in rows]
    return figure("damage", drawn(head), said) + folded(
        "The same as a table, all decisions",
        table("Damage alone, in thousandths", ("layer, group or tensor", "of", "setting", "damage", "share"), listing, words=(1, 2)),
    )


def setting(row: Mapping[str, Any]) -> str:
    """A decision in words."""
    pruned = "" if row["algorithm"] == "none" else f"{row['algorithm']} {percent(row['ratio'])}"
    bits = f"{row['bits']} bits" if row["bits"] else ""
    return ", ".join(filter(None, (pruned, bits)))


def drawn(rows: list[Mapping[str, Any]]) -> Figure:
    """A bar for each decision, the worst on top."""
    from plotly.graph_objects import Bar, Figure

    made = Figure()
    for kind, colour in COLOURS.items():
        places = [place for place, row in enumerate(rows) if row["kind"] == kind]
        if places:
            made.add_trace(
                Bar(
                    name=WORDS[kind],
                    y=places,
                    x=[1000.0 * rows[place]["damage"] for place in places],
                    orientation="h",
                    marker_color=colour,
                    customdata=[f"{rows[place]['name']}: {setting(rows[place])}".replace("<", "&lt;") for place in places],
                    hovertemplate="%{customdata}, %{x:.3f}<extra></extra>",
                )
            )
    made.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[short_name(row["name"], 26) for row in rows],
        range=[len(rows) - 0.5, -0.5],
        tickfont_size=11,
    )
    made.update_xaxes(title_text="damage alone, in thousandths")
    return clear(made, 130 + 20 * len(rows), bargap=0.25)
