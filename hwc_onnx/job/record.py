"""The record of a run: result.json (schema 1), the front, and the object that `compress` returns."""

from __future__ import annotations

import json
import math
from itertools import zip_longest
from typing import Any

from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import AcceleratorProfile
from hwc_onnx.events import Note
from hwc_onnx.export import Written
from hwc_onnx.graph.loading import load_model
from hwc_onnx.job.front import write_front
from hwc_onnx.job.running import Running
from hwc_onnx.job.verdict import Verdict
from hwc_onnx.plan import CompressionPlan
from hwc_onnx.result import Figures, Result, versions
from hwc_onnx.search.objective import Objective
from hwc_onnx.search.problem import Choices
from hwc_onnx.search.study import SearchResult
from hwc_onnx.workspace import costs


def record(
    run: Running,
    objective: Objective,
    verdict: Verdict,
    written: Written,
    found: SearchResult,
    database_seconds: float,
    steps: list[dict[str, Any]],
) -> Result:
    """Write result.json and the front into the run folder and return the result."""
    main = _figures(run, run.job.profile, verdict.plan)
    missed = _missed(run, main, written)
    for text in missed:
        run.tell(Note(text, warning=True))
    goal_met = verdict.look.passed and verdict.kind != "original" and not missed
    # result.json comes last: it says that the run is finished
    # a polished plan is another than that of its trial
    passed = {} if run.options.polish else {trial: look.passed for trial, look in zip(verdict.trials, verdict.looks, strict=False)}
    front = write_front(run, objective, found.history, passed)
    payload = {
        "schema": 1,
        **_files(run, verdict, written),
        "run_dir": str(run.folder.path),
        "accelerator": {"name": main.name, "sha256": main.digest},
        "data": "real" if run.splits.real else "synthetic",
        "splits": _splits(run),
        "objective": run.options.objective,
        "limits": run.options.limits.given(),
        "metric": _metric(run, verdict),
        "recovery_steps": steps,
        "damage": [] if verdict.choices is None else _damage(objective, verdict.choices),
        "polish": None if verdict.polished is None else verdict.polished.payload(),
        "holdout_openings": run.openings,
        "looks": [
            {"trial": trial, **look.payload()} for trial, look in zip_longest(verdict.trials, verdict.looks)
        ],
        "energy_pj": main.triple("total"),
        "energy_unit": main.compressed.energy_unit,
        "reduction_vs_int8": main.reduction_vs_int8,
        "reduction_vs_float": main.reduction_vs_float,
        "compared_accelerators": [_figures(run, other, verdict.plan).payload() for other in run.job.others],
        "coverage": main.coverage(),
        "latency_s": main.triple("latency_s"),
        "accelerator_bytes": main.triple("accelerator_bytes"),
        "memory_bytes": main.triple("memory_bytes"),
        "macs": main.triple("macs"),
        "search": {
            "sampler": found.sampler,
            "seed": found.seed,
            "evaluations": found.spent.evaluations,
            "image_forwards": found.spent.image_forwards,
            "seconds": found.seconds,
            "database_seconds": database_seconds,
            "stopped_by": found.stopped_by,
            "origin": None if found.best is None else found.best.origin,
            "gained": found.history.gained(),
        },
        "notes": list(run.job.notes),
        "goal_met": goal_met,
        "exit_code": 0 if goal_met else 3,
        "versions": versions(),
    }
    run.folder.write("result.json", json.dumps(payload, indent=1) + "\n")
    proto = run.opened.loaded.proto if verdict.candidate is None else load_model(written.path).proto
    return Result(
        proto=proto,
        plan=verdict.plan,
        cost=main.compressed,
        evaluation=verdict.look.evaluation,
        pareto=front,
        payload=payload,
        study=run.folder.path / "study.journal",
        figures=main,
    )


def _figures(run: Running, profile: AcceleratorProfile, plan: CompressionPlan | None) -> Figures:
    model = run.cost_model if profile is run.job.profile else CostModel(profile, on_event=run.tell)
    unquantized, baseline, compressed = costs(model, run.opened, run.calibrated, plan)
    return Figures(profile.name, profile.digest(), unquantized, baseline, compressed)


def _files(run: Running, verdict: Verdict, written: Written) -> dict[str, Any]:
    loaded = run.opened.loaded
    return {
        "model": {"path": str(loaded.path) if loaded.path else None, "sha256": loaded.digest},
        "output": {
            "path": str(written.path),
            "sha256": written.sha256,
            "kind": verdict.kind,
            "file_bytes": written.file_bytes,
            "original_file_bytes": loaded.file_bytes,
            "baseline_file_bytes": run.baseline_bytes(),
            "parts": dict(written.parts),
        },
    }


def _splits(run: Running) -> dict[str, Any]:
    splits = run.splits
    return {
        "calibration": len(splits.calibration),
        "search": len(splits.search),
        "holdout": len(splits.holdout),
        "seed": run.options.split_seed,
        "description": splits.description,
        "digest": splits.digest,
    }


def _metric(run: Running, verdict: Verdict) -> dict[str, Any]:
    measured = verdict.look.evaluation
    return {
        "name": measured.metric,
        "original": _finite(measured.reference),
        "baseline_int8": _finite(verdict.baseline.evaluation.value),
        "baseline_drop_points": _finite(verdict.baseline.evaluation.drop_points),
        "baseline_drop_ci95": [_finite(end) for end in verdict.baseline.evaluation.ci95],
        "compressed": _finite(measured.value),
        "drop_points": _finite(measured.drop_points),
        "drop_ci95": [_finite(end) for end in measured.ci95],
        "search_drop_points": verdict.search_drop,
        "limit_points": _finite(run.limit_points),
        "gate": verdict.gate.mode,
        "n_holdout": measured.n_samples,
        "at_disable_all": _finite(verdict.look.at_disable_all),
        "at_enable_all": _finite(verdict.look.at_enable_all),
    }


def _damage(objective: Objective, choices: Choices) -> list[dict[str, Any]]:
    """What each decision of the plan costs by the damage table (alone, all others at INT8), the worst first."""
    found = []
    for unit, damages, choice in zip(objective.units, objective.damage, choices, strict=True):
        option, damage = unit.options[choice], max(float(damages[choice]), 0.0)
        if damage > 0.0:
            chosen = {"algorithm": option.algorithm, "ratio": option.ratio, "bits": option.bits}
            found.append({"kind": unit.kind, "name": unit.name, **chosen, "damage": damage})
    return sorted(found, key=lambda row: -float(row["damage"]))


def _finite(value: float) -> float | None:
    """JSON has no other numbers."""
    return value if math.isfinite(value) else None


def _missed(run: Running, main: Figures, written: Written) -> list[str]:
    """Limits other than accuracy that the result does not keep, in words."""
    cost = main.compressed
    figures = {
        "energy": cost.total / main.baseline_int8.total,
        "latency": cost.latency_s,
        "bytes": written.file_bytes,
        "memory": cost.memory_bytes,
    }
    return run.options.limits.missed(figures)
