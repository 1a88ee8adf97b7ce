"""The sections of the report page, in order; each takes the record of the run and gives HTML, or None where it has nothing to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hwc_onnx.accuracy.statistics import wilson_interval
from hwc_onnx.report import page_figures
from hwc_onnx.report.page_commands import without_places
from hwc_onnx.report.page_energy import spent
from hwc_onnx.report.page_front import front
from hwc_onnx.report.page_learning import learned
from hwc_onnx.report.page_parts import figure, folded, listed, paragraph, section, table, text
from hwc_onnx.report.page_search import searched
from hwc_onnx.report.page_steps import recovery_steps
from hwc_onnx.report.page_why import why
from hwc_onnx.report.quantities import (
    change,
    energy,
    file_shares,
    goal_words,
    latency,
    metric_value,
    original_value,
    percent,
    points,
    size,
    unit_of,
)
from hwc_onnx.report.run_record import RunRecord

KINDS = {
    "compressed": "the compressed model",
    "baseline_int8": "the INT8 baseline: no searched plan could be accepted",
    "original": "the original, unchanged: nothing passed",
}


def heading(record: RunRecord) -> str:
    """Title of the page."""
    return f"{model_name(record)} on {record.result['accelerator']['name']}"


def model_name(record: RunRecord) -> str:
    """File name of the model."""
    return Path(record.result["model"]["path"] or "model.onnx").name


def verdict(record: RunRecord) -> str:
    """What came out, in one sentence and six figures."""
    result, metric = record.result, record.result["metric"]
    low, high = metric["drop_ci95"]
    saved, met = result["reduction_vs_int8"], result["goal_met"]
    limit = record.limit
    bound = "" if limit is None else f", limit {limit:.2f}, judged by {_gate(metric['gate'])}"
    words_of_goal = goal_words(result)
    verdict_class = " missed" if not met else "" if result["output"]["kind"] == "compressed" else " idle"
    words = (
        f"{words_of_goal[0].upper()}{words_of_goal[1:]}: {_less(saved)} energy than INT8 and {_less(result['reduction_vs_float'])} than "
        f"float, at a {metric['name']} drop of {points(metric['drop_points'])} {unit_of(metric['name'])} (95 % interval {points(low)} to {points(high)}"
        f"{bound}) on {metric['n_holdout']:,} samples that the search never saw. Written: {Path(result['output']['path']).name}, "
        f"{KINDS[result['output']['kind']]}."
    )
    unit, output = result["energy_unit"], result["output"]
    cards = (
        ("Energy per inference", energy(result["energy_pj"]["compressed"], unit), f"INT8 {energy(result['energy_pj']['baseline_int8'], unit)}"),
        ("Against INT8", change(saved), f"against float {change(result['reduction_vs_float'])}"),
        (metric["name"], metric_value(metric["name"], metric["compressed"]), f"original {original_value(metric['name'], metric['original'])}"),
        ("File", size(output["file_bytes"]), f"INT8 {size(output['baseline_file_bytes'])}"),
        ("Weights on the accelerator", size(result["accelerator_bytes"]["compressed"]), f"INT8 {size(result['accelerator_bytes']['baseline_int8'])}"),
        ("Latency", latency(result["latency_s"]["compressed"]), f"INT8 {latency(result['latency_s']['baseline_int8'])}"),
    )
    tiles = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)} <br><small>{text(beside)}</small></dd></div>" for name, value, beside in cards
    )
    warned = [without_places(record, note) for note in result["notes"] if "exceeds" in note or "too much" in note]
    return section(
        "verdict",
        "Verdict",
        f'<p class="verdict{verdict_class}">{text(words)}</p>',
        f'<dl class="cards">{tiles}</dl>',
        listed(warned) if warned else "",
        paragraph("Energy and latency are computed from the accelerator's profile; accuracy is measured with ONNX Runtime.", "soft"),
    )


def accuracy(record: RunRecord) -> str:
    """Every measurement on the holdout, in the order in which it was made."""
    result, metric = record.result, record.result["metric"]
    name = metric["name"]
    interval = own_interval(name, metric["original"], metric["n_holdout"])
    # sqnr compares with the original, which has no place on an axis that begins at INT8
    stages: list[dict[str, Any]] = (
        [] if name == "sqnr" else [{"name": "float", "value": metric["original"], "drop": 0.0, "ci95": interval, "passed": None}]
    )
    stages.append(
        {
            "name": "INT8",
            "value": metric["baseline_int8"],
            "drop": metric["baseline_drop_points"],
            "ci95": None if metric["baseline_drop_points"] is None else metric["baseline_drop_ci95"],
            "passed": None,
        }
    )
    written = written_look(result)
    for place, look in enumerate(result["looks"], 1):
        found = look["evaluation"]
        if found["value"] is None:
            continue
        trial = look.get("trial")  # records of earlier versions have none
        if trial is None and "trial" in look:
            continue  # INT8 or the original, judged after the plans
        details = [*([f"trial {trial}"] if trial is not None else []), *(["written"] if place == written else [])]
        behind = f" ({', '.join(details)})" if details else ""
        stages.append(
            {
                "name": f"plan {place}{behind}",
                "value": found["value"],
                "drop": found["drop_points"],
                "ci95": found["ci95"],
                "passed": look["passed"],
            }
        )
    rows = [
        (
            stage["name"],
            metric_value(name, stage["value"]),
            points(stage["drop"]),
            "-" if stage["ci95"] is None else f"{points(stage['ci95'][0])} .. {points(stage['ci95'][1])}",
            {True: "passed", False: "refused", None: "-"}[stage["passed"]],
        )
        for stage in stages
    ]
    said = (
        f"Drop of each plan that the final gate looked at, from the safest to the most aggressive; it stops at the first that fails. "
        f"{name} of {'INT8' if name == 'sqnr' else 'the original'}: {metric_value(name, metric['original'])}."
    )
    if interval is not None:
        said += " The bar of float is how well this many samples tell its own value; those of the plans compare with it sample by sample."
    return section(
        "accuracy",
        "Accuracy",
        figure("accuracy", page_figures.accuracy(stages, record.limit, unit_of(name)), said),
        folded("The same as a table", table(f"{name} on {metric['n_holdout']:,} held-out samples", ("", name, "drop", "95 % interval", "gate"), rows)),
        paragraph(
            f"The written plan loses {metric['search_drop_points']:.2f} {unit_of(name)} on the search samples. Run with all of ONNX Runtime's "
            f"graph optimisations it has {metric_value(name, metric['at_enable_all'])}, with none {metric_value(name, metric['at_disable_all'])}; "
            "the worse counts."
        ),
        recovery_steps(result, record.limit),
    )


def written_look(result: Mapping[str, Any]) -> int | None:
    """The place of the plan that was written among the looks, from 1: the last that passed; None where no searched plan was."""
    passed = [place for place, look in enumerate(result["looks"], 1) if look["passed"]]
    return passed[-1] if passed and result["output"]["kind"] == "compressed" else None


def own_interval(name: str, value: float | None, samples: int) -> list[float] | None:
    """Wilson's 95 % interval of the original's own value, in points below it; None where the metric counts no right answers."""
    if name not in ("top1", "top5") or value is None or samples <= 0:
        return None
    low, high = wilson_interval(value * samples, samples)
    return [100.0 * (value - high), 100.0 * (value - low)]


def layers(record: RunRecord) -> str | None:
    """What each layer got; None where the original was returned."""
    if record.result["output"]["kind"] == "original":
        return None
    order = {node["key"]: place for place, node in enumerate(record.after["nodes"])}
    names = sorted(record.plan["layers"], key=lambda name: order.get(name, len(order)))
    if not names:
        return None
    rows = page_figures.layer_rows(record, names)
    pruned = sum(row["pruned"] != "not pruned" for row in rows)
    narrow = sum(row["weight_bits"] <= 4 for row in rows)
    said = f"{len(rows)} layers: {pruned} pruned, {narrow} with weights of at most 4 bits. Hover a cell for the layer."
    unit = record.before["energy_unit"]
    body = [
        (
            row["name"],
            row["op_type"],
            row["pruned"],
            row["weight_bits"],
            row["activation_bits"],
            f"{row['zeros']:.0f} %",
            energy(row["before"], unit),
            energy(row["after"], unit),
        )
        for row in rows
    ]
    head = ("layer", "operator", "pruning", "W bits", "A bits", "zeros", "INT8", "result")
    return section(
        "layers",
        "What each layer got",
        figure("layers", page_figures.layers(record, names), said, max(340, 24 * len(rows))),
        folded("The same as a table", table("Layers in the order of execution", head, body, words=(1, 2))),
    )


def sizes(record: RunRecord) -> str:
    """File bytes against accelerator bytes."""
    output, weights = record.result["output"], record.result["accelerator_bytes"]
    rows = [
        ("file", size(output["original_file_bytes"]), size(output["baseline_file_bytes"]), size(output["file_bytes"])),
        ("weights on the accelerator", *(size(weights[kind]) for kind in ("float", "baseline_int8", "compressed"))),
    ]
    shares = output.get("parts")  # records of earlier versions have none
    return section(
        "size",
        "Bytes",
        figure("sizes", page_figures.sizes(record.result), "An ONNX file has no 3-bit container and no sparse weights that every runtime reads, so it shrinks less than what the accelerator stores."),
        paragraph(f"Of the {size(output['file_bytes'])} that were written: {file_shares(shares)}. Only the weights shrink with their width.") if shares else "",
        folded("The same as a table", table("Bytes", ("", "original", "INT8", "result"), rows)),
    )


def limits(record: RunRecord) -> str:
    """What the figures leave out."""
    coverage = record.result["coverage"]
    unmodelled = record.after["unmodelled"]
    said = [
        f"The energy model covers {percent(coverage['macs'])} of the multiply-accumulates and {percent(coverage['traffic'])} of the tensor traffic.",
        "Energies are computed from published or assumed constants of the profile (hwc-onnx accel show NAME); no hardware was measured.",
    ]
    said += [f"{item['key']}: {item['reason']}" for item in unmodelled[:20]]
    if len(unmodelled) > 20:
        said.append(f"and {len(unmodelled) - 20} more nodes without a model")
    if record.result["data"] == "synthetic":
        said.append("Accuracy was measured on synthetic inputs: give real samples with --data for figures that you can rely on.")
    return section("limits", "What is not modelled", listed(said))


def provenance(record: RunRecord) -> str:
    """Digests, versions, options and everything that was said on the way."""
    result = record.result
    rows = [
        ("model", result["model"]["sha256"]),
        ("written file", result["output"]["sha256"]),
        ("accelerator profile", result["accelerator"]["sha256"]),
        ("data split", result["splits"]["digest"]),
    ]
    versions = [(name, value) for name, value in result["versions"].items()]
    options = yaml.safe_dump(dict(record.config), sort_keys=True)
    return section(
        "provenance",
        "Provenance",
        paragraph(result["splits"]["description"]),
        folded("Digests (SHA-256)", table("SHA-256", ("", "digest"), rows, words=(1,))),
        folded("Versions", table("Versions", ("package", "version"), versions, words=(1,))),
        folded("Options", f"<pre>{text(options)}</pre>"),
        folded("Everything that was said", listed(without_places(record, note) for note in result["notes"])),
    )


def _gate(mode: str) -> str:
    return "its 95 % upper bound" if mode == "upper" else "its estimate"


def _less(saved: float) -> str:
    return f"{100.0 * saved:.1f} % less" if saved >= 0.0 else f"{-100.0 * saved:.1f} % more"


SECTIONS: tuple[tuple[str, str, Callable[[RunRecord], str | None]], ...] = (
    ("verdict", "Verdict", verdict),
    ("accuracy", "Accuracy", accuracy),
    ("energy", "Energy", spent),
    ("layers", "Layers", layers),
    ("front", "Trade-offs", front),
    ("search", "Search", searched),
    ("learning", "Learning", learned),
    ("size", "Bytes", sizes),
    ("why", "Why", why),
    ("limits", "Limits", limits),
    ("provenance", "Provenance", provenance),
)
