"""Tables of `compare`: who wins, quartiles of each strategy, and the tests against the agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from hwc_onnx.report.console import table, wrapped
from hwc_onnx.report.origins import origin
from hwc_onnx.report.quantities import duration

Named = Mapping[str, Any]


def compare_tables(payload: Named, notes: bool = True) -> list[RenderableType]:
    """Tables for `Comparison.payload`; `notes` repeats what was said on the way."""
    summary = payload["summary"]
    said = [wrapped(f"note: {text}") for text in payload["notes"]] if notes else []
    lines: list[RenderableType] = [wrapped(line) for line in summary["verdict"]]
    lines += ["", _savings(payload), "", _quality(payload), "", _gained(summary)]
    if summary["comparisons"]:
        lines += ["", _tests(summary), wrapped(_reading(summary))]
    if payload["data"] == "synthetic":
        lines.append("measured on synthetic inputs: give real samples with --data")
    return [*lines, f"run folder: {payload['run_dir']}", *said]


def _savings(payload: Named) -> RenderableType:
    summary = payload["summary"]
    budget = summary["budget"]
    made = table(
        f"Energy saved vs INT8 on {payload['accelerator']['name']}, median (quartiles)",
        "sampler",
        "start",
        "passes",
        f"search, at {summary['third']:.3g}",
        f"at {budget}",
        left=2,
    )
    for one in summary["strategies"]:
        made.add_row(
            one["sampler"],
            one["start"],
            _quartiles(one["delivered"]),
            _quartiles(one["reduction_at_third"]),
            _quartiles(one["reduction"]),
        )
    return made


def _quality(payload: Named) -> RenderableType:
    summary = payload["summary"]
    made = table(
        f"Best plan of the search: drop in points ({payload['metric']}, limit {payload['max_drop']})",
        "sampler",
        "start",
        "search",
        "holdout",
        "kept",
        "hypervol.",
        "area",
        "time",
        left=2,
    )
    for one in summary["strategies"]:
        made.add_row(
            one["sampler"],
            one["start"],
            _points(one["drop_points"]),
            _points(one["holdout_drop_points"]),
            f"{one['holdout_kept']}/{summary['seeds']}",
            f"{one['hypervolume']['median']:.3f}",
            f"{one['area']['median']:.3f}",
            duration(one["seconds"]["median"]),
        )
    return made


def _gained(summary: Named) -> RenderableType:
    """Columns: origins, as many as there are."""
    origins = sorted({name for one in summary["strategies"] for name in one["gained"]})
    words = [origin(name) for name in origins]
    made = table("Whose plans saved it: percentage points, mean over seeds", "sampler", "start", *words, left=2)
    for one in summary["strategies"]:
        cells = [one["gained"].get(name) for name in origins]
        made.add_row(one["sampler"], one["start"], *("-" if value is None else f"{100.0 * value:.1f}" for value in cells))
    return made


def _tests(summary: Named) -> RenderableType:
    made = table(
        f"{summary['reference']} against each other sampler",
        "against",
        "start",
        "medians",
        "seeds +/-",
        "p better",
        "Holm",
        "p worse",
        "Holm",
        left=2,
    )
    for one in summary["comparisons"]:
        made.add_row(
            one["against"],
            one["start"],
            f"{100.0 * one['difference_of_medians']:+.1f}",
            f"{one['seeds_better']}/{one['seeds_worse']}",
            *(_p(one[name]) for name in ("p_better", "p_better_holm", "p_worse", "p_worse_holm")),
        )
    return made


def _reading(summary: Named) -> str:
    return (
        "passes: the plan that compress would write, the last that its gate lets pass on the holdout; medians: percentage points of "
        "INT8's energy that the agent's saves more; seeds +/-: on how many it is better and "
        "worse; p: paired one-sided Wilcoxon over seeds (smallest possible "
        f"{_p(summary['smallest_p'])}), corrected for {len(summary['comparisons'])} comparisons (Holm)"
    )


def _quartiles(found: Mapping[str, float]) -> str:
    return f"{_share(found['median'])} ({100.0 * found['q1']:.1f}-{100.0 * found['q3']:.1f})"


def _share(value: float) -> str:
    return f"{100.0 * value:.1f}%"


def _points(found: Mapping[str, float] | None) -> str:
    return "-" if found is None else f"{found['median']:+.2f}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
