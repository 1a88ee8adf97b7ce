"""Polish and refitting in a job: the samples of the search split that judge, and the plan that says what was kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.reference import Reference, make_reference, with_baseline
from hwc_onnx.accuracy.types import Splits
from hwc_onnx.candidate import assemble
from hwc_onnx.database import Stitched
from hwc_onnx.events import Listener, Step
from hwc_onnx.plan import CompressionPlan
from hwc_onnx.polish import JUDGED, Polished, polish
from hwc_onnx.rebuild import rebuild
from hwc_onnx.workspace import Calibrated, Opened


def judging(
    opened: Opened, calibrated: Calibrated, splits: Splits, metric: Any = None, task: str | None = None
) -> Reference:
    """The original on the first samples of the search split, which decide between two ways of carrying out a plan."""
    reference = make_reference(opened.proto, splits.search.take(slice(0, JUDGED)), metric, task=task)
    if reference.needs_baseline:
        reference = with_baseline(reference, calibrated.candidate(calibrated.baseline).proto)
    return reference


def refitted(
    opened: Opened,
    calibrated: Calibrated,
    splits: Splits,
    plan: CompressionPlan,
    reference: Reference | None,
    on_layer: Callable[[int, int, str], None],
) -> tuple[Stitched, str | None]:
    """A plan with each layer fitted behind the compressed layers before it, and what was said of it.

    With a `reference`, the same plan with each layer by itself is measured beside it and taken where its damage is smaller;
    `calibration.recovery` of its plan is then "full".
    """
    behind = rebuild(calibrated.proto, opened.graph, plan, calibrated.database, splits.calibration, on_layer=on_layer)
    if reference is None:
        return behind, None
    record = plan.calibration.model_copy(update={"recovery": "full"})
    alone = calibrated.stitch(plan.model_copy(update={"calibration": record}))
    ours, theirs = (
        measure(assemble(calibrated.proto, opened.graph, one, "measure").proto, reference).damage for one in (behind, alone)
    )
    kept = "kept" if ours <= theirs else "not kept: the plan's recovery is now full"
    said = f"recovery sequential: damage {ours:.3g} on {len(reference)} search samples, {theirs:.3g} with each layer by itself; {kept}"
    return (behind if ours <= theirs else alone), said


class Polishing:
    """Polishes stitched plans of one model and judges each on the same first samples of the search split."""

    def __init__(
        self,
        opened: Opened,
        calibrated: Calibrated,
        splits: Splits,
        metric: Any = None,
        task: str | None = None,
        on_event: Listener | None = None,
    ) -> None:
        self._calibrated, self._samples, self._on_event = calibrated, splits.calibration, on_event
        self._reference = judging(opened, calibrated, splits, metric, task)

    def __call__(self, stitched: Stitched) -> Polished:
        """The better of `stitched` and its polished version; `calibration.polish` of its plan says which it is."""
        made = self._calibrated
        found = polish(
            made.proto, made.graph, made.database, stitched, self._samples, self._reference, on_layer=self._tell
        )
        plan = found.stitched.plan
        record = plan.calibration.model_copy(update={"polish": found.kept})
        return replace(found, stitched=replace(found.stitched, plan=plan.model_copy(update={"calibration": record})))

    def _tell(self, done: int, total: int, key: str) -> None:
        if self._on_event is not None:
            self._on_event(Step(done, total, key))
