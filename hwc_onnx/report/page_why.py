"""The section of a run's page on lost accuracy: the worst decisions, and the causes and remedies that `why` found."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwc_onnx.errors import HwcError
from hwc_onnx.plan import CompressionPlan
from hwc_onnx.report.page_commands import report_command, sensitivity_command, shown, why_command
from hwc_onnx.report.page_damage import damages
from hwc_onnx.report.page_parts import command, paragraph, section, table
from hwc_onnx.report.quantities import percent, points, unit_of
from hwc_onnx.report.run_record import MOST_BYTES, SCHEMA, RunRecord
from hwc_onnx.report.why_table import setting_text

WHY = "why.json"
"""What `why --json` printed about the plan, where the user keeps it in the run folder."""


def why(record: RunRecord) -> str:
    """Which decisions cost most, why, and where to look further."""
    place = record.folder / WHY
    return section(
        "why",
        "Why accuracy is lost",
        damages(record),
        *(_kept(record, place) if place.is_file() else ()),
        paragraph(
            "Which layers lose most under this plan, the cause of each with its numbers, and which remedy helps; the second command shows "
            "them here:"
        ),
        command(f"{why_command(record, '--json')} > {shlex.quote(shown(record, place))}\n{report_command(record)}"),
        paragraph("Each layer alone, under every kind of compression, beside its share of the energy:"),
        command(sensitivity_command(record)),
    )


def _kept(record: RunRecord, place: Path) -> list[str]:
    """What the user's why.json says about the plan, or why it is not shown: the page of a run does not fail because of it."""
    try:
        if place.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 20} MiB")
        found = json.loads(place.read_text(encoding="utf-8"))
        if found["schema"] != SCHEMA:
            raise ValueError(f"not of schema {SCHEMA}")
        own = CompressionPlan.from_json(json.dumps(record.plan))
        if found["settings_sha256"] != own.settings_digest():
            return [paragraph(f"{WHY} is about another plan than this run's, so it is not shown.")]
        return _found(found)
    except (HwcError, OSError, ArithmeticError, RecursionError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [paragraph(f"{WHY} is not what hwc-onnx why --json prints ({type(error).__name__}: {error}), so it is not shown.")]


def _found(found: Mapping[str, Any]) -> list[str]:
    """Causes and remedies of the layers that lose most."""
    whole, mended, unit = found["whole"], found["mended"], unit_of(found["metric"])
    said = (
        f"What hwc-onnx why found about {Path(found['plan']).name}: damage {whole['damage']:.2g}, {found['metric']} drop "
        f"{points(whole['drop_points'])} {unit} on {found['samples']} {found['data']} samples of the search split; "
    )
    if mended["damage"] < whole["damage"]:
        said += f"with the best remedies that help, damage {mended['damage']:.2g}, drop {points(mended['drop_points'])}."
    else:
        said += "no remedy that was tried lowers it."
    rows = [_row(layer) for layer in found["layers"]]
    head = ("layer", "setting", "damage alone x 1000", "cause", "best remedy", "what it leaves")
    return [
        paragraph(said),
        table(f"Causes and remedies, {len(rows)} of {found['layer_count']} layers", head, rows, words=(1,), sentences=(3, 4)),
    ]


def _row(layer: Mapping[str, Any]) -> tuple[str, ...]:
    cause, alone = layer["cause"], float(layer["alone"]["damage"])
    best = next((trial for trial in layer["remedies"] if trial["name"] == layer["best"]), None)
    return (
        layer["key"],
        setting_text(layer["setting"]),
        f"{1000.0 * alone:.3g}",
        "-" if cause is None else f"{cause['name'].replace('_', ' ')}: {cause['text']}",
        "-" if best is None else f"{best['name']}: {_own(best['change'], layer['key'])}",
        "-" if best is None or alone <= 0.0 else percent(best["damage"] / alone),
    )


def _own(change: str, key: str) -> str:
    """Fields of the plan without the layer that the row names."""
    return change.replace(f'layers."{key}".', "")
