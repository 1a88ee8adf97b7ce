"""`inspect --figure`: the layers from top to bottom with the channels that they read and make, one colour for each group.

An SVG without scripts, so that it opens in a browser, in a document or beside the model in Netron. Two layers with the
same colour lose their channels together; a hatched grey block cannot lose any.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from hwc_onnx.errors import UsageError
from hwc_onnx.files import write_atomic
from hwc_onnx.report.quantities import count, percent

ROW, TOP, NAMES, BLOCK, LEGEND = 22, 70, 330, 120, 420
"""Pixels: height of a row, space above, widths of the layer names, of one block of channels and of the legend."""

GOLDEN = 0.618034
"""Steps of this share of the colour wheel never come close to an earlier one for long."""


def checked_svg(name: str) -> Path:
    """The path of a figure that is to be written.

    Raises:
        UsageError: it does not end in .svg, or its folder does not exist.
    """
    path = Path(name)
    if path.suffix.lower() != ".svg":
        raise UsageError(f"--figure: {name}: this figure is an SVG; give a name that ends in .svg")
    if not path.parent.is_dir():
        raise UsageError(f"--figure: {name}: the folder {path.parent} does not exist; create it first")
    return path


def write_group_figure(path: Path, payload: dict[str, Any], title: str) -> None:
    """Draw what `inspect_payload` found."""
    write_atomic(path, group_figure(payload, title).encode(), "--figure")


def group_figure(payload: dict[str, Any], title: str) -> str:
    """The drawing as SVG text."""
    groups, layers = payload["groups"], payload["layers"]
    colour = {group["id"]: _colour(number) for number, group in enumerate(groups)}
    made = {key: group for group in groups for key in group["producers"]}
    read: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        for key in group["consumers"]:
            read.setdefault(key, []).append(group)
    width = NAMES + 2 * BLOCK + 60 + LEGEND
    height = TOP + ROW * (max(len(layers), len(groups)) + 2)
    share = payload["prunable"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        '<defs><pattern id="locked" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="6" height="6" fill="#d8d8d8"/><line x1="0" y1="0" x2="0" y2="6" stroke="#a0a0a0" stroke-width="2"/>'
        "</pattern></defs>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(10, 22, title, size=16),
        _text(10, 42, f"Channels can leave {percent(share['params'])} of the weights, {percent(share['macs'])} of the MACs."),
        _text(NAMES, 62, "reads"),
        _text(NAMES + BLOCK + 20, 62, "makes"),
        _text(NAMES + 2 * BLOCK + 60, 62, "channel groups"),
    ]
    for row, layer in enumerate(layers):
        y = TOP + row * ROW
        hover = f"{layer['key']}: {layer['op_type']} {'x'.join(map(str, layer['weight_shape']))}, {count(layer['macs'])} MACs"
        parts.append(_text(10, y + 15, _short(f"{layer['op_type']} {layer['key']}"), hover))
        parts += _blocks(NAMES, y, read.get(layer["key"], []), colour)
        parts += _blocks(NAMES + BLOCK + 20, y, [made[layer["key"]]] if layer["key"] in made else [], colour)
    for row, group in enumerate(groups):
        y, x = TOP + row * ROW, NAMES + 2 * BLOCK + 60
        parts += _blocks(x, y, [group], colour, 40)
        words = group["locked_because"] or f"{group['channels']} channels, layers that make them: {len(group['producers'])}"
        parts.append(_text(x + 50, y + 15, _short(words, 58), f"{group['id']}: {words}"))
    return "\n".join([*parts, "</svg>\n"])


def _blocks(x: int, y: int, groups: Sequence[dict[str, Any]], colour: dict[str, str], room: int = BLOCK) -> list[str]:
    if not groups:
        return []
    width = room / len(groups)
    found = []
    for place, group in enumerate(groups):
        fill = "url(#locked)" if group["locked_because"] else colour[group["id"]]
        found.append(
            f'<rect x="{x + place * width:.1f}" y="{y + 2}" width="{max(width - 1, 1):.1f}" height="{ROW - 4}" rx="3" '
            f'fill="{fill}"><title>{escape(group["id"])}: {group["channels"]} channels</title></rect>'
        )
    return found


def _text(x: int, y: int, words: str, hover: str | None = None, size: int = 12) -> str:
    title = "" if hover is None else f"<title>{escape(hover)}</title>"
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="#202020">{escape(words)}{title}</text>'


def _short(words: str, longest: int = 46) -> str:
    return words if len(words) <= longest else words[: longest // 2 - 1] + "…" + words[-longest // 2 + 1 :]


def _colour(number: int) -> str:
    red, green, blue = colorsys.hls_to_rgb(number * GOLDEN % 1.0, 0.55 if number % 2 else 0.68, 0.65)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
