"""The main job: prepare, search, judge on the holdout, write and verify.

Anything finished is kept: `best.onnx` in the run folder is always a valid file (at first the INT8 baseline), the study
is a journal, and only the final gate writes the output.
"""

from __future__ import annotations

import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hwc_onnx.accuracy.data_shapes import shapes_from_data
from hwc_onnx.accuracy.metrics import unit_of
from hwc_onnx.accuracy.types import Splits
from hwc_onnx.cleaning import shrink
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.errors import UsageError
from hwc_onnx.events import Event, Listener, Note, Phase, TrialDone
from hwc_onnx.files import write_atomic
from hwc_onnx.job.beforehand import expectations, start_of
from hwc_onnx.job.finished import finished
from hwc_onnx.job.record import record
from hwc_onnx.job.resolving import Earlier, resolve
from hwc_onnx.job.rewards import rewards, unsearched_patterns
from hwc_onnx.job.running import Running
from hwc_onnx.job.sampling import check_names, samples_of
from hwc_onnx.job.steps import recovery_steps
from hwc_onnx.job.verdict import judge, write_output
from hwc_onnx.options import Options
from hwc_onnx.result import Result
from hwc_onnx.runfolder import RunFolder
from hwc_onnx.search.objective import Objective
from hwc_onnx.search.strategy import check_policy, check_sampler
from hwc_onnx.search.study import SearchResult, run_search
from hwc_onnx.workspace import Model, open_float_model


