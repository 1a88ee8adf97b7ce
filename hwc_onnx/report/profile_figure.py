"""`profile --figure`: one HTML page that needs no network, with the energy of each node and the share of each component.

Above, one bar for each accelerator, divided into components; below, one panel for each accelerator with a stacked bar
for each node in the order of execution. Hovering shows the products behind a part, each a count by a constant.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwc_onnx.cost.types import COMPONENTS
from hwc_onnx.errors import UsageError
from hwc_onnx.files import write_atomic
from hwc_onnx.report.page_frame import framed
from hwc_onnx.report.page_parts import clear, figure, folded, paragraph, section, table
from hwc_onnx.report.products import largest, merged
from hwc_onnx.report.quantities import count, energy, latency, percent, scale_of

if TYPE_CHECKING:
    from plotly.graph_objects import Bar, Figure

Payload = dict[str, Any]

MOST = 60
"""Nodes with a bar of their own; the cheapest of more nodes share one."""

MOST_PRODUCTS = 6
"""Products that are shown of one part of a bar."""

LONGEST = 52
"""Characters of a node's name beside its bar; the middle of a longer one is left out."""

NARROWEST, PANEL = 360, 280
"""Pixels of the names of nodes and of one accelerator's bars; a narrower screen scrolls."""

COLOURS = {
    "mac": "#4269d0",
    "register": "#efb118",
    "noc": "#9c6b4e",
    "buffer": "#3ca951",
    "dram": "#ff725c",
    "vector": "#a463f2",
    "decode": "#6cc5b0",
    "leakage": "#9498a0",
}


def checked_path(name: str, option: str = "--figure") -> Path:
    """The path of a page that is to be written, as `option` gave it.

    Raises:
        UsageError: it does not end in .html, or its folder does not exist.
    """
    path = Path(name)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{option}: {name}: a figure is an HTML page; give a name that ends in .html")
    if not path.parent.is_dir():
        raise UsageError(
            f"{option}: {name}: cannot be written, the folder {path.parent} does not exist; create it first"
        )
    return path


def write_figure(path: Path, payloads: Sequence[Payload], title: str, top: int | None = None) -> None:
    """Write `figure_page` (UsageError where the place is not writable)."""
    write_atomic(path, figure_page(payloads, title, top).encode(), "--figure")


def figure_page(payloads: Sequence[Payload], title: str, top: int | None = None) -> str:
    """The page for the payloads (`profile_payload`) of one model on one or several accelerators.

    Args:
        payloads: with all nodes of the model.
        title: what was profiled.
        top: nodes with a bar of their own, those that cost most on the first accelerator.
    """
    rows = rows_of(payloads, top or MOST)
    shares = section(
        "shares",
        "Share of each component",
        figure("shares", _shares(payloads), "Each accelerator's energy, divided into components."),
        folded("The same as a table", _share_table(payloads)),
    )
    nodes = section(
        "nodes",
        "Energy of each node",
        figure(
            "nodes",
            _nodes(payloads, rows),
            "In the order of execution; hovering a part shows what it is the sum of: so many words, by their bits, by what a bit costs.",
            NARROWEST + PANEL * len(payloads),
        ),
        folded("The same as a table", _node_table(payloads)),
    )
    return framed(title, [paragraph(_sentence(payloads)), shares, nodes], {})


def _sentence(payloads: Sequence[Payload]) -> str:
    each = [
        f"{payload['accelerator']} {energy(payload['totals']['energy_pj']['total'], payload['energy_unit'])} and "
        f"{latency(payload['totals']['latency_s'])} ({percent(payload['coverage']['macs'])} of the MACs modelled)"
        for payload in payloads
    ]
    return f"Computed, not measured, for one inference: {'; '.join(each)}."


def _shares(payloads: Sequence[Payload]) -> Figure:
    """One bar of 100 % for each accelerator."""
    from plotly.graph_objects import Bar, Figure

    made = Figure()
    for name in _present(payloads):
        parts = [payload["totals"]["energy_pj"] for payload in payloads]
        shares = [100.0 * part[name] / part["total"] if part["total"] else 0.0 for part in parts]
        words = [
            f"{energy(part[name], payload['energy_unit'])}, {share:.1f}%"
            for part, payload, share in zip(parts, payloads, shares, strict=True)
        ]
        made.add_trace(
            Bar(
                name=name,
                y=[payload["accelerator"] for payload in payloads],
                x=shares,
                orientation="h",
                marker_color=COLOURS[name],
                text=[f"{share:.0f}%" if share >= 4.0 else "" for share in shares],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                customdata=words,
                hovertemplate="%{y}, " + name + ": %{customdata}<extra></extra>",
            )
        )
    made.update_xaxes(range=[0, 100], ticksuffix="%")
    made.update_yaxes(autorange="reversed")
    return clear(made, 170 + 40 * len(payloads), barmode="stack", bargap=0.25)


def _share_table(payloads: Sequence[Payload]) -> str:
    """The figure's numbers."""
    totals = [payload["totals"]["energy_pj"] for payload in payloads]
    rows = [
        (name, *(f"{energy(total[name], one['energy_unit'])}" for total, one in zip(totals, payloads, strict=True)))
        for name in (*_present(payloads), "total")
    ]
    return table("Energy by component", ("component", *(payload["accelerator"] for payload in payloads)), rows)


