"""`sensitivity --figure` and `why --figure`: heat maps of damage, one row for each layer.

An SVG without scripts, with colours of its own for dark and for light pages. The colour is the logarithm of the damage,
the number its thousandths; hovering shows the drop. `sensitivity` has a column for each setting, layers from the first to the
last, and a bar beside each row for the layer's share of the energy; a letter in a cell marks a number that several rows share.
`why` has a column for each part of a layer, the layer that loses most first, and its cause beside each row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from operator import itemgetter
from pathlib import Path
from textwrap import wrap
from typing import Any

from hwc_onnx.files import write_atomic
from hwc_onnx.report.quantities import percent, points
from hwc_onnx.report.sensitivity_table import DAMAGE_KINDS, milli, row_name, tied_letters

ROW, TOP, NAMES, CELL, GAP, BARS = 22, 104, 300, 60, 10, 120
"""Pixels: height of a row, space above, widths of the layer names, of a cell, of the gap between kinds and of the bars."""

LETTER, LINE = 6.2, 17
"""Pixels: width of a letter of the caption on the whole, height of a line."""

STOPS = ((255, 247, 214), (254, 217, 142), (254, 153, 41), (217, 95, 14), (110, 20, 10))
"""Colours from the least damage to the most."""

EVEN = 0.179
"""Luminance on which black and white stand out alike, 4.6 : 1 at least."""

LEAST = 1e-6
"""Damage below which all cells have the first colour."""

STYLE = (
    ".page{fill:#ffffff}.ink{fill:#202020}.soft{fill:#666666}.none{fill:#ececec}.bar{fill:#4269d0}"
    "@media (prefers-color-scheme:dark){.page{fill:#16181d}.ink{fill:#e8e8e8}.soft{fill:#a0a4ab}.none{fill:#2a2d34}"
    ".bar{fill:#7f9cf0}}"
)


def write_sensitivity_figure(path: Path, payload: dict[str, Any], title: str) -> None:
    """Draw `Sensitivity.to_json()` (UsageError where the place is not writable)."""
    write_atomic(path, sensitivity_figure(payload, title).encode(), "--figure")


def write_why_figure(path: Path, payload: dict[str, Any], title: str) -> None:
    """Draw `Why.to_json()` (UsageError where the place is not writable)."""
    write_atomic(path, why_figure(payload, title).encode(), "--figure")


def sensitivity_figure(payload: dict[str, Any], title: str) -> str:
    """The drawing as SVG text."""
    most = max((row["energy_share"] for row in payload["layers"]), default=0.0)
    caption = (
        f"Damage x 1000 of one thing compressed alone, everything else in float: {DAMAGE_KINDS[payload['damage_kind']]}, "
        f"{payload['samples']} {payload['data']} samples. "
        "Rows with the same letter share the number."
    )
    return _heat_map(
        payload,
        title,
        caption,
        f"energy (INT8, {payload['accelerator']})",
        lambda row: (row["energy_share"] / most if most else 0.0, percent(row["energy_share"])),
    )


def why_figure(payload: dict[str, Any], title: str) -> str:
    """The drawing as SVG text: each layer alone, its parts alone, the plan without it and with its best remedy."""
    whole = {key: payload["whole"][key] for key in ("damage", "drop_points")}
    parts = [part for part in ("weights", "input", "channels") if any(part in one["parts"] for one in payload["layers"])]
    columns: list[tuple[str, str, str, Callable[[dict[str, Any]], Any]]] = [
        ("layer", "alone", "all that the plan does to the layer", itemgetter("alone")),
        *((part, "alone", f"its {part} alone", partial(_part, part)) for part in parts),
        ("float", "the plan", "the plan with the layer in float", itemgetter("left_out")),
        ("remedy", "the plan", "the plan with the layer's best remedy", itemgetter("after")),
    ]
    total = {key: sum(one["alone"][key] for one in payload["layers"]) for key in whole}
    settings = [
        {"name": name, "kind": kind, "text": text, "together": whole if name == "layer" else None, "sum": total}
        for name, kind, text, _ in columns
    ]
    rows = [
        {
            "key": one["key"],
            "op_type": one["op_type"],
            "position": place,
            "operand": 0,
            "cause": "" if one["cause"] is None else one["cause"]["name"].replace("_", " "),
            "cells": {name: cell and {**cell, "unit": one["key"]} for name, _, _, of in columns for cell in [of(one)]},
        }
        for place, one in enumerate(payload["layers"])
    ]
    caption = (
        f"Damage x 1000: {DAMAGE_KINDS[payload['damage_kind']]}, {payload['samples']} {payload['data']} samples. Alone: everything "
        f"else in float. The {len(rows)} of {payload['layer_count']} layers that lose most."
    )
    return _heat_map({**payload, "settings": settings, "layers": rows}, title, caption, "cause", lambda row: (0.0, row["cause"]))


def _part(name: str, layer: dict[str, Any]) -> dict[str, Any] | None:
    """A part's damage in the record of a layer, None where the plan leaves it alone."""
    found: dict[str, Any] | None = layer["parts"].get(name)
    return found


