"""Tables of `sensitivity`: the layers, most sensitive first, then the damage and the drop of each under each setting."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from hwc_onnx.report.console import WIDTH, table, wrapped
from hwc_onnx.report.quantities import metric_value, percent, points

DAMAGE_KINDS = {
    "kl": "KL divergence of the class scores",
    "squared_error": "squared error of the outputs relative to their mean square",
    "mixed": "KL divergence of class scores and relative squared error of other outputs, averaged",
}
ACROSS = 11
"""Settings beside one another in 80 columns; more are divided among several tables."""

SHARES = (
    "Layers are sorted by their share of the damage of all layers, averaged over the settings (a number that rows share "
    "counts to equal parts); ratio: share of the damage over share of the energy, high where bits are well spent."
)

Row = dict[str, Any]
Write = Callable[[Mapping[str, Any]], str]


def sensitivity_tables(payload: dict[str, Any], notes: bool = True) -> list[RenderableType]:
    """Tables for `Sensitivity.to_json()`; `notes` repeats what was said on the way."""
    rows, settings = payload["layers"], payload["settings"]
    original = payload["original"]
    value = "" if original is None else f" {metric_value(payload['metric'], original)} in float,"
    shown: list[RenderableType] = [
        wrapped(
            f"{payload['metric']}{value} on {payload['samples']} {payload['data']} samples of the search split; damage is "
            f"the {DAMAGE_KINDS[payload['damage_kind']]}. One thing is compressed at a time, everything else stays in float."
        ),
        "",
        _layers(payload),
    ]
    letters = tied_letters(payload)
    across = math.ceil(len(settings) / math.ceil(len(settings) / ACROSS))
    for first in range(0, len(settings), across):
        part = settings[first : first + across]
        shown += [
            _cells("\nDamage x 1000", rows, part, letters, lambda cell: milli(cell["damage"]), _damage_ends(part)),
            _cells(
                "\nDrop in points", rows, part, letters, lambda cell: _points(cell["drop_points"]), _drop_ends(part)
            ),
        ]
    shown += ["", wrapped(_noise(settings)), wrapped(SHARES)]
    shown += [
        wrapped(f"{setting['name']}: {setting['text']}")
        for setting in settings
        if setting["kind"] in ("pruning", "channels")
    ]
    if letters:
        shown.append(
            wrapped(
                "in, ch: rows with the same letter share what they read (a8 ...) or the channels that they make (ch30), "
                "and so the number; it enters the sum once."
            )
        )
    shown.append(
        wrapped(
            "sum: of the numbers alone; all: measured with all of them together; all/sum: above 1 the layers harm one another."
        )
    )
    return shown + ([wrapped(f"note: {text}") for text in payload["notes"]] if notes else [])


def _noise(settings: Sequence[Row]) -> str:
    """How far a drop can be trusted."""
    errors = [unit["standard_error"] for setting in settings for unit in setting["units"]]
    return (
        f"Drops alone have a standard error of up to {max(errors, default=0.0):.2f} points: damage tells layers apart that "
        "drops cannot; more --samples lower it."
    )


def milli(value: float) -> str:
    """A damage in thousandths with two significant digits, at most five characters."""
    scaled = 1000.0 * value
    if scaled >= 99950:
        return f"{scaled / 1e6:.1g}M" if scaled < 9.5e6 else ">9M"
    if scaled >= 9995:
        return f"{scaled / 1000:.0f}k"
    if scaled >= 9.95:
        return f"{scaled:.0f}"
    if scaled >= 0.995:
        return f"{scaled:.1f}"
    return f"{scaled:.2f}" if scaled >= 0.0995 else f"{scaled:.3f}"[1:] if scaled >= 0.0005 else "0"


def tied_letters(payload: dict[str, Any]) -> dict[tuple[str, str], str]:
    """A letter for each unit that several rows share, by (kind, unit name): capitals for stored tensors, small for channels."""
    found: dict[tuple[str, str], str] = {}
    for kind, first in (("activations", "A"), ("channels", "a")):
        names = [
            cell["unit"]
            for row in payload["layers"]
            for setting in payload["settings"]
            if setting["kind"] == kind and (cell := row["cells"][setting["name"]]) is not None and cell["tied"]
        ]
        for number, name in enumerate(dict.fromkeys(names)):
            found[kind, name] = chr(ord(first) + number % 26) * (1 + number // 26)
    return found


def letter_of(row: Row, settings: Sequence[Row], kind: str, letters: Mapping[tuple[str, str], str]) -> str:
    """The letter of what the row shares with others under settings of this kind."""
    cells = (row["cells"][setting["name"]] for setting in settings if setting["kind"] == kind)
    return next((letters.get((kind, cell["unit"]), "") for cell in cells if cell is not None), "")


def row_name(row: Row) -> str:
    """The layer, and which operand of a product is meant."""
    return f"{row['key']} (operand 2)" if row["operand"] else str(row["key"])


def _layers(payload: dict[str, Any]) -> Table:
    made = table(
        f"Layers, most sensitive first (energy: INT8 on {payload['accelerator']})",
        "#",
        "layer",
        "op",
        "damage",
        "energy",
        "ratio",
        left=3,
    )
    for number, row in enumerate(payload["layers"], 1):
        ratio = row["damage_per_energy"]
        made.add_row(
            str(number),
            row_name(row),
            row["op_type"],
            percent(row["damage_share"]),
            percent(row["energy_share"]),
            "-" if ratio is None else f"{ratio:.2f}",
        )
    return made


def _cells(
    title: str,
    rows: Sequence[Row],
    settings: Sequence[Row],
    letters: Mapping[tuple[str, str], str],
    write: Write,
    ends: Sequence[tuple[str, ...]],
) -> Table:
    """One row for each layer, one column for each setting, and the rows `ends` below."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    made.add_column("#", no_wrap=True)
    marked = {kind: any(key[0] == kind for key in letters) for kind in ("activations", "channels")}
    firsts = {kind: next((s["name"] for s in settings if s["kind"] == kind), None) for kind in marked if marked[kind]}
    for setting in settings:
        if setting["name"] in firsts.values():
            made.add_column("in" if setting["kind"] == "activations" else "ch", no_wrap=True)
        made.add_column(
            setting["name"], justify="right", no_wrap=True, min_width=5 if len(settings) * 6 <= WIDTH - 10 else 4
        )
    for number, row in enumerate(rows, 1):
        line = [str(number)]
        for setting in settings:
            if setting["name"] in firsts.values():
                line.append(letter_of(row, settings, setting["kind"], letters))
            cell = row["cells"][setting["name"]]
            line.append("-" if cell is None else write(cell))
        made.add_row(*line)
    for end in ends:
        label, *values = end
        line = [label]
        for setting, value in zip(settings, values, strict=True):
            line += ["", value] if setting["name"] in firsts.values() else [value]
        made.add_row(*line, style="bold")
    return made


def _damage_ends(settings: Sequence[Row]) -> list[tuple[str, ...]]:
    together = [setting["together"] for setting in settings]
    sums = [setting["sum"]["damage"] for setting in settings]
    ratios = [
        "-" if found is None or total <= 0 else f"{found['damage'] / total:.2f}"
        for found, total in zip(together, sums, strict=True)
    ]
    return [
        ("sum", *("-" if found is None else milli(total) for found, total in zip(together, sums, strict=True))),
        ("all", *("-" if found is None else milli(found["damage"]) for found in together)),
        ("all/sum", *ratios),
    ]


def _drop_ends(settings: Sequence[Row]) -> list[tuple[str, ...]]:
    together = [setting["together"] for setting in settings]
    return [
        ("sum", *("-" if s["together"] is None else _points(s["sum"]["drop_points"]) for s in settings)),
        ("all", *("-" if found is None else _points(found["drop_points"]) for found in together)),
    ]


def _points(value: float) -> str:
    """Points with a sign; tenths where there are tens of points."""
    return points(value) if abs(value) < 9.995 else f"{value:+.1f}"
