"""Every search of one seed: one data split, prepared once, and one study for each sampler and start.

The seed picks the data split and seeds the samplers. No study sees another's trials, energies or refitted weights: each gets
an objective of its own, and pays for calibration and the damage table on its own budget although both are made once. What
a calibration alone decides (the layer database) is shared. A finished row is a file; a study that was cut short goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwc_onnx.accuracy.data_shapes import shapes_from_data
from hwc_onnx.accuracy.measure import measure_paired
from hwc_onnx.accuracy.reference import Reference, make_reference, with_baseline
from hwc_onnx.accuracy.types import Splits
from hwc_onnx.comparison.contest import Contest, check_budget, folder_name
from hwc_onnx.comparison.rows import Delivered, cut, row_of
from hwc_onnx.cost.profile import AcceleratorProfile, load_profile
from hwc_onnx.events import Event, Listener, Note, Phase
from hwc_onnx.files import write_atomic
from hwc_onnx.job.running import Running
from hwc_onnx.job.sampling import samples_of
from hwc_onnx.options import Options
from hwc_onnx.result import versions
from hwc_onnx.runfolder import RunFolder
from hwc_onnx.search.gate import MOST_LOOKS, Gate
from hwc_onnx.search.history import History
from hwc_onnx.search.ladder import Ladder
from hwc_onnx.search.objective import Objective
from hwc_onnx.search.seeds import Start
from hwc_onnx.search.study import run_search
from hwc_onnx.workspace import Model, open_float_model


@dataclass(frozen=True)
class SeedTask:
    """What one seed's searches need, as it is sent to a process. `folder` is the seed's own run folder."""

    model: Model
    options: Options
    contest: Contest
    seed: int
    folder: Path


@dataclass(frozen=True)
class SeedResult:
    """Rows in the order of `Contest.entries`, what was said on the way, and whether the samples were real."""

    rows: list[dict[str, Any]]
    notes: list[str]
    real: bool


def row_file(task: SeedTask, sampler: str, start: str) -> Path:
    """Where the finished row of a study is kept."""
    return task.folder / folder_name(sampler, start) / "row.json"


def finished_row(task: SeedTask, sampler: str, start: str) -> dict[str, Any] | None:
    """A row of an earlier call, None where there is none or its file is damaged."""
    try:
        row = json.loads(row_file(task, sampler, start).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(row, dict) or (row.get("sampler"), row.get("start")) != (sampler, start):
        return None
    return row if "delivered_reduction_vs_int8" in row else None  # of an earlier version: its trials are there and are judged again


def run_seed(task: SeedTask, on_event: Listener | None = None) -> SeedResult:
    """All rows of a seed (the errors of its parts; KeyboardInterrupt where a search was interrupted)."""
    return SeedRun(task, on_event).run()


def config_of(options: Options, contest: Contest, digests: Mapping[str, str]) -> dict[str, Any]:
    """What a continued comparison must share; samplers, starts and seeds may be added to it."""
    own = {"sampler", "seed", "split_seed", "trials", "timeout", "gate", "polish", "jobs"}
    plain = options.config(digests["model"], digests.get("data", ""), digests["accelerator"])
    kept = {name: value for name, value in plain.items() if name not in own}
    if "data" not in digests:
        del kept["data_sha256"]
    return kept | {"comparison": True, "budget": contest.budget, "versions": versions()}


class SeedRun:
    """The job behind `run_seed`; a `Job` for the steps that it shares with `compress`."""

    profile: AcceleratorProfile

    def __init__(self, task: SeedTask, on_event: Listener | None) -> None:
        shapes = shapes_from_data(task.model, task.options.data, task.options.input_shapes)
        self.task, self.contest = task, task.contest
        self.options = replace(task.options, input_shapes=shapes, seed=task.seed, split_seed=task.seed)
        self.notes: list[str] = []
        self.others: list[AcceleratorProfile] = []
        self._listener = on_event
        self.profile = load_profile(self.options.accelerator)
        self.opened = open_float_model(task.model, self.options.input_shapes).under(self.options.constraints)
        self.output = task.folder

    def tell(self, event: Event) -> None:
        """Pass an event on; notes are kept."""
        if isinstance(event, Note):
            self.notes.append(event.text)
        if self._listener is not None:
            self._listener(event)

    def run(self) -> SeedResult:
        """Load, prepare where a row is missing, search, judge."""
        data, splits = samples_of(self.opened, self.options, self.tell)
        digests = {
            "model": self.opened.loaded.digest,
            "data": splits.digest,
            "accelerator": self.profile.digest(),
        }
        with RunFolder(self.task.folder, config_of(self.options, self.contest, digests)) as folder:
            rows = {entry: finished_row(self.task, *entry) for entry in self.contest.entries}
            if any(row is None for row in rows.values()):
                running = Running(self, folder, data, splits)
                holdout = self._holdout(running, splits)
                for entry, row in rows.items():
                    if row is None:
                        rows[entry] = self._search(running, holdout, *entry)
        return SeedResult([row for row in rows.values() if row is not None], self.notes, splits.real)

    def _holdout(self, running: Running, splits: Splits) -> Reference:
        made = make_reference(
            self.opened.proto, splits.holdout, running.reference.metric, task=self.options.task
        )
        return with_baseline(made, running.baseline.proto)

    def _search(self, running: Running, holdout: Reference, sampler: str, start: Start) -> dict[str, Any]:
        """One study and its row."""
        budget, seed = self.contest.budget, self.task.seed
        self.tell(Phase("search", f"{sampler}, start {start}, seed {seed}: {budget} evaluation-equivalents"))
        objective = running.objective()
        size = objective.search_size
        check_budget(budget, start, objective.setup_forwards / size)
        path = row_file(self.task, sampler, start)
        folder = path.parent
        folder.mkdir(exist_ok=True)
        found = run_search(
            objective,
            sampler=sampler,
            start=start,
            trials=budget,
            image_forwards=budget * size,
            patience=0,
            seed=seed,
            storage_path=folder / "study.journal",
            on_event=self.tell,
        )
        if found.stopped_by == "interrupted":
            raise KeyboardInterrupt
        kept = cut(found.history, objective, budget)
        delivered, drops = self._delivered(running, objective, holdout, kept.history)
        drop = None
        if kept.best is not None:
            drop = drops.get(kept.best.number)
            if drop is None:
                drop = measure_paired(running.candidate(objective, kept.best).proto, holdout).evaluation.drop_points
        chosen = kept.best if delivered is None else delivered.record
        if chosen is not None:
            plan = running.candidate(objective, chosen).plan
            write_atomic(folder / "plan.json", plan.to_json().encode(), "--run-dir")
        row = row_of(
            (sampler, start, seed),
            kept,
            budget,
            running.limit_points,
            metric=running.reference.metric.name,
            seconds=found.seconds,
            stopped_by=found.stopped_by,
            holdout_drop=drop,
            delivered=delivered,
        ).payload()
        write_atomic(path, (json.dumps(row, allow_nan=False) + "\n").encode(), "--run-dir")
        return row

    def _delivered(
        self, running: Running, objective: Objective, holdout: Reference, history: History
    ) -> tuple[Delivered | None, dict[int, float]]:
        """What the gate of `compress` lets pass of these trials, None where it refuses the safest of them, and the drops on the holdout
        in points that it saw, by trial. Plans are run as the search runs them, not at each level of optimisation.
        """
        finalists = Ladder.of(history, objective.start, objective.judging).climbed(MOST_LOOKS)
        expected = [record.outcome for record in finalists]
        gate = Gate.choose(None, holdout, running.limit_points, expected=expected, seed=self.task.seed)
        candidates = [running.candidate(objective, record).proto for record in finalists]
        chosen, looks = replace(gate, levels=("fake_quant",)).walk(candidates)
        drops = {record.number: look.evaluation.drop_points for record, look in zip(finalists, looks, strict=False)}
        return (None if chosen is None else Delivered(finalists[chosen], looks[chosen].evaluation.drop_points)), drops
