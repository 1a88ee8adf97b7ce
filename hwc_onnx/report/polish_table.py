"""Table of a polish: each layer's held-out error before and after, and what it took."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from hwc_onnx.report.console import table
from hwc_onnx.report.quantities import percent


def polish_tables(polish: dict[str, Any] | None) -> list[RenderableType]:
    """The layers of a payload's `polish` that changed; nothing where there was none, or where it was not kept."""
    if polish is None or not polish["kept"]:
        return []
    title = "Polish: output error on held-out images, relative to the output's variance"
    made = table(title, "layer", "weights", "before", "after", "codes changed", "seconds")
    for layer in polish["layers"]:
        if not layer["changed"]:
            continue
        made.add_row(
            layer["key"],
            f"{layer['bits']} bit",
            f"{layer['before']:.4f}",
            f"{layer['after']:.4f}",
            percent(layer["changed"]),
            f"{layer['seconds']:.1f}",
        )
    return [made, ""]