class Compression:
    """One run of the main job. `run()` does it; the attributes are what its steps hand on."""

    def __init__(
        self,
        model: Model,
        options: Options,
        *,
        output: str | Path | None = None,
        run_dir: str | Path | None = None,
        fresh: bool = False,
        resume: bool | None = None,
        run_dir_limit: int | None = None,
        on_event: Listener | None = None,
    ) -> None:
        shapes = shapes_from_data(model, options.data, options.input_shapes)
        self.options = options = replace(options, input_shapes=shapes)
        self.notes: list[str] = []
        self._listener = on_event
        if run_dir_limit is not None and run_dir_limit < 1:
            raise UsageError(f"run_dir_limit: {run_dir_limit} bytes; a folder takes some, or leave the limit out")
        self._room = run_dir_limit
        self._owns_folder = False
        self.tell(Phase("load", "load, normalize and parse the model"))
        check_names(options)
        check_sampler(options.sampler)
        policy = check_policy(options.sampler, options.policy)
        self._policy = None if policy is None else policy.digest
        self.profile = load_profile(options.accelerator)
        self.others = [load_profile(name) for name in options.compare_accelerators]
        self.opened = open_float_model(model, options.input_shapes).under(options.constraints)
        self.earlier = None if options.from_run is None else Earlier(Path(options.from_run))
        if self.earlier is not None and output is None:
            raise UsageError("--from-run writes a second file: name it with -o, so that the first one stays")
        self.output = Path(output) if output is not None else Path.cwd() / f"{self.opened.name}.hwc.onnx"
        # the default folder beside a model's first file is that of its search
        name = self.opened.name if self.earlier is None else self.output.name.removesuffix(".onnx").removesuffix(".hwc")
        self.run_dir = Path(run_dir) if run_dir is not None else self.output.parent / f"{name}.hwc"
        if self.earlier is not None and self.run_dir.resolve() == self.earlier.path.resolve():
            raise UsageError(f"--from-run {self.earlier.path}: is this run's own folder; give another file with -o, or --run-dir")
        check_output(self.output, self.opened.loaded.path)
        self.fresh, self.resume = fresh, resume

    def tell(self, event: Event) -> None:
        """Pass an event on; notes are kept for the result, and what was evaluated must find room."""
        if isinstance(event, TrialDone | Phase):
            self._make_room()
        if isinstance(event, Note):
            self.notes.append(event.text)
        if self._listener is not None:
            self._listener(event)

    def run(self) -> Result:
        """Everything, in order (the errors of its parts)."""
        data, splits = samples_of(self.opened, self.options, self.tell)
        config = self.record(splits)
        with RunFolder(self.run_dir, config, fresh=self.fresh, resume=self.resume, call=self._call()) as folder:
            self._owns_folder = True
            earlier = finished(folder.path, self.output, self.options.trials, self.opened, self.profile)
            if earlier is not None:
                self.tell(Note(f"{folder.path} holds this run, finished; its result follows (--fresh starts anew)"))
                return earlier
            if folder.continued:
                self.tell(Note(f"continues the run in {folder.path}: what it measured is kept (--fresh starts anew)"))
            result = self._finish(Running(self, folder, data, splits))
            self._make_room()
            return result

    def _make_room(self) -> None:
        """Keep the run folder below its limit, as far as its cache can give way."""
        if self._room is not None and self._owns_folder:
            shrink(self.run_dir, limit=self._room, unfinished=False)

    def record(self, splits: Splits) -> dict[str, Any]:
        """What the run is known by (UsageError where an earlier run whose trials are asked for is another's)."""
        config = self.options.config(self.opened.loaded.digest, splits.digest, self.profile.digest())
        config["policy"] = self._policy
        if self.earlier is not None:
            self.earlier.check(config)
            config["from_run"] = self.earlier.digest()
        return config

    def _call(self) -> dict[str, Any]:
        """The arguments of `hwc_onnx.compress` that repeat this run in its folder."""
        options = {field.name: getattr(self.options, field.name) for field in fields(self.options) if field.name != "jobs"}
        model = self.opened.loaded.path or self.opened.loaded.proto
        return {
            "model": model,
            "output": self.output,
            "run_dir": self.run_dir,
            "run_dir_limit": self._room,
        } | options

    def _finish(self, run: Running) -> Result:
        """Search, judge, write, verify, record."""
        if not all((run.folder.path / name).is_file() for name in ("best.onnx", "plan.json")):
            run.write_best(run.baseline)  # a continued run already has something as good
        self._warn(run)
        self.tell(Phase("database", "what each layer becomes under each setting, and how much that matters"))
        started = time.perf_counter()
        objective = run.objective()
        if not objective.units:
            self.tell(
                Note(
                    "there is nothing to choose: no layer, channel group or tensor may be changed under these options and locks "
                    "(`inspect` names them), so INT8 is all that is measured",
                    warning=True,
                )
            )
        database_seconds = run.calibrated.seconds + time.perf_counter() - started
        found = self._search(run, objective) if self.earlier is None else self._resolve(run, objective, self.earlier)
        self.tell(Phase("gate", f"judge the best plans on {len(run.splits.holdout)} holdout samples"))
        verdict = judge(run, objective, found)
        written = write_output(run, verdict)
        steps = [] if verdict.kind != "compressed" or verdict.candidate is None else recovery_steps(run, verdict.candidate, verdict.gate.holdout)
        return record(run, objective, verdict, written, found, database_seconds, steps)

    def _warn(self, run: Running) -> None:
        """Say beforehand where the accelerator rewards nothing of what is searched, and which limits are out of reach."""
        if self.earlier is not None:
            return
        bounds = rewards(self.opened.graph, self.options, run.cost_model)
        for text in expectations(self.opened.proto, self.opened.graph, self.options, bounds, self.profile.name):
            self.tell(Note(text, warning=True))
        unsearched = unsearched_patterns(self.profile, self.options)
        if unsearched is not None:
            self.tell(Note(unsearched))

    def _search(self, run: Running, objective: Objective) -> SearchResult:
        options = self.options
        self.tell(Phase("search", f"{options.sampler}, at most {options.trials} evaluations"))
        return run_search(
            objective,
            sampler=options.sampler,
            trials=options.trials,
            seed=options.seed,
            start=start_of(options.sampler),
            storage_path=run.folder.path / "study.journal",
            timeout=options.timeout,
            policy=options.policy,
            energy_target=options.energy_target,
            on_event=lambda event: self._hear(event, run),
            on_incumbent=lambda best: run.write_best(run.candidate(objective, best)),
        )

    def _hear(self, event: Event, run: Running) -> None:
        """Pass an event of the search on; where INT8 itself breaks the limit, say so at once and not after all trials."""
        self.tell(event)
        first = isinstance(event, TrialDone) and event.evaluations == 1
        if first and isinstance(event, TrialDone) and event.drop_points > run.limit_points:
            unit = unit_of(run.reference.metric.name)
            self.tell(
                Note(
                    f"INT8 without pruning already loses {event.drop_points:.2f} {unit} on the search samples, beyond the limit of "
                    f"{run.limit_points:.2f}: unless some plan loses less than INT8, the original will be written unchanged; real samples "
                    "(--data) or a wider --max-drop may be needed",
                    warning=True,
                )
            )

    def _resolve(self, run: Running, objective: Objective, earlier: Earlier) -> SearchResult:
        """The trials of an earlier run instead of a search; its holdout is about to be opened once more."""
        self.tell(Phase("search", f"none: the trials of {earlier.path} are judged by other limits"))
        found = resolve(run, objective, earlier)
        if found.best is not None:
            run.write_best(run.candidate(objective, found.best))
        run.openings = earlier.open_holdout(f"drop {run.limit_points} points, {self.options.limits.given()}")
        self.tell(
            Note(
                f"with this the holdout of that search is opened {run.openings} times: a verdict by the upper bound is wrong in at most "
                f"5% of cases, any of {run.openings} in at most {min(5 * run.openings, 100)}%",
                warning=True,
            )
        )
        return found


def check_output(path: Path, source: Path | None) -> None:
    """Refuse an output that could not be written, or that would replace the model (UsageError)."""
    if source is not None and path.resolve() == source.resolve():
        raise UsageError(f"{path}: is the model itself; name another file with -o")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file with -o")
    probe = path.with_name(f".{path.name}.probe")
    try:
        write_atomic(probe, b"")
    except UsageError as error:
        raise UsageError(str(error).replace(str(probe), str(path))) from error
    probe.unlink()
