"""What the recovery is worth: the plan that was written, made with less and less of it, on the same held-out samples (the
first `MOST_SAMPLES` of the holdout).

Measured after the decision, so that nothing is chosen by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import onnx

from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.reference import Reference, make_reference, with_baseline
from hwc_onnx.candidate import Candidate, assemble
from hwc_onnx.errors import HwcError
from hwc_onnx.events import Phase
from hwc_onnx.job.running import Running
from hwc_onnx.plan import CompressionPlan
from hwc_onnx.pruning.table import WEIGHTS_ALONE
from hwc_onnx.workspace import Calibrated, calibrate

MOST_SAMPLES = 2000
Step = tuple[str, Callable[[], onnx.ModelProto]]


def recovery_steps(run: Running, candidate: Candidate, holdout: Reference) -> list[dict[str, Any]]:
    """Metric and drop of the plan after each step, as result.json keeps them; null where a model could not be measured.

    Args:
        run: the run that wrote the candidate.
        candidate: what was written.
        holdout: the original on the held-out samples.
    """
    if len(holdout) > MOST_SAMPLES:
        first = run.splits.holdout.take(slice(0, MOST_SAMPLES))
        holdout = with_baseline(make_reference(run.opened.proto, first, run.reference.metric, task=run.options.task, fewest_heard=1), run.baseline.proto)
    run.tell(Phase("steps", f"what the recovery of this plan is worth, on {len(holdout)} holdout samples"))
    found = []
    for name, build in _steps(run, candidate):
        row: dict[str, Any] = {"step": name, "value": None, "drop_points": None, "ci95": None}
        try:
            seen = measure(build(), holdout, level="all")
            row |= {"value": seen.value, "drop_points": seen.drop_points, "ci95": list(seen.ci95)}
        except HwcError:  # unrepaired, a plan may be beyond measuring
            pass
        found.append(row)
    return found


def _steps(run: Running, candidate: Candidate) -> Iterator[Step]:
    """(name, how the model is made), from the plainest to what was written."""
    settled = candidate.plan
    plan = settled.model_copy(update={"achieved": {}, "activation_density": {}})
    plain = _unrepaired(run, plan, "none", "minmax")
    yield "rounded", lambda: plain.candidate(plan).proto
    fitted = _unrepaired(run, plan, "ranges", "mse", plain)
    yield "ranges", lambda: fitted.candidate(plan).proto
    made = run.calibrated
    yield "layers", lambda: assemble(made.proto, made.graph, made.database.stitch(plan)).proto
    if made.repair is not None:
        yield "statistics", lambda: made.candidate(plan).proto
    if settled.calibration.recovery == "sequential" or settled.calibration.polish:
        yield "refitted", lambda: candidate.proto


def _unrepaired(
    run: Running, plan: CompressionPlan, recovery: str, ranges: str, measured: Calibrated | None = None
) -> Calibrated:
    """A database without repairs."""
    options = run.options
    return calibrate(
        run.opened,
        run.splits.calibration,
        seed=options.split_seed,
        lanes=options.lanes,
        portable=options.portable,
        dialect=options.dialect,
        recovery=recovery,
        ranges=ranges,
        moments=any(layer.algorithm not in WEIGHTS_ALONE for layer in plan.layers.values()),
        measured=None if measured is None else measured.calibration,
    )
