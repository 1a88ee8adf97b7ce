"""Table of `compress`: accuracy, energy on each accelerator and bytes, before and after, and where the files are."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from hwc_onnx.report.console import table, wrapped
from hwc_onnx.report.origins import gained_line, origin
from hwc_onnx.report.polish_table import polish_tables
from hwc_onnx.report.quantities import (
    change,
    count,
    duration,
    energy,
    file_shares,
    goal_words,
    latency,
    limit_words,
    metric_value,
    original_value,
    points,
    size,
    unit_of,
)

LITTLE = 0.03
"""Energy saved against INT8 below which a limit is called too narrow."""
_KINDS = {
    "compressed": "compressed model",
    "baseline_int8": "INT8 baseline (no searched plan could be accepted)",
    "original": "original, unchanged (nothing passed the gate, INT8 included)",
}


STOPPED = {
    "trials": "stopped by trials",
    "timeout": "stopped by --timeout",
    "converged": "stopped because it no longer improved",
    "interrupted": "interrupted",
    "resolved": "trials of an earlier run, judged anew",
}


def result_tables(payload: dict[str, Any], notes: bool = True) -> list[RenderableType]:
    """Tables for a result.json (schema 1); `notes` repeats what was said on the way."""
    said = [f"note: {text}" for text in payload.get("notes", ())] if notes else []
    return [_accuracy(payload), "", _energy(payload), "", _sizes(payload), "", *polish_tables(payload.get("polish")), *_files(payload), *said]


def markdown_rows(payload: dict[str, Any]) -> list[str]:
    """The same figures as a Markdown table, for a README."""
    metric, output = payload["metric"], payload["output"]
    name = metric["name"]
    low, high = metric["drop_ci95"]
    rows = [
        "| | float | INT8 | compressed |",
        "|---|---|---|---|",
        f"| {name} on {metric['n_holdout']} held-out samples | {original_value(name, metric['original'])} "
        f"| {metric_value(name, metric['baseline_int8'])} | {metric_value(name, metric['compressed'])} |",
        f"| drop in {unit_of(name)}, 95% interval | | | {points(metric['drop_points'])} ({points(low)} .. {points(high)}) |",
    ]
    for item in _accelerators(payload):
        figures, unit = item["energy_pj"], item["energy_unit"]
        rows.append(
            f"| energy per inference on `{item['name']}` | {energy(figures['float'], unit)} | {energy(figures['baseline_int8'], unit)} "
            f"| {energy(figures['compressed'], unit)} ({change(item['reduction_vs_int8'])} vs INT8, "
            f"{change(item['reduction_vs_float'])} vs float) |"
        )
    rows.append(
        f"| file | {size(output['original_file_bytes'])} | {size(output['baseline_file_bytes'])} | {size(output['file_bytes'])} |"
    )
    return rows


def _accuracy(payload: dict[str, Any]) -> RenderableType:
    metric = payload["metric"]
    name = metric["name"]
    low, high = metric["drop_ci95"]
    made = table(
        f"Accuracy ({name}, {metric['n_holdout']} held-out {payload['data']} samples)",
        "",
        "original",
        "INT8",
        "compressed",
        "drop",
        "95% interval",
    )
    made.add_row(
        name,
        "reference" if name == "sqnr" else metric_value(name, metric["original"]),
        metric_value(name, metric["baseline_int8"]),
        metric_value(name, metric["compressed"]),
        f"{points(metric['drop_points'])} {'dB' if name == 'sqnr' else 'pt'}",
        f"{points(low)} .. {points(high)}",
    )
    return made


def _energy(payload: dict[str, Any]) -> RenderableType:
    made = table("Energy per inference", "accelerator", "float", "INT8", "compressed", "vs INT8", "vs float")
    for item in _accelerators(payload):
        figures, unit = item["energy_pj"], item["energy_unit"]
        made.add_row(
            item["name"],
            energy(figures["float"], unit),
            energy(figures["baseline_int8"], unit),
            energy(figures["compressed"], unit),
            change(item["reduction_vs_int8"]),
            change(item["reduction_vs_float"]),
        )
    return made


def _sizes(payload: dict[str, Any]) -> RenderableType:
    output, name = payload["output"], payload["accelerator"]["name"]
    made = table("Size and speed", "", "original", "INT8", "compressed")
    made.add_row(
        "file", size(output["original_file_bytes"]), size(output["baseline_file_bytes"]), size(output["file_bytes"])
    )
    for label, key, write in (
        (f"weights on {name}", "accelerator_bytes", size),
        (f"with activations on {name}", "memory_bytes", size),
        (f"latency on {name}", "latency_s", latency),
        ("MACs", "macs", count),
    ):
        if key in payload:  # records of earlier versions have no memory
            made.add_row(label, *(write(payload[key][kind]) for kind in ("float", "baseline_int8", "compressed")))
    return made


def _files(payload: dict[str, Any]) -> list[RenderableType]:
    output, search = payload["output"], payload["search"]
    lines: list[RenderableType] = [
        f"{goal_words(payload)}: {_goal(payload)}; {search['evaluations']} evaluations "
        f"with {search['sampler']} in {duration(search['seconds'])} ({STOPPED.get(search['stopped_by'], search['stopped_by'])})",
        *_recovered(payload),
        *_sources(search),
        *_judged(payload),
        f"written: {output['path']}, the {_KINDS[output['kind']]}",
    ]
    if output.get("parts"):  # records of earlier versions have none
        lines.append(wrapped(f"its {size(output['file_bytes'])}: {file_shares(output['parts'])}"))
    if payload.get("run_dir"):
        lines.append(f"run folder: {payload['run_dir']} (report.html, plan.json, result.json, pareto.csv)")
    if output["kind"] != "compressed":
        lines.append(
            wrapped(
                "next: give more --trials and samples, or allow more with --max-drop; report.html lists every trial with its drop; `hwc-onnx why "
                "MODEL --uniform w8a8`, with the same --data, names the layers that lose most, to be left out with --exclude"
            )
        )
    elif payload["reduction_vs_int8"] < LITTLE and payload.get("objective") != "drop":
        metric = payload["metric"]
        against = f" (INT8 has {metric['baseline_int8']:.3g} dB already)" if metric["name"] == "sqnr" else ""
        said = f"next: hardly anything is saved{against}; where it is the drop that binds, allow more with --max-drop, or judge by what is counted in the end with --metric"
        lines.append(wrapped(said))
    if payload["data"] == "synthetic":
        lines.append("measured on synthetic inputs: give real samples with --data for figures that you can rely on")
    return lines


def _recovered(payload: dict[str, Any]) -> list[str]:
    """What the recovery is worth, where it was measured."""
    seen = [step for step in payload.get("recovery_steps", ()) if step["value"] is not None]
    if len(seen) < 2 or seen[0]["step"] != "rounded":
        return []
    drops = [f"{points(step['drop_points'])} ({step['step']})" for step in seen]
    return [wrapped(f"{unit_of(payload['metric']['name'])} lost by this plan with more and more of the recovery: {', '.join(drops)}")]


def _judged(payload: dict[str, Any]) -> list[str]:
    """How far the final gate climbed and what ended it."""
    looks = [look for look in payload.get("looks", ()) if look["trial"] is not None]
    if not looks or payload["metric"]["limit_points"] is None:
        return []
    passed = [look["trial"] for look in looks if look["passed"]]
    last = f", of which trial {passed[-1]} is written" if passed and payload["output"]["kind"] == "compressed" else ""
    said = f"final gate: {len(looks)} plans judged from the safest on, {len(passed)} passed{last}"
    if not looks[-1]["passed"]:
        said += f"; trial {looks[-1]['trial']} ended it: {_ended(looks[-1], payload['metric'])}"
    return [wrapped(said.replace("1 plans", "1 plan") if len(looks) == 1 else said)]


def _ended(look: dict[str, Any], metric: dict[str, Any]) -> str:
    """What a plan failed by, in words."""
    if look["failure"] is not None:
        return str(look["failure"])
    unit = unit_of(metric["name"])
    drop, bound = look["evaluation"]["drop_points"], look["upper_bound_points"]
    return f"drop {drop:+.2f} {unit}" + (f", upper bound {bound:+.2f}" if metric["gate"] == "upper" and bound is not None else "")


def _sources(search: dict[str, Any]) -> list[str]:
    """Who found what; records of earlier versions do not say."""
    if not search.get("gained") or search.get("origin") is None:
        return []
    said = f"best plan on the search samples: {origin(search['origin'])}; percentage points saved: {gained_line(search['gained'])}"
    return [wrapped(said)]


def _goal(payload: dict[str, Any]) -> str:
    """What was asked for, in words."""
    metric, limits = payload["metric"], payload.get("limits", {})
    asked = []
    if metric["limit_points"] is not None:
        judged = "95% upper bound" if metric["gate"] == "upper" else "point estimate"
        asked.append(f"limit {metric['limit_points']:.2f} {unit_of(metric['name'])}, judged by the drop's {judged}")
    asked += [f"at most {words}" for words in limit_words(limits)]
    least = "least drop, " if payload.get("objective") == "drop" else ""
    return least + ", ".join(asked)


def _accelerators(payload: dict[str, Any]) -> list[dict[str, Any]]:
    main = {
        "name": payload["accelerator"]["name"],
        "energy_pj": payload["energy_pj"],
        "energy_unit": payload["energy_unit"],
        "reduction_vs_int8": payload["reduction_vs_int8"],
        "reduction_vs_float": payload["reduction_vs_float"],
    }
    return [main, *payload.get("compared_accelerators", ())]
