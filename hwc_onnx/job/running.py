"""The state of one run: what was prepared, and the best-so-far file that a kill must find valid."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from hwc_onnx.accuracy.metrics import SessionMetric
from hwc_onnx.accuracy.pool import Data
from hwc_onnx.accuracy.reference import Reference, make_reference, with_baseline
from hwc_onnx.accuracy.sanity import check_reference
from hwc_onnx.accuracy.synthetic import served
from hwc_onnx.accuracy.types import Splits
from hwc_onnx.candidate import Candidate, assemble
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import AcceleratorProfile
from hwc_onnx.events import Event, Note, Phase
from hwc_onnx.export import file_bytes, write_model
from hwc_onnx.job.memory import repair_notes
from hwc_onnx.limits import Limits
from hwc_onnx.options import Options
from hwc_onnx.plan import REPAIRS, CalibrationRecord, CompressionPlan
from hwc_onnx.result import versions
from hwc_onnx.runfolder import RunFolder
from hwc_onnx.search.gate import Judging
from hwc_onnx.search.history import CLOSING, Record
from hwc_onnx.search.objective import Objective
from hwc_onnx.search.remembered import Remembered
from hwc_onnx.workspace import Opened, calibrate, metadata_of


class Job(Protocol):
    """What a run needs to know of the call that started it."""

    options: Options
    opened: Opened
    profile: AcceleratorProfile
    others: list[AcceleratorProfile]
    notes: list[str]
    output: Path

    def tell(self, event: Event) -> None:
        """Pass an event on."""


class Running:
    """What the steps of one run share: calibrated database, reference, INT8 baseline, and the best-so-far file."""

    def __init__(self, job: Job, folder: RunFolder, data: Data, splits: Splits) -> None:
        self.job, self.folder, self.splits = job, folder, splits
        self.options, self.opened, self.tell = job.options, job.opened, job.tell
        self.openings = 1  # of the holdout, for this search
        self.preprocess = dict(data.preprocess)
        self.source = data.source
        cache = (folder.path if self.options.from_run is None else Path(self.options.from_run)) / "cache"
        self.cost_model = CostModel(job.profile, cache_dir=cache, on_event=self.tell)
        self.repairs = served(REPAIRS, splits.real)
        self.tell(Phase("calibrate", f"{len(splits.calibration)} samples through the float model"))
        self.calibrated = calibrate(
            self.opened,
            splits.calibration,
            seed=self.options.split_seed,
            cache_dir=cache / "entries",
            lanes=self.options.lanes,
            portable=self.options.portable,
            dialect=self.options.dialect,
            repairs=self.repairs,
            on_event=self.tell,
        )
        shortened = repair_notes(self.opened.graph, len(splits.calibration), self.repairs, "sequential")
        for text in (*self.calibrated.calibration.remarks(), *shortened):
            self.tell(Note(text))
        self.reference = self._reference(splits)
        limit, relative = self.options.drop_limit
        self.limit_points = limit if math.isinf(limit) else self.reference.limit_points(limit, relative)

    @property
    def search_limits(self) -> Limits:
        """What the search accepts plans by, beside the drop; an energy that is the goal itself is none of it."""
        limits = self.options.limits
        return limits if self.options.energy_target is None else replace(limits, energy=None)

    def _reference(self, splits: Splits) -> Reference:
        self.tell(Phase("baseline", "measure the original and the INT8 baseline"))
        options = self.options
        reference = make_reference(self.opened.proto, splits.search, options.metric, task=options.task)
        for text in filter(None, (reference.reason, reference.note)):
            self.tell(Note(text))
        check_reference(reference, options.split_seed)
        built = self.calibrated.candidate(self.calibrated.baseline)
        self.baseline = replace(built, plan=self._complete(built.plan, False))
        return with_baseline(reference, self.baseline.proto)

    def objective(self) -> Objective:
        """What the search optimises; making it fills the layer database."""
        options = self.options
        return Objective(
            self.calibrated.proto,
            self.opened.graph,
            self.calibrated.database,
            self.cost_model,
            self.reference,
            limit_points=self.limit_points,
            baseline=self.calibrated.baseline,
            algorithms=options.pruning,
            weight_bits=options.weight_bits,
            activation_bits=options.activation_bits,
            first_last=options.first_last,
            include=options.include,
            exclude=options.exclude,
            lanes=options.lanes,
            dialect=options.dialect,
            portable=options.portable,
            limits=self.search_limits,
            seed=options.split_seed,
            calibration_samples=self.splits.calibration,
            repair=self.calibrated.repair,
            complete=lambda plan: self._complete(plan, False),
            judging=Judging(len(self.splits.holdout), "point" if isinstance(self.reference.metric, SessionMetric) else options.gate),
            remembered=Remembered(self.folder.path / "cache" / "probes.json"),
            on_event=self.tell,
        )

    def candidate(self, objective: Objective, record: Record) -> Candidate:
        """The model of a trial as it would be written, with its provenance."""
        refitted = _refitted(objective, record)
        stitched = objective.stitched(record.choices, refitted)
        plan = self._complete(stitched.plan, refitted)
        return assemble(self.calibrated.proto, self.opened.graph, replace(stitched, plan=plan))

    def plan(self, objective: Objective, record: Record) -> CompressionPlan:
        """The plan of a trial with its provenance, without what it achieved: `apply` works that out."""
        return self._complete(objective.plan_of(record.choices), _refitted(objective, record))

    def _complete(self, plan: CompressionPlan, refitted: bool) -> CompressionPlan:
        """The plan with its provenance, which does not depend on the search."""
        options = self.options
        record = CalibrationRecord(
            source=Path(self.source).name if isinstance(options.data, str | Path | None) else "python",
            samples=len(self.splits.calibration),
            split_seed=options.split_seed,
            digest=self.splits.calibration_digest,
            recovery="sequential" if refitted else "full",
            repairs=self.repairs,
        )
        return plan.model_copy(
            update={
                "source_digest": self.opened.loaded.digest,
                "calibration": record,
                "preprocess": self.preprocess,
                "code_version": versions().get("hwc-onnx", ""),
                "include": options.include,
                "exclude": options.exclude,
                "first_last": options.first_last,
                "constraints": options.constraints,
            }
        )

    def write_best(self, candidate: Candidate) -> int:
        """Replace best.onnx and its plan; the size of the file in bytes."""
        metadata = metadata_of(candidate.plan, self.opened, self.preprocess, self.provenance())
        written = write_model(candidate.proto, self.folder.path / "best.onnx", metadata)
        self.folder.write("plan.json", candidate.plan.to_json())
        return written.file_bytes

    def baseline_bytes(self) -> int:
        """Bytes of the INT8 baseline, were it written."""
        return file_bytes(self.baseline.proto, metadata_of(self.baseline.plan, self.opened, self.preprocess, self.provenance()))

    def provenance(self) -> dict[str, str]:
        """What every written file says of this run."""
        return {
            "hwc.version": versions().get("hwc-onnx", ""),
            "hwc.seed": str(self.options.seed),
            "hwc.accelerator": self.job.profile.digest(),
        }


def _refitted(objective: Objective, record: Record) -> bool:
    """Whether a trial measured its plan refitted layer after layer."""
    return record.origin == CLOSING and objective.refits
