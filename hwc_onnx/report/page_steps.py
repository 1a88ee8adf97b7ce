"""What the recovery is worth: the written plan with less and less of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hwc_onnx.report import page_figures
from hwc_onnx.report.page_parts import figure, folded, table
from hwc_onnx.report.quantities import metric_value, points, unit_of

WORDS = {
    "rounded": "rounded and cut, nothing repaired",
    "ranges": "ranges and scales chosen",
    "layers": "each layer repaired",
    "statistics": "channel statistics mended",
    "refitted": "refitted layer after layer",
}


def recovery_steps(result: Mapping[str, Any], limit: float | None) -> str:
    """Drop of the same plan after each step of the recovery; nothing where none was measured."""
    seen: Sequence[Mapping[str, Any]] = [step for step in result.get("recovery_steps", []) if step["value"] is not None]
    if len(seen) < 2:
        return ""
    name = result["metric"]["name"]
    stages = [{"name": WORDS[step["step"]].replace(", ", ",<br>"), "drop": step["drop_points"], "ci95": step["ci95"], "passed": None} for step in seen]
    first, last = seen[0], seen[-1]
    said = (
        f"The same plan, with more and more of the recovery: {WORDS[first['step']]}, it loses {first['drop_points']:.2f} {unit_of(name)}; "
        f"{WORDS[last['step']]}, {last['drop_points']:.2f}. Measured after the decision, all on the same at most 2,000 held-out samples."
    )
    rows = [
        (
            WORDS[step["step"]],
            metric_value(name, step["value"]),
            points(step["drop_points"]),
            f"{points(step['ci95'][0])} .. {points(step['ci95'][1])}",
        )
        for step in seen
    ]
    return figure("steps", page_figures.accuracy(stages, limit, unit_of(name)), said) + folded(
        "The same as a table", table("What the recovery is worth", ("", name, "drop", "95 % interval"), rows)
    )
