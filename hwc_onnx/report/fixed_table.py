"""What `fix` says: the inputs that are constants now, those that are left, and the file."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from hwc_onnx.report.console import wrapped
from hwc_onnx.report.quantities import size


def fixed_tables(payload: dict[str, Any]) -> list[RenderableType]:
    """One line for each input, then the file."""
    nodes, output = payload["nodes"], payload["output"]
    said = [f"{one['name']} = {_short(one['value'])} ({one['type']} {one['shape']})" for one in payload["fixed"]]
    odd = [
        f"note: the model compares {one['name']} with {', '.join(f'{value:g}' for value in one['compared_with'])}, and {_short(one['value'])} "
        "is none of these: what is left is what it does for any other value"
        for one in payload["fixed"]
        if one["odd"]
    ]
    return [
        *(wrapped(text) for text in said + odd),
        wrapped(f"inputs left: {', '.join(payload['inputs'])}; {nodes['before']} nodes became {nodes['after']}"),
        wrapped(f"written: {output['path']}, {size(output['file_bytes'])}"),
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
