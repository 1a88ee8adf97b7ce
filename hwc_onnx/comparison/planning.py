"""What a comparison would do, without doing it: inputs checked, one seed timed, the rest multiplied out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwc_onnx.comparison.comparing import options_of
from hwc_onnx.comparison.contest import Contest
from hwc_onnx.comparison.seed_run import SeedTask, config_of, row_file
from hwc_onnx.events import Listener
from hwc_onnx.job.compression import Compression
from hwc_onnx.job.planning import described, estimated
from hwc_onnx.job.sampling import samples_of
from hwc_onnx.runfolder import RunState, state_of
from hwc_onnx.workspace import Model

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

    One seed's evaluation, refit, calibration and layer are timed on this machine; seconds of all searches that have no row
    yet are divided by the processes. Nothing is written.

    Raises:
        UsageError, HwcError: what `compare` would raise before its first search.
    """
    shared, contest = options_of(options), Contest(tuple(samplers), tuple(starts), seeds, trials)
    own = replace(shared, sampler=contest.samplers[0], trials=contest.budget, seed=0, split_seed=0)
    job = Compression(model, own, on_event=on_event)
    place = Path(run_dir) if run_dir is not None else Path.cwd() / f"{job.opened.name}.compare"
    digests = {"model": job.opened.loaded.digest, "accelerator": job.profile.digest()}
    state = state_of(place, config_of(shared, contest, digests), fresh=fresh)
    missing = _missing([SeedTask(model, shared, contest, seed, place / f"seed-{seed}") for seed in range(seeds)], state)
    data, splits = samples_of(job.opened, own, job.tell)
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


def _missing(tasks: Sequence[SeedTask], state: RunState) -> list[int]:
    """How many searches of each seed have no row yet."""
    kept = state is RunState.CONTINUES
    return [sum(not (kept and row_file(task, *entry).is_file()) for entry in task.contest.entries) for task in tasks]


def _together(one: Mapping[str, Any], missing: Sequence[int], jobs: int) -> dict[str, Any]:
    """The estimate of one search, for all that are missing; the holdout is looked at once for each."""
    seeds, side = sum(count > 0 for count in missing), min(jobs, sum(count > 0 for count in missing))
    seconds = {
        name: value * (seeds if name in PREPARED else sum(missing)) / side for name, value in one["seconds"].items() if name != "gate"
    }
    return {**one, "seconds": seconds, "total_s": sum(seconds.values())}