def _heat_map(
    payload: dict[str, Any], title: str, caption: str, head: str, beside: Callable[[dict[str, Any]], tuple[float, str]]
) -> str:
    """Rows and columns as in `Sensitivity.to_json()`; `beside` gives each row's bar, up to 1, and the words behind it."""
    rows = sorted(payload["layers"], key=lambda row: (row["position"], row["operand"]))
    settings = payload["settings"]
    letters = tied_letters(payload)
    places = _places(settings)
    right = places[-1] + CELL + 20
    lines = wrap(caption, int((right + BARS + 50) / LETTER))
    top = TOP + LINE * (len(lines) - 1)
    width, height = right + BARS + 70, top + ROW * (len(rows) + 4) + 60
    scale = _Scale(
        [cell["damage"] for row in rows for cell in row["cells"].values() if cell is not None]
        + [setting["together"]["damage"] for setting in settings if setting["together"] is not None]
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        _text(10, 24, title, size=16),
        *(_text(10, 46 + LINE * number, text, "soft") for number, text in enumerate(lines)),
        *_heads(settings, places, top),
        _text(right, top - 10, head, "soft"),
    ]
    for line, row in enumerate(rows):
        y = top + line * ROW
        parts.append(_text(10, y + 15, _short(f"{row['op_type']} {row_name(row)}"), hover=row_name(row)))
        for setting, x in zip(settings, places, strict=True):
            cell = row["cells"][setting["name"]]
            letter = "" if cell is None else letters.get((setting["kind"], cell["unit"]), "")
            parts.append(_cell(x, y, cell, scale, f"{row_name(row)}, {setting['text']}", letter))
        share, words = beside(row)
        length = BARS * share
        parts.append(f'<rect class="bar" x="{right}" y="{y + 4}" width="{length:.1f}" height="{ROW - 8}" rx="2"/>')
        parts.append(_text(right + round(length) + 5, y + 15, words, "soft"))
    parts += _ends(settings, places, top + ROW * len(rows) + 8, scale)
    parts += scale.legend(NAMES, top + ROW * (len(rows) + 3) + 6)
    return "\n".join([*parts, "</svg>\n"])


class _Scale:
    """Colours on a logarithmic scale over the damages that occur."""

    def __init__(self, damages: Sequence[float]) -> None:
        seen = [damage for damage in damages if damage > LEAST]
        self.low = math.floor(math.log10(min(seen, default=LEAST)))
        self.high = max(math.ceil(math.log10(max(seen, default=1.0))), self.low + 1)

    def colour(self, damage: float) -> tuple[str, str]:
        """Fill of a cell, and of the number on it."""
        share = 0.0 if damage <= 0 else (math.log10(damage) - self.low) / (self.high - self.low)
        place = min(max(share, 0.0), 1.0) * (len(STOPS) - 1)
        first = min(int(place), len(STOPS) - 2)
        red, green, blue = (
            round(a + (place - first) * (b - a)) for a, b in zip(STOPS[first], STOPS[first + 1], strict=True)
        )
        return f"#{red:02x}{green:02x}{blue:02x}", "#000000" if _luminance(red, green, blue) > EVEN else "#ffffff"

    def legend(self, x: int, y: int) -> list[str]:
        """One block for each power of ten."""
        found = [_text(10, y + 15, "colours: damage x 1000", "soft")]
        for step, power in enumerate(range(self.low, self.high + 1)):
            fill, ink = self.colour(10.0**power)
            found.append(f'<rect x="{x + step * CELL}" y="{y}" width="{CELL}" height="{ROW - 2}" fill="{fill}"/>')
            found.append(_number(x + step * CELL + CELL / 2, y + 15, f"{10.0 ** (power + 3):g}", ink))
        return found


