"""Tables of `compress --dry-run` and `compare --dry-run`: the work, the options with where each came from, and the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from hwc_onnx.report.console import table, wrapped
from hwc_onnx.report.quantities import count, duration, latency, limit_words, metric_value, percent, unit_of

FREEDOMS = {
    "weight_bits": "narrowest weights",
    "activation_bits": "narrowest activations",
    "zeros": "90% zeros in the weights",
    "channels": "half of the channels gone",
}
STEPS = {
    "calibration": "calibration",
    "database": "layer database (rough)",
    "search": "search",
    "refits": "refits at its end",
    "gate": "final gate, at most",
}


def dry_run_payload(plan: Mapping[str, Any], options: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
    """The plan of work with each option's value as it is written in a file, and where it came from."""
    return {**plan, "options": {key: {"value": value, "from": origin} for key, (value, origin) in options.items()}}


def dry_run_tables(payload: Mapping[str, Any]) -> list[RenderableType]:
    """Everything that would happen; nothing did."""
    work = table("Plan of work (nothing is written)", "", "", left=2)
    for name, value in _work(payload):
        work.add_row(name, value)
    bounds = table("Energy that can be saved at most, against INT8", "freedom at its extreme", "saved")
    for name, saved in payload["rewards"]["single"].items():
        bounds.add_row(FREEDOMS[name], percent(saved))
    bounds.add_row("all at once", percent(payload["rewards"]["together"]))
    options = table("Options", "option", "value", "from", left=3)
    for key, entry in payload["options"].items():
        options.add_row(key, _value(entry["value"]), entry["from"])
    lines: list[RenderableType] = [work, "", bounds, wrapped("Accuracy is not looked at in these bounds."), "", options, ""]
    lines += [wrapped(f"warning: {text}") for text in payload["warnings"]]
    return lines + _time(payload)


def _work(payload: Mapping[str, Any]) -> list[tuple[str, str]]:
    model, data, metric = (payload[name] for name in ("model", "data", "metric"))
    parts = f"{data['calibration']} calibration, {data['search']} search, {data['holdout']} holdout samples"
    prepared = ", ".join(f"{name} {_value(value)}" for name, value in data["preprocess"].items() if value not in (None, 0.0))
    limits = [*_drop(payload["limits"]["drop"], metric["name"]), *limit_words(payload["limits"])]
    state = {"new": "new", "continues": "continued: it has the same inputs"}.get(payload["run_state"], payload["run_state"])
    return [
        ("model", f"{model['path'] or 'given in Python'}: {model['nodes']} nodes, {count(model['macs'])} MACs"),
        ("layers", f"{model['searched_layers']} of {model['layers']} are searched, {count(model['weights'])} weights"),
        ("channel groups", f"{model['channel_groups']}, of them {model['locked_groups']} locked"),
        ("data", f"{data['source'] if data['real'] else 'synthetic, no data given'}: {parts}"),
        ("prepared as", prepared or "it is"),
        ("metric", f"{metric['name']}, original {_original(metric)}"),
        ("accelerator", payload["accelerator"]),
        ("looked for", f"least {payload['limits']['objective']}; limits: {', '.join(limits) or 'none'}"),
        ("algorithms", ", ".join(payload["algorithms"]) or "no pruning"),
        *_searches(payload),
        ("run folder", f"{payload['run_dir']} ({state})"),
    ]


def _searches(payload: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One search and its file, or those of a comparison."""
    if "search" in payload:
        search = payload["search"]
        words = f"{search['sampler']}, at most {search['trials']} evaluations, seed {search['seed']}"
        return [("search", words), ("output", payload["output"])]
    contest = payload["comparison"]
    done = f", {contest['finished']} of them finished" if contest["finished"] else ""
    each = f"{contest['searches']} of {contest['trials']} evaluation-equivalents each{done}"
    return [
        ("strategies", f"{', '.join(contest['samplers'])}; start {', '.join(contest['starts'])}; {contest['seeds']} seeds"),
        ("searches", f"{each}; seeds at a time: {contest['jobs']}"),
    ]


def _drop(limit: float | str | None, metric: str) -> list[str]:
    """The limit on the drop, with what it is counted in."""
    if limit is None:
        return []
    return [f"drop {limit} of the original's value" if isinstance(limit, str) else f"drop {limit:.2f} {unit_of(metric)}"]


def _original(metric: Mapping[str, Any]) -> str:
    return "to be compared with" if metric["original"] is None else metric_value(metric["name"], metric["original"])


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_value(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _time(payload: Mapping[str, Any]) -> list[RenderableType]:
    estimate = payload["estimate"]
    if estimate is None and "comparison" in payload:
        return [wrapped("Every search is finished: the same command without --dry-run prints the table.")]
    if estimate is None:
        return [wrapped("No estimate of time: trials of an earlier run are used, and how many remain shows only then.")]
    basis = estimate["basis"]
    threads = estimate["threads"]
    made = table(f"Estimated time, {threads} thread{'s' if threads > 1 else ''}", "step", "time")
    for name, seconds in estimate["seconds"].items():
        made.add_row(STEPS[name], duration(seconds))
    made.add_row("together", duration(estimate["total_s"]))
    few, more = basis["calibration_s"]
    text = (
        f"Timed just now: the float model on {basis['samples']} samples, {latency(basis['float_evaluation_s'])}; a pruned 4-bit "
        f"candidate, built in {latency(basis['building_s'])} and measured on them in {latency(basis['candidate_evaluation_s'])}; a plan "
        f"refitted on {basis['calibration_samples'][0]} samples, {latency(basis['refit_s'])}; calibration with "
        f"{basis['calibration_samples'][0]} and {basis['calibration_samples'][1]} samples, {latency(few)} and {latency(more)}; the "
        f"settings of layer {basis['layer']}, {percent(basis['layer_share'])} of all layers' work, {latency(basis['layer_s'])}. Every "
        "evaluation counts at full length, of which many stop early; proposing plans is not counted. Half or twice the time is "
        "within reach; another load on this machine changes it too."
    )
    return [made, wrapped(text)]

