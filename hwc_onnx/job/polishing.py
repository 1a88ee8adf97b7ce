"""Polish in a job: the samples of the search split that judge, and the plan that says whether it was kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hwc_onnx.accuracy.reference import Reference, make_reference, with_baseline
from hwc_onnx.accuracy.types import Splits
from hwc_onnx.database import Stitched
from hwc_onnx.events import Listener, Step
from hwc_onnx.polish import JUDGED, Polished, polish
from hwc_onnx.workspace import Calibrated, Opened


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
        reference = make_reference(opened.proto, splits.search.take(slice(0, JUDGED)), metric, task=task)
        if reference.needs_baseline:
            reference = with_baseline(reference, calibrated.candidate(calibrated.baseline).proto)
        self._reference: Reference = reference

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
