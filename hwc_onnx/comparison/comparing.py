"""A whole comparison: its folder, its seeds one after the other or side by side, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwc_onnx.accuracy.data_shapes import shapes_from_data
from hwc_onnx.comparison.contest import Contest
from hwc_onnx.comparison.processes import in_processes
from hwc_onnx.comparison.seed_run import SeedResult, SeedTask, config_of, row_file, run_seed
from hwc_onnx.comparison.summary import summarize
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.errors import UsageError
from hwc_onnx.events import Listener, Phase, Step
from hwc_onnx.job.sampling import check_names
from hwc_onnx.options import Options
from hwc_onnx.result import versions
from hwc_onnx.runfolder import RunFolder
from hwc_onnx.workspace import Model, open_float_model


@dataclass(frozen=True)
class Comparison:
    """What a comparison found; `payload` is what `compare --json` prints (`compare.schema.json`)."""

    payload: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One for each search: by seed, then in the order of starts and samplers."""
        return list(self.payload["rows"])

    @property
    def summary(self) -> dict[str, Any]:
        """Quartiles of each strategy, tests and the verdict."""
        return dict(self.payload["summary"])

    def to_json(self) -> dict[str, Any]:
        """The content of `compare --json`."""
        return self.payload

    def to_table(self) -> str:
        """The tables that `hwc-onnx compare` prints."""
        from hwc_onnx.report.compare_table import compare_tables
        from hwc_onnx.report.console import tables_text

        return tables_text(compare_tables(self.payload))

    def save_figure(self, path: str | Path) -> Path:
        """Write the best saving so far of each strategy as an HTML page (UsageError when that fails)."""
        from hwc_onnx.report.compare_figure import write_compare_figure
        from hwc_onnx.report.profile_figure import checked_path

        page = checked_path(str(path))
        write_compare_figure(page, self.payload)
        return page


NOT_SHARED = ("sampler", "seed", "split_seed", "timeout", "gate", "polish", "compare_accelerators", "objective", "from_run")
"""Options of `compress` that are compared, that follow a search, or that ask for something else than least energy."""


def options_of(given: Mapping[str, Any]) -> Options:
    """What all studies share, from options as `compress` takes them (UsageError)."""
    for name in NOT_SHARED:
        if name in given:
            raise UsageError(f"compare: {name} cannot be set; see hwc_onnx.compare for what can")
    try:
        return Options(**given)
    except TypeError as error:
        raise UsageError(f"compare: {error}; see hwc_onnx.options.Options for what can be set") from error


def check_jobs(jobs: int) -> None:
    """Refuse no process (UsageError)."""
    if jobs < 1:
        raise UsageError(f"--jobs: {jobs}; at least 1 process is needed")


def compare(
    model: Model,
    *,
    samplers: Sequence[str] = ("composite", "knapsack", "random"),
    starts: Sequence[Any] = ("seeds",),
    seeds: int = 5,
    trials: int = 200,
    jobs: int = 1,
    run_dir: str | Path | None = None,
    fresh: bool = False,
    on_event: Listener | None = None,
    **options: Any,
) -> Comparison:
    """Search strategies against each other: the same model, data, first plans and budget, over several seeds.

    Args:
        model: path or ModelProto of a float model.
        samplers: strategies; the others are compared with `composite` if it is among them, else with the first.
        starts: "seeds" (the first plans of `compress`), "cold" (the INT8 baseline alone), or both.
        seeds: how many: each picks a data split and seeds the samplers.
        trials: budget of each study: evaluations, or images through the network / search samples, preparation included.
        jobs: processes, each with one thread; a script that asks for several needs `if __name__ == "__main__":`.
        run_dir: folder of the comparison; default `<stem>.compare` in the current folder. The same call goes on there.
        fresh: move an existing folder aside.
        on_event: hears the records of `hwc_onnx.events`; with several processes only how many searches are done.
        **options: what `compress` takes, apart from what is compared and what follows a search: not `sampler`, `seed`,
            `split_seed`, `timeout`, `gate`, `polish`, `compare_accelerators`.

    Raises:
        UsageError: what cannot be compared, no process, a folder of something else or in use.
        HwcError: what `compress` refuses; finished trials and rows stay in the folder.
        KeyboardInterrupt: a search was interrupted; they stay there too.
    """
    shared, contest = options_of(options), Contest(tuple(samplers), tuple(starts), seeds, trials)
    check_jobs(jobs)
    check_names(shared)
    profile = load_profile(shared.accelerator)
    shapes = shapes_from_data(model, shared.data, shared.input_shapes)
    opened = open_float_model(model, shapes).under(shared.constraints)
    place = Path(run_dir) if run_dir is not None else Path.cwd() / f"{opened.name}.compare"
    digests = {"model": opened.loaded.digest, "accelerator": profile.digest()}
    with RunFolder(place, config_of(shared, contest, digests), fresh=fresh):
        tasks = [SeedTask(model, shared, contest, seed, place / f"seed-{seed}") for seed in range(contest.seeds)]
        found = _each(tasks, jobs, on_event)
    rows = [row for seed in found for row in seed.rows]
    payload = {
        "schema": 1,
        "model": {"path": str(opened.loaded.path) if opened.loaded.path else None, "sha256": opened.loaded.digest},
        "accelerator": {"name": profile.name, "sha256": profile.digest()},
        "data": "real" if all(seed.real for seed in found) else "synthetic",
        "metric": rows[0]["metric"],
        "max_drop": str(shared.max_drop),
        "run_dir": str(place),
        "rows": rows,
        "summary": summarize(rows, contest),
        "notes": list(dict.fromkeys(text for seed in found for text in seed.notes)),
        "versions": versions(),
    }
    return Comparison(payload)


def _each(tasks: Sequence[SeedTask], jobs: int, on_event: Listener | None) -> list[SeedResult]:
    """The result of every seed, in order."""
    if jobs == 1:
        return [run_seed(task, on_event) for task in tasks]
    rows = [row_file(task, *entry) for task in tasks for entry in task.contest.entries]
    tell = on_event if on_event is not None else lambda _: None

    def waiting() -> None:
        tell(Step(sum(path.is_file() for path in rows), len(rows), "searches done"))

    tell(Phase("compare", f"{len(rows)} searches of {len(tasks)} seeds in {min(jobs, len(tasks))} processes"))
    found = dict(in_processes(run_seed, tasks, jobs, waiting))
    return [found[position] for position in range(len(tasks))]
