"""A finished run, read back: the same command again prints its result instead of working it out anew."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from hwc_onnx.accuracy.types import Evaluation
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import AcceleratorProfile
from hwc_onnx.errors import HwcError
from hwc_onnx.graph.loading import load_model
from hwc_onnx.plan import CompressionPlan, with_plan
from hwc_onnx.result import Result, sha256, versions
from hwc_onnx.workspace import Opened

PAGES = ("profile.json", "report.html")
"""What is written behind result.json; a kill in between leaves these to the next call."""


def finished(folder: Path, output: Path, trials: int, opened: Opened, profile: AcceleratorProfile) -> Result | None:
    """The result of a run with the same inputs that has nothing left to do; None where there is work.

    It is believed only if the output is the very file that was written then, by this version.
    """
    try:
        payload: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        search, written = payload["search"], payload["output"]
        done = search["stopped_by"] in ("converged", "resolved") or search["evaluations"] >= trials
        if not done or written["kind"] == "original" or payload["versions"] != versions():
            return None
        if sha256(output.read_bytes()) != written["sha256"]:
            return None
        if not all((folder / name).is_file() for name in PAGES):
            return None
        plan = CompressionPlan.load(folder / "plan.json")
        return Result(
            proto=load_model(output).proto,
            plan=plan,
            cost=CostModel(profile, cache_dir=folder / "cache").cost(with_plan(opened.graph, plan)),
            evaluation=_evaluation(payload),
            pareto=_pareto(folder / "pareto.csv"),
            payload=payload,
            study=folder / "study.journal",
        )
    except (OSError, ValueError, KeyError, TypeError, StopIteration, HwcError):
        return None


def _evaluation(payload: dict[str, Any]) -> Evaluation:
    """The measurement of the look at the holdout that the result stands on."""
    metric = payload["metric"]
    look = next(
        look
        for look in payload["looks"]
        if look["at_disable_all"] == metric["at_disable_all"] and look["at_enable_all"] == metric["at_enable_all"]
    )
    fields = look["evaluation"]
    return Evaluation(**{**fields, "ci95": tuple(fields["ci95"])})


def _pareto(path: Path) -> tuple[tuple[float, float], ...]:
    with path.open(newline="", encoding="utf-8") as stream:
        return tuple((float(row[0]), float(row[1])) for row in list(csv.reader(stream))[1:] if row[2] == "true")