def _nodes(payloads: Sequence[Payload], rows: Sequence[tuple[str, list[str]]]) -> Figure:
    """Stacked bars by node, one panel beside the other; names are at the left."""
    from plotly.subplots import make_subplots

    made: Figure = make_subplots(
        cols=len(payloads),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=[payload["accelerator"] for payload in payloads],
    )
    for column, payload in enumerate(payloads, 1):
        known = {node["key"]: node for node in payload["nodes"]}
        nodes = [together([known[key] for key in keys]) for _, keys in rows]
        factor, unit = scale_of(
            max((node["energy_pj"]["total"] for node in nodes), default=0.0), payload["energy_unit"], 1.0
        )
        for name in _present(payloads):
            made.add_trace(component_bar(name, nodes, payload, factor, column == 1), row=1, col=column)
        made.update_xaxes(title_text=f"{unit} per inference", rangemode="tozero", row=1, col=column)
    made.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[label for label, _ in rows],
        range=[len(rows) - 0.5, -0.5],
        tickfont_size=11,
    )
    height = 150 + 18 * len(rows)
    legend = {"orientation": "h", "y": 1.0 + 24 / (height - 115), "yanchor": "bottom", "x": 0.0, "traceorder": "normal"}
    margin = {"l": 10, "r": 25, "t": 70, "b": 45}
    return clear(made, height, barmode="stack", bargap=0.25, margin=margin, legend=legend)


def _node_table(payloads: Sequence[Payload]) -> str:
    """Every node that costs anything, on each accelerator."""
    each = [{node["key"]: node["energy_pj"]["total"] for node in payload["nodes"]} for payload in payloads]
    rows = [
        (node["key"], node["op_type"], *(energy(found[node["key"]], one["energy_unit"]) for found, one in zip(each, payloads, strict=True)))
        for node in payloads[0]["nodes"]
        if any(found[node["key"]] for found in each)
    ]
    head = ("node", "operator", *(payload["accelerator"] for payload in payloads))
    return table("Energy by node, in the order of execution", head, rows, words=(1,))


def component_bar(name: str, nodes: Sequence[dict[str, Any]], payload: Payload, factor: float, first: bool) -> Bar:
    """What one component takes of each node, in units of `factor`; the first panel's are in the legend."""
    from plotly.graph_objects import Bar

    return Bar(
        name=name,
        legendgroup=name,
        showlegend=first,
        y=list(range(len(nodes))),
        x=[node["energy_pj"][name] / factor for node in nodes],
        orientation="h",
        marker_color=COLOURS[name],
        customdata=[hover_text(node, name, payload) for node in nodes],
        hovertemplate="%{customdata}<extra></extra>",
    )


def rows_of(payloads: Sequence[Payload], most: int) -> list[tuple[str, list[str]]]:
    """(label, node keys) of each bar: the nodes that cost most on the first accelerator, and the others as one."""
    nodes = [
        node
        for nodes in zip(*(payload["nodes"] for payload in payloads), strict=True)
        for node in nodes[:1]
        if any(other["energy_pj"]["total"] for other in nodes)
    ]
    costliest = sorted(nodes, key=lambda node: node["energy_pj"]["total"], reverse=True)[:most]
    own = {node["key"] for node in costliest}
    rows = [(f"{short_name(node['key'])} {node['op_type']}", [node["key"]]) for node in nodes if node["key"] in own]
    rest = [node["key"] for node in nodes if node["key"] not in own]
    return [*rows, (f"{len(rest)} cheaper nodes", rest)] if rest else rows


def short_name(name: str, longest: int = LONGEST) -> str:
    """A name of at most `longest` characters; the middle of a longer one is left out."""
    half = (longest - 3) // 2
    return name if len(name) <= longest else f"{name[:half]}...{name[-half:]}"


def together(nodes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One node as it is, or the energy of several."""
    if len(nodes) == 1:
        return nodes[0]
    names = (*COMPONENTS, "total")
    return {
        "key": f"{len(nodes)} cheaper nodes together",
        "energy_pj": {name: sum(node["energy_pj"][name] for node in nodes) for name in names},
        "macs": sum(node["macs"] for node in nodes),
        "cycles": sum(node["cycles"] for node in nodes),
        "bound_by": "",
        "accesses": {},
        "terms": merged(nodes),
    }


def hover_text(node: dict[str, Any], component: str, payload: Payload) -> str:
    """What is counted in one part of a bar."""
    parts = node["energy_pj"]
    lines = [
        f"<b>{html.escape(node['key'])}</b>",
        f"{component}: {energy(parts[component], payload['energy_unit'])}, "
        f"{percent(parts[component] / parts['total'] if parts['total'] else 0.0)} of "
        f"{energy(parts['total'], payload['energy_unit'])}",
    ]
    products = largest(node.get("terms", ()), component, payload["energy_unit"], MOST_PRODUCTS)
    lines += products
    for memory in payload["memories"]:
        if memory["kind"] == component and not products:
            for operand, counts in node["accesses"].get(memory["name"], {}).items():
                lines.append(
                    f"{html.escape(memory['name'])} {operand}: {count(counts['read'])} read, {count(counts['write'])} written"
                )
    if node["macs"]:
        lines.append(f"{count(node['macs'])} MACs")
    if node["cycles"]:
        bound = f", bound by {html.escape(node['bound_by'])}" if node["bound_by"] else ""
        lines.append(f"{count(node['cycles'])} cycles{bound}")
    return "<br>".join(lines)


def _present(payloads: Sequence[Payload]) -> list[str]:
    """Components that cost anything somewhere."""
    return [name for name in COMPONENTS if any(payload["totals"]["energy_pj"][name] for payload in payloads)]