def _luminance(*channels: int) -> float:
    """Relative luminance of a colour (WCAG 2)."""
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in (channel / 255 for channel in channels)]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _places(settings: Sequence[dict[str, Any]]) -> list[int]:
    """Left edge of each column, with a gap between kinds."""
    places, x, kind = [], NAMES, None
    for setting in settings:
        if kind is not None and setting["kind"] != kind:
            x += GAP
        kind = setting["kind"]
        places.append(x)
        x += CELL
    return places


def _heads(settings: Sequence[dict[str, Any]], places: Sequence[int], top: int) -> list[str]:
    """The kind above its first column, cut to the columns that it has, and the name above each."""
    found: list[str] = []
    for number, (setting, x) in enumerate(zip(settings, places, strict=True)):
        if not number or setting["kind"] != settings[number - 1]["kind"]:
            columns = sum(other["kind"] == setting["kind"] for other in settings)
            room = int((columns * CELL + GAP - 4) / LETTER)
            found.append(_text(x, top - 30, _short(setting["kind"], room), "soft", hover=setting["kind"]))
        found.append(_text(x + 4, top - 10, setting["name"], hover=setting["text"]))
    return found


def _cell(x: int, y: int, cell: dict[str, Any] | None, scale: _Scale, where: str, letter: str) -> str:
    if cell is None:
        hover = f"<title>{escape(where)}: nothing that can be compressed so</title>"
        return f'<rect class="none" x="{x}" y="{y + 1}" width="{CELL - 2}" height="{ROW - 2}" rx="2">{hover}</rect>'
    fill, ink = scale.colour(cell["damage"])
    tied = f"; shared with {', '.join(cell['tied'])}" if cell.get("tied") else ""
    hover = f"{where}: damage {cell['damage']:.3g}, drop {points(cell['drop_points'])} points{tied}"
    mark = f'<text x="{x + 4}" y="{y + 14}" font-size="9" fill="{ink}">{letter}</text>' if letter else ""
    return (
        f'<g><title>{escape(hover)}</title><rect x="{x}" y="{y + 1}" width="{CELL - 2}" height="{ROW - 2}" rx="2" fill="{fill}"/>'
        f"{mark}{_number(x + CELL - 6, y + 15, milli(cell['damage']), ink, 'end')}</g>"
    )


def _ends(settings: Sequence[dict[str, Any]], places: Sequence[int], y: int, scale: _Scale) -> list[str]:
    """Two rows: the sum of the single damages, and all units together."""
    found = [
        _text(10, y + 15, "sum of the numbers alone", hover="units that several rows share count once"),
        _text(10, y + ROW + 15, "all together, measured"),
    ]
    for setting, x in zip(settings, places, strict=True):
        if setting["together"] is None:
            continue
        found.append(_cell(x, y, setting["sum"], scale, f"sum, {setting['text']}", ""))
        found.append(_cell(x, y + ROW, setting["together"], scale, f"all together, {setting['text']}", ""))
    return found


def _number(x: float, y: int, words: str, ink: str, anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y}" text-anchor="{anchor}" font-size="11" fill="{ink}">{words}</text>'


def _text(x: int, y: int, words: str, kind: str = "ink", hover: str | None = None, size: int = 12) -> str:
    title = "" if hover is None else f"<title>{escape(hover)}</title>"
    return f'<text class="{kind}" x="{x}" y="{y}" font-size="{size}">{title}{escape(words)}</text>'


def _short(words: str, longest: int = 44) -> str:
    return words if len(words) <= longest else words[: longest // 2 - 1] + "…" + words[-longest // 2 + 1 :]
