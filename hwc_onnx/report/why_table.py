"""Tables of `why`: the layers that lose most, then each one's cause and remedies, then what helps the whole plan."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from hwc_onnx.report.console import table, wrapped
from hwc_onnx.report.quantities import metric_value, percent, points
from hwc_onnx.report.sensitivity_table import DAMAGE_KINDS

MOST_NAMED = 3
"""Tied layers and changed fields that are named; of more, how many."""


def why_tables(payload: dict[str, Any], notes: bool = True) -> list[RenderableType]:
    """Tables for `Why.to_json()`; `notes` repeats what was said on the way."""
    whole, original = payload["whole"], payload["original"]
    value = "" if original is None else f", {metric_value(payload['metric'], original)} in float"
    shown: list[RenderableType] = [
        wrapped(
            f"{payload['plan']}, recovery {payload['recovery']}: damage {short(whole['damage'])}, {payload['metric']} drop "
            f"{points(whole['drop_points'])} points (standard error {whole['standard_error']:.2f}{value}) on "
            f"{payload['samples']} {payload['data']} samples of the search split. Damage is the {DAMAGE_KINDS[payload['damage_kind']]}."
        ),
        *([wrapped(_apart(payload))] if payload["recovery"] == "sequential" else []),
        "",
        _overview(payload),
        wrapped(
            "error: relative output error on calibration samples; alone: this layer compressed, everything else in float; left "
            "out: the whole plan with this layer in float; mostly: the part of the layer that does most of the damage."
        ),
    ]
    if payload["unread_tensors"] is not None:
        shown.append(wrapped(_unread(payload["unread_tensors"])))
    for number, layer in enumerate(payload["layers"], 1):
        shown += _layer(number, layer, payload["by_layer"]["damage"])
    shown += _plan(payload)
    return shown + ([wrapped(f"note: {text}") for text in payload["notes"]] if notes else [])


def _apart(payload: dict[str, Any]) -> str:
    """What layers and remedies of a rebuilt plan are compared with."""
    found = payload["by_layer"]
    return (
        f"Below, each layer is repaired by itself, not rebuilt after the others: damage {short(found['damage'])}, drop "
        f"{points(found['drop_points'])} then. Layers and remedies are compared with that."
    )


def _unread(found: dict[str, Any]) -> str:
    """What the tensors do that feed sums, products and activation functions only, and which of them most."""
    if found["count"] == 1:
        return f"{found['worst'][0]['tensor']}, which is stored and no layer reads, alone: damage {short(found['damage'])}"
    worst = ", ".join(f"{one['tensor']} {short(one['damage'])}" for one in found["worst"])
    said = f"{found['count']} stored tensors that no layer reads, alone: damage {short(found['damage'])}"
    return said + (f" (most: {worst})" if worst else "")


def short(value: float) -> str:
    """A damage with two significant digits."""
    return f"{value:.2g}"


def setting_text(setting: dict[str, Any]) -> str:
    """A layer's setting as in a uniform specification."""
    pruning = "" if setting["algorithm"] == "none" else f",{setting['algorithm']}:{setting['ratio']:g}"
    return f"w{setting['weight_bits']}a{setting['activation_bits']}{pruning}"


def _overview(payload: dict[str, Any]) -> RenderableType:
    measured = len(payload["layers"])
    made = table(
        f"Layers that lose most ({measured} of {payload['layer_count']})",
        "#", "layer", "mostly", "error", "alone", "drop", "left out", "drop", left=3,
    )  # fmt: skip
    for number, layer in enumerate(payload["layers"], 1):
        parts = layer["parts"]
        worst = max(parts, key=lambda part: parts[part]["damage"])
        made.add_row(
            str(number),
            layer["key"],
            worst,
            short(layer["output_error"]),
            short(layer["alone"]["damage"]),
            points(layer["alone"]["drop_points"]),
            short(layer["left_out"]["damage"]),
            points(layer["left_out"]["drop_points"]),
        )
    return made


def _layer(number: int, layer: dict[str, Any], whole: float) -> list[RenderableType]:
    parts = ", ".join(f"{part} {short(found['damage'])}" for part, found in layer["parts"].items())
    shown: list[RenderableType] = [
        "",
        wrapped(
            f"{number}. {layer['key']} ({layer['op_type']}, {setting_text(layer['setting'])}): alone {parts}", "   "
        ),
    ]
    if layer["tied"]:
        shown.append(wrapped(f"   tied to {_some(layer['tied'])}", "   "))
    if layer["cause"] is not None:
        shown.append(wrapped(f"   cause: {_finding(layer['cause'])}", "      "))
    shown += [wrapped(f"   also: {_finding(remark)}", "      ") for remark in layer["remarks"]]
    before = layer["alone"]["damage"]
    made = table(None, "   remedy", "damage alone", "left", "drop", "energy")
    for trial in layer["remedies"]:
        mark = " * " if trial["name"] == layer["best"] else "   "
        made.add_row(
            mark + trial["name"],
            f"{short(before)} -> {short(trial['damage'])}",
            percent(trial["damage"] / before) if before > 0 else "-",
            points(trial["drop_points"]),
            "same" if trial["energy"] is None else f"{100 * (trial['energy'] - 1):+.1f}%",
        )
    shown.append(made)
    best = next((trial for trial in layer["remedies"] if trial["name"] == layer["best"]), None)
    if best is not None:
        after = layer["after"]
        harm = "" if after["damage"] < whole else ", no less than without it, so it is left out of --save-plan"
        shown.append(
            wrapped(
                f"   best (*): {_changes(best['change'])}; the whole plan with it: damage {short(after['damage'])}, drop "
                f"{points(after['drop_points'])}{harm}",
                "      ",
            )
        )
    return shown


def _plan(payload: dict[str, Any]) -> list[RenderableType]:
    whole, mended = payload["whole"], payload["mended"]
    made = table("\nThe whole plan", "", "damage", "drop", "energy")
    made.add_row(f"as it is ({payload['recovery']})", short(whole["damage"]), points(whole["drop_points"]), "")
    apart = ", by layer" if payload["recovery"] == "sequential" else ""
    for item in payload["planwide"]:
        made.add_row(item["change"] + (apart if item["change"].startswith("--ranges") else ""), short(item["damage"]), points(item["drop_points"]), "same")
    made.add_row(
        "best remedies that help",
        short(mended["damage"]),
        points(mended["drop_points"]),
        f"{100 * (mended['energy'] - 1):+.1f}%",
    )
    with_options = f", {mended['options']} included" if mended["options"] else ""
    if mended["damage"] >= whole["damage"]:
        return [made, wrapped("No remedy that was tried lowers the damage of the plan as it is: keep it.")]
    return [
        made,
        wrapped(
            f"--save-plan FILE writes the plan with the remedies that help{with_options}; `hwc-onnx apply MODEL --plan "
            "FILE` carries it out."
        ),
    ]


def _finding(found: dict[str, Any]) -> str:
    return f"{found['name'].replace('_', ' ')}: {found['text']}"


def _some(names: list[str]) -> str:
    rest = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _changes(text: str) -> str:
    return _some(text.split(", "))
