"""The section of a run's page on its search: who found what, and runs of the same task beside it."""

from __future__ import annotations

from hwc_onnx.report import page_figures
from hwc_onnx.report.origins import origin
from hwc_onnx.report.page_commands import compare_command
from hwc_onnx.report.page_parts import command, figure, folded, paragraph, section, table
from hwc_onnx.report.quantities import change, duration, percent, points, unit_of
from hwc_onnx.report.result_table import STOPPED
from hwc_onnx.report.run_record import RunRecord, Trial

ACCEPTED = (
    "the drop on all search samples, with luck on them taken off and one standard error added, keeps the limit, and so do all "
    "other limits"
)
"""What a filled mark means (docs/search.md)."""


def searched(record: RunRecord) -> str | None:
    """How the search went and who found what."""
    if not record.trials:
        return None
    found = record.result["search"]
    said = (
        f"{found['evaluations']} evaluations with {found['sampler']}, {found['image_forwards']:,} images through the network, "
        f"{duration(found['seconds'])}, {STOPPED.get(found['stopped_by'], found['stopped_by'])}. "
        f"Filled marks were accepted: {ACCEPTED}."
    )
    gained = gains(record)
    rows = [(origin(name), tried, f"{100.0 * gain:.1f}") for name, (tried, gain) in gained.items()]
    return section(
        "search",
        "The search",
        figure("search", page_figures.search(record), said),
        folded("Every trial as a table", trial_table(record)),
        table("Who proposed, and what it saved", ("proposed by", "trials", "percentage points saved"), rows),
        _others(record),
        paragraph("Against other strategies at the same budget:"),
        command(compare_command(record)),
    )


def trial_table(record: RunRecord) -> str:
    """Every trial: who proposed it, what it costs and loses, and what became of it."""
    unit = unit_of(record.result["metric"]["name"])
    rows = [(trial.number, trial.evaluations, origin(trial.origin), *_outcome(trial)) for trial in record.trials]
    head = ("trial", "evaluations", "proposed by", "energy vs INT8", f"drop, {unit}", "")
    return table("Trials in the order in which they ended", head, rows, words=(2, 5))


def _outcome(trial: Trial) -> tuple[str, str, str]:
    if trial.failed:
        return "-", "-", "failed"
    said = "accepted" if trial.accepted else "not accepted" if trial.complete else "stopped early"
    return percent(trial.energy), points(trial.drop), said


def gains(record: RunRecord) -> dict[str, tuple[int, float]]:
    """By origin: trials, and the saving (share of INT8's energy) that its improvements brought."""
    found: dict[str, tuple[int, float]] = {}
    best = 1.0
    for trial in record.trials:
        tried, gain = found.get(trial.origin, (0, 0.0))
        better = trial.accepted and trial.energy < best
        found[trial.origin] = (tried + 1, gain + (best - trial.energy if better else 0.0))
        best = trial.energy if better else best
    return found


def _others(record: RunRecord) -> str:
    """This run and those beside it: what each search found, and what it wrote."""
    if not record.beside:
        return ""
    rows = []
    for one in (record, *record.beside):
        steps = page_figures.best_so_far(one)
        saved, metric = one.result["reduction_vs_int8"], one.result["metric"]
        rows.append(
            (
                one.strategy,
                one.result["search"]["evaluations"],
                percent(steps[-1][1]) if steps else "-",
                change(saved),
                points(metric["drop_points"]),
            )
        )
    head = ("strategy", "evaluations", "best of the search, of INT8's energy", "written, against INT8", "its drop")
    return table("Runs of the same task", head, rows)
