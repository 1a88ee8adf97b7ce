"""Table of `evaluate`: one measured value, or the drop between two."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from hwc_onnx.report.console import table
from hwc_onnx.report.quantities import metric_value, points


def evaluation_tables(payload: dict[str, Any]) -> list[RenderableType]:
    """The value with its interval, and the paired drop when an original was measured too."""
    name = payload["metric"]
    made = table(None, f"{name} on {payload['n_samples']} samples", "value", "95% interval")
    low, high = payload["ci95"]
    if payload["against"] is None:
        made.add_row(
            payload["model"],
            metric_value(name, payload["value"]),
            f"{metric_value(name, low)} .. {metric_value(name, high)}",
        )
        return [made]
    made.add_row(payload["against"], metric_value(name, payload["reference"]), "")
    made.add_row(payload["model"], metric_value(name, payload["value"]), "")
    made.add_row(
        "drop in points (positive is worse)", points(payload["drop_points"]), f"{points(low)} .. {points(high)}"
    )
    return [made]
