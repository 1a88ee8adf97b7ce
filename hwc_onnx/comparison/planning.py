"""What a comparison would do, without doing it: inputs checked, one seed timed, the rest multiplied out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwc_onnx.accuracy.data_shapes import shapes_from_data
from hwc_onnx.comparison.comparing import check_jobs, options_of
from hwc_onnx.comparison.contest import Contest
from hwc_onnx.comparison.seed_run import SeedRun, SeedTask, config_of, finished_row
from hwc_onnx.events import Listener
from hwc_onnx.job.planning import described, estimated
from hwc_onnx.job.sampling import check_names, samples_of
from hwc_onnx.runfolder import RunState, state_of
from hwc_onnx.workspace import Model, open_float_model

PREPARED = ("calibration", "database")
"""Steps that are done once for a seed."""


def plan_comparison(
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
) -> dict[str, Any]:
    """What `hwc_onnx.compare` would do with the same arguments, and how long it would take (`compare --dry-run --json`).

    One seed's evaluation, refit, calibration and layer are timed on this machine and multiplied by the searches that have no row yet.
    Nothing is written. The answer lacks the `options` that the command adds.

    Raises:
        UsageError, HwcError: what `compare` would raise before its first search.
    """
    check_jobs(jobs)
    shared, contest = options_of(options), Contest(tuple(samplers), tuple(starts), seeds, trials)
    check_names(shared)
    name = open_float_model(model, shapes_from_data(model, shared.data, shared.input_shapes)).name
    place = Path(run_dir) if run_dir is not None else Path.cwd() / f"{name}.compare"
    first = SeedTask(model, replace(shared, trials=contest.budget), contest, 0, place / "seed-0")
    job = SeedRun(first, on_event)
    digests = {"model": job.opened.loaded.digest, "accelerator": job.profile.digest()}
    state = state_of(place, config_of(shared, contest, digests), fresh=fresh)
    data, splits = samples_of(job.opened, job.options, job.tell)
    if state is RunState.CONTINUES:
        state_of(first.folder, config_of(job.options, contest, digests | {"data": splits.digest}))
    tasks = [replace(first, seed=seed, folder=place / f"seed-{seed}") for seed in range(seeds)]
    missing = [sum(state is not RunState.CONTINUES or finished_row(task, *entry) is None for entry in contest.entries) for task in tasks]
    return {
        **described(job, data, splits),
        "run_dir": str(place),
        "run_state": state.value,
        "comparison": {
            "samplers": list(contest.samplers),
            "starts": list(contest.starts),
            "seeds": seeds,
            "trials": contest.budget,
            "searches": seeds * len(contest.entries),
            "finished": seeds * len(contest.entries) - sum(missing),
            "jobs": jobs,
        },
        "estimate": _together(estimated(job, splits), missing, jobs) if any(missing) else None,
    }


def _together(one: Mapping[str, Any], missing: Sequence[int], jobs: int) -> dict[str, Any]:
    """The estimate of one search, for all that are missing. A process of several has one thread, so that its steps are taken to last
    as many times longer as there were threads here.
    """
    seeds = sum(count > 0 for count in missing)
    pace = one["threads"] / min(jobs, seeds) if jobs > 1 else 1.0
    seconds = {
        name: value * pace * (seeds if name in PREPARED else sum(missing)) for name, value in one["seconds"].items() if name != "gate"
    }
    return {**one, "seconds": seconds, "total_s": sum(seconds.values()), "threads": 1 if jobs > 1 else one["threads"]}
