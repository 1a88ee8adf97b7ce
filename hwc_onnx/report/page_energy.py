"""The section of a run's page on energy: by component and by node, INT8 beside the result, each part with its products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hwc_onnx.cost.types import COMPONENTS
from hwc_onnx.report.page_commands import explain_command
from hwc_onnx.report.page_parts import clear, command, figure, folded, paragraph, section, table
from hwc_onnx.report.products import largest, merged
from hwc_onnx.report.profile_figure import COLOURS, component_bar, rows_of, short_name, together
from hwc_onnx.report.quantities import change, energy, scale_of
from hwc_onnx.report.run_record import RunRecord

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_PRODUCTS = 3
"""Products that are shown of a whole network's component."""


def spent(record: RunRecord) -> str:
    """Energy by component and by node."""
    before, after = (component_sums(payload) for payload in (record.before, record.after))
    unit = record.before["energy_unit"]
    total, left = sum(before.values()), sum(after.values())
    largest = max(before, key=lambda name: before[name] - after[name])
    said = f"{energy(total, unit)} with INT8, {energy(left, unit)} for the file that was written"
    saves = before[largest] > after[largest]
    said += f"; most is saved in {largest} ({energy(before[largest], unit)} to {energy(after[largest], unit)})." if saves else "."
    rows = [
        (name, energy(before[name], unit), energy(after[name], unit), change(1.0 - after[name] / before[name]) if before[name] else "-")
        for name in before
        if before[name] or after[name]
    ]
    return section(
        "energy",
        "Energy",
        figure("components", components(record), said),
        folded("The same as a table", table("Energy by component", ("component", "INT8", "result", "change"), rows)),
        figure(
            "nodes",
            nodes(record),
            "Energy of each node, INT8 and result on one scale; hovering a part shows what it is the sum of: so many words, by their "
            "bits, by what a bit costs.",
            640,
        ),
        folded("The same as a table", node_table(record)),
        paragraph("Every product of one node, with the source of each constant:", "soft"),
        command(explain_command(record)),
        _others(record),
    )


def _others(record: RunRecord) -> str:
    """The accelerators of --compare-accel."""
    found = record.result["compared_accelerators"]
    rows = [
        (
            one["name"],
            energy(one["energy_pj"]["baseline_int8"], one["energy_unit"]),
            energy(one["energy_pj"]["compressed"], one["energy_unit"]),
            change(one["reduction_vs_int8"]),
        )
        for one in found
    ]
    return table("The same file on other accelerators", ("accelerator", "INT8", "result", "vs INT8"), rows) if rows else ""


def components(record: RunRecord) -> Figure:
    """Energy of INT8 and of the result, divided into components."""
    from plotly.graph_objects import Bar, Figure

    payloads = (record.before, record.after)
    sums = [component_sums(payload) for payload in payloads]
    terms = [merged(payload["nodes"]) for payload in payloads]
    unit = record.before["energy_unit"]
    factor, name = scale_of(max(sum(parts.values()) for parts in sums), unit, 1.0)
    made = Figure()
    for component in COMPONENTS:
        if any(parts[component] for parts in sums):
            hover = [
                "<br>".join([energy(parts[component], unit), *largest(found, component, unit, MOST_PRODUCTS, "<br>   ")])
                for parts, found in zip(sums, terms, strict=True)
            ]
            made.add_trace(
                Bar(
                    name=component,
                    y=["INT8", "result"],
                    x=[parts[component] / factor for parts in sums],
                    orientation="h",
                    marker_color=COLOURS[component],
                    customdata=hover,
                    hovertemplate="%{y}, " + component + ": %{customdata}<extra></extra>",
                )
            )
    made.update_yaxes(autorange="reversed")
    made.update_xaxes(title_text=f"{name} per inference")
    return clear(made, 230, barmode="stack", bargap=0.35, hoverlabel={"align": "left", "font": {"size": 11}})


def component_sums(payload: Mapping[str, Any]) -> dict[str, float]:
    """Energy by component over all nodes."""
    return {name: sum(node["energy_pj"][name] for node in payload["nodes"]) for name in COMPONENTS}


def nodes(record: RunRecord, most: int = 40) -> Figure:
    """Energy of each node before and after, on one axis, divided into components; the cheapest share a row."""
    from plotly.subplots import make_subplots

    payloads = [dict(record.before), dict(record.after)]
    rows = rows_of(payloads, most)
    unit = record.before["energy_unit"]
    made: Figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=("INT8", "result"))
    grouped = [
        [together([found[key] for key in keys if key in found]) for _, keys in rows]
        for found in ({node["key"]: node for node in payload["nodes"]} for payload in payloads)
    ]
    highest = max((node["energy_pj"]["total"] for group in grouped for node in group), default=1.0)
    factor, name = scale_of(highest, unit, 1.0)
    for column, (payload, group) in enumerate(zip(payloads, grouped, strict=True), 1):
        for component in COMPONENTS:
            if any(node["energy_pj"][component] for node in group):
                made.add_trace(component_bar(component, group, payload, factor, column == 1), row=1, col=column)
        made.update_xaxes(title_text=name, range=[0.0, 1.05 * highest / factor], row=1, col=column)
    made.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[short_name(label, 26) for label, _ in rows],
        range=[len(rows) - 0.5, -0.5],
        tickfont_size=11,
    )
    return clear(made, 150 + 17 * len(rows), barmode="stack", bargap=0.25, margin={"l": 10, "r": 10, "t": 70, "b": 45})


def node_table(record: RunRecord) -> str:
    """Every node that costs anything: its energy before and after, and the component that takes most of what is left."""
    unit = record.before["energy_unit"]
    after = {node["key"]: node["energy_pj"] for node in record.after["nodes"]}
    rows = []
    for node in record.before["nodes"]:
        first, left = node["energy_pj"], after.get(node["key"], dict.fromkeys((*COMPONENTS, "total"), 0.0))
        if not first["total"] and not left["total"]:
            continue
        most = max(COMPONENTS, key=lambda name: left[name])
        mostly = f"{most} {100.0 * left[most] / left['total']:.0f} %" if left["total"] else "-"
        change_of = change(1.0 - left["total"] / first["total"]) if first["total"] else "-"
        rows.append((node["key"], node["op_type"], energy(first["total"], unit), energy(left["total"], unit), change_of, mostly))
    head = ("node", "operator", "INT8", "result", "change", "mostly")
    return table("Energy by node, in the order of execution", head, rows, words=(1, 5))
