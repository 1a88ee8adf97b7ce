"""Tables of `data check`: what the model is fed, the labels, its float accuracy, and that under each preset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from hwc_onnx.report.console import table, wrapped
from hwc_onnx.report.quantities import metric_value

MOST_LABELS = 20


def data_check_tables(payload: Mapping[str, Any]) -> list[RenderableType]:
    """Everything that was found, the most telling last."""
    held = "" if payload["holdout"] is None else f" and {payload['holdout']} in a holdout of their own"
    lines: list[RenderableType] = [
        wrapped(f"{payload['source']}: {payload['samples']} samples{held}; {payload['looked_at']} looked at"),
        *(wrapped(f"note: {text}") for text in payload["notes"]),
        wrapped(f"prepared as: {_prepared(payload['preprocess'])}"),
        "",
        _inputs(payload),
        "",
        *_labels(payload["labels"]),
        "",
    ]
    accuracy = payload["accuracy"]
    if accuracy is None:
        lines.append(wrapped("accuracy: not measured, since there are no labels to compare with"))
    else:
        name = accuracy["metric"]
        low, high = accuracy["ci95"]
        made = table(None, f"float model on {accuracy['samples']} samples", name, "95% interval")
        made.add_row("as prepared", metric_value(name, accuracy["value"]), _interval(name, low, high))
        for entry in payload["presets"]:
            mark = " (better)" if entry["better"] else ""
            made.add_row(
                f"--preset {entry['preset']}{mark}", metric_value(name, entry["value"]), _interval(name, *entry["ci95"])
            )
        lines.append(made)
    return lines + [wrapped(text) for text in payload["advice"]]


def _prepared(preprocess: Mapping[str, Any]) -> str:
    if not preprocess:
        return "it is (no pixels to normalise)"
    words = {key: value for key, value in preprocess.items() if value is not None}
    return ", ".join(f"{key} {_text(value)}" for key, value in words.items())


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(_text(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _inputs(payload: Mapping[str, Any]) -> RenderableType:
    made = table("What the model is fed", "input", "shape", "min", "max", "mean", "std", left=2)
    for entry in payload["inputs"]:
        shape = " x ".join(str(size) for size in entry["shape"]) or "one number"
        numbers = [f"{entry[key]:.4g}" for key in ("min", "max", "mean", "std")]
        made.add_row(entry["name"], f"{shape} {entry['dtype']}", *numbers)
        for channel, moments in enumerate(entry["channels"] if len(entry["channels"]) > 1 else ()):
            made.add_row(f"  channel {channel}", "", "", "", f"{moments['mean']:.4g}", f"{moments['std']:.4g}")
    return made


def _labels(labels: Mapping[str, Any] | None) -> list[RenderableType]:
    if labels is None:
        return ["labels: none"]
    counts = labels["counts"]
    if counts is None:
        shape = " x ".join(str(size) for size in labels["shape"]) or "one each"
        return [wrapped(f"labels: {labels['dtype']}, {shape}, from {labels['min']:g} to {labels['max']:g}")]
    sizes = [entry["samples"] for entry in counts]
    head = f"labels: {len(counts)} classes, {labels['min']:g} to {labels['max']:g}; {min(sizes)} to {max(sizes)} samples each"
    if len(counts) > MOST_LABELS:
        return [wrapped(head)]
    return [wrapped(head), wrapped("  " + ", ".join(f"{entry['label']}: {entry['samples']}" for entry in counts), "  ")]


def _interval(name: str, low: float, high: float) -> str:
    return f"{metric_value(name, low)} .. {metric_value(name, high)}"
