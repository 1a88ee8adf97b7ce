"""What a compression would do, without doing it: inputs checked, the float model and INT8 timed, the rest worked out from that.

The estimate covers what is timed: running calibration samples, building and evaluating one candidate, refitting one plan, and
the looks at the holdout at the pace of the evaluation. The layer database is timed on one layer and extended to the others by
weights x inputs of each weight, the cost of its solves; it is the roughest part, and said apart.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.pool import Data
from hwc_onnx.accuracy.reference import Reference, make_reference, with_baseline
from hwc_onnx.accuracy.runner import usable_threads
from hwc_onnx.accuracy.sanity import check_reference
from hwc_onnx.accuracy.synthetic import served
from hwc_onnx.accuracy.types import Splits
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import AcceleratorProfile
from hwc_onnx.errors import UsageError
from hwc_onnx.events import Event, Note, Phase
from hwc_onnx.graph.layer_graph import Layer
from hwc_onnx.graph.pruned import pattern_of
from hwc_onnx.graph.selection import selected
from hwc_onnx.job.beforehand import expectations
from hwc_onnx.job.rewards import rewards, unsearched_patterns
from hwc_onnx.job.sampling import samples_of
from hwc_onnx.options import Options
from hwc_onnx.plan import REPAIRS, LayerConfig
from hwc_onnx.pruning.table import granularity
from hwc_onnx.rebuild import rebuild
from hwc_onnx.runfolder import RunState, state_of
from hwc_onnx.search.closing import reserved
from hwc_onnx.search.gate import MOST_LOOKS
from hwc_onnx.search.layer_table import LayerTable
from hwc_onnx.uniform import uniform
from hwc_onnx.workspace import Calibrated, Opened, calibrate

if TYPE_CHECKING:
    from hwc_onnx.job.compression import Compression


class Job(Protocol):
    """What is described and timed: a compression, or one seed of a comparison."""

    options: Options
    opened: Opened
    profile: AcceleratorProfile
    notes: list[str]

    def tell(self, event: Event) -> None:
        """Pass an event on."""

TIMED_SAMPLES = 512
"""Evaluations are timed on so many samples at most."""
CALIBRATED_SAMPLES = (64, 192)
"""Calibration is timed with few and with more samples, which tells what it costs once from what each sample costs."""
LEVELS = 2
"""Levels of graph optimisation that a plan is judged at on the holdout."""


@dataclass(frozen=True)
class Timing:
    """Seconds that were measured, and what of."""

    float_seconds: float
    building_seconds: float
    candidate_seconds: float
    refit_seconds: float
    timed_samples: int
    calibration_seconds: tuple[float, float]
    calibrated_samples: tuple[int, int]
    layer: str
    layer_seconds: float
    layer_share: float


def work_plan(job: Compression) -> dict[str, Any]:
    """Check everything that a run would check before its search, and estimate its time; nothing is written.

    The answer is the content of `compress --dry-run --json` (`dry-run.schema.json`) without `options`, which the command adds.

    Raises:
        HwcError: what the run itself would raise: refused data, a model at chance, a run folder with other inputs.
    """
    options = job.options
    data, splits = samples_of(job.opened, options, job.tell)
    state = state_of(job.run_dir, job.record(splits), fresh=job.fresh, resume=job.resume)
    begins = job.earlier is None and state is not RunState.CONTINUES
    return {
        **described(job, data, splits, warned=job.earlier is None),
        "output": str(job.output),
        "run_dir": str(job.run_dir),
        "run_state": state.value,
        "search": {"sampler": options.sampler, "trials": options.trials, "timeout_s": options.timeout, "seed": options.seed},
        "estimate": estimated(job, splits) if begins else None,
    }


def described(job: Job, data: Data, splits: Splits, warned: bool = True) -> dict[str, Any]:
    """What is searched, on which samples, and what the accelerator rewards (the errors of a run before its search); `warned` of what
    stands in the way of a search.
    """
    options, opened = job.options, job.opened
    reference = make_reference(opened.proto, splits.search, options.metric, task=options.task)
    for text in filter(None, (reference.reason, reference.note)):
        job.tell(Note(text))
    check_reference(reference, options.split_seed)
    unsearched = unsearched_patterns(job.profile, options)
    bounds = rewards(opened.graph, options, CostModel(job.profile, on_event=job.tell))
    limit, relative = options.drop_limit
    chosen = selected(opened.graph, options.include, options.exclude)
    layers = [layer for layer in opened.graph.layers if layer.weight is not None]
    return {
        "schema": 1,
        "model": {
            "path": None if opened.loaded.path is None else str(opened.loaded.path),
            "nodes": len(opened.graph.nodes),
            "layers": len(layers),
            "searched_layers": sum(layer.key in chosen for layer in layers),
            "channel_groups": len(opened.graph.channel_groups),
            "locked_groups": sum(group.locked_because is not None for group in opened.graph.channel_groups),
            "macs": sum(layer.macs for layer in opened.graph.layers),
            "weights": sum(layer.params for layer in layers),
        },
        "data": {
            "source": data.source,
            "real": splits.real,
            "calibration": len(splits.calibration),
            "search": len(splits.search),
            "holdout": len(splits.holdout),
            "preprocess": {name: _plain(value) for name, value in data.preprocess.items()},
        },
        "metric": {"name": reference.metric.name, "original": reference.value},
        "accelerator": job.profile.name,
        "rewards": {"single": dict(bounds.single), "together": bounds.together},
        "warnings": expectations(opened.proto, opened.graph, options, bounds, job.profile.name) if warned else [],
        "limits": {
            "objective": options.objective,
            "drop": None if not np.isfinite(limit) else f"{100 * limit:g}%" if relative else limit,
            **options.limits.given(),
        },
        "algorithms": list(options.pruning),
        "notes": [*job.notes, *([unsearched] if unsearched is not None else [])],
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _time(job: Job, splits: Splits) -> Timing:
    """Run the float model and a candidate on some samples, refit a plan, and make one layer's entries."""
    job.tell(Phase("time", "one evaluation of the float model and of a candidate, one refit and one layer of the database"))
    options, opened = job.options, job.opened
    some = splits.search.take(slice(0, TIMED_SAMPLES))
    started = time.perf_counter()
    reference = make_reference(opened.proto, some, options.metric, task=options.task)
    float_seconds = time.perf_counter() - started
    fitted = splits.calibration.take(slice(0, CALIBRATED_SAMPLES[0]))
    calibrations = [_calibrated(job, splits, most) for most in CALIBRATED_SAMPLES]
    calibrated = calibrations[0]
    building, candidate_seconds = _time_candidate(job, calibrated, reference)
    started = time.perf_counter()
    rebuild(calibrated.proto, opened.graph, calibrated.baseline, calibrated.database, fitted)
    refit_seconds = time.perf_counter() - started
    layer = _middle(job)
    table = LayerTable(calibrated.database, opened.graph, options.pruning, options.weight_bits)
    started = time.perf_counter()
    table.prepare([layer.key], [], options.activation_bits, [])
    seconds = time.perf_counter() - started
    share = _work(layer) / sum(_work(other) for other in _searched(job))
    few, more = calibrations
    return Timing(
        float_seconds,
        building,
        candidate_seconds,
        refit_seconds,
        len(reference),
        (few.seconds, more.seconds),
        (few.calibration.samples, more.calibration.samples),
        layer.key,
        seconds,
        share,
    )


def _calibrated(job: Job, splits: Splits, samples: int) -> Calibrated:
    options = job.options
    return calibrate(
        job.opened,
        splits.calibration.take(slice(0, samples)),
        seed=options.split_seed,
        lanes=options.lanes,
        portable=options.portable,
        dialect=options.dialect,
        repairs=served(REPAIRS, splits.real),
    )


def _time_candidate(job: Job, calibrated: Calibrated, reference: Reference) -> tuple[float, float]:
    """Seconds to build a plan whose layers the database knows, as it does in a search, and to evaluate it."""
    options = job.options
    reference = with_baseline(reference, calibrated.candidate(calibrated.baseline).proto)
    plan = uniform(
        job.opened.graph,
        LayerConfig(
            weight_bits=max(options.weight_bits[0], min(4, options.weight_bits[1])),
            activation_bits=options.activation_bits[1],
            **_pruning(options.pruning),
        ),
        include=options.include,
        exclude=options.exclude,
        lanes=options.lanes,
        constraints=options.constraints,
    ).model_copy(update={"dialect": options.dialect, "portable": options.portable})
    calibrated.candidate(plan)  # its layers count as the database's work
    started = time.perf_counter()
    candidate = calibrated.candidate(plan)
    building = time.perf_counter() - started
    measure(candidate.proto, reference)
    return building, time.perf_counter() - started - building


def _pruning(algorithms: Sequence[str]) -> dict[str, Any]:
    """A setting of the costliest fine-grained algorithm that may be used."""
    fine = [name for name in algorithms if granularity(name) == "fine" and pattern_of(name) is None]
    return {"algorithm": "obs" if "obs" in fine else fine[0], "ratio": 0.5} if fine else {}


def _searched(job: Job) -> list[Layer]:
    chosen = selected(job.opened.graph, job.options.include, job.options.exclude)
    found = [layer for layer in job.opened.graph.layers if layer.weight is not None and layer.key in chosen]
    if not found:
        raise UsageError("--include and --exclude leave no layer with weights to compress; loosen one of them")
    return found


def _middle(job: Job) -> Layer:
    """The searched layer below which, in order of cost, half of the whole cost lies: many small ones cost little together."""
    ordered = sorted(_searched(job), key=_work)
    sums = np.cumsum([_work(layer) for layer in ordered])
    return ordered[int(np.searchsorted(sums, sums[-1] / 2))]


def _work(layer: Layer) -> float:
    """Solves take time in proportion to the weights and to the inputs that each output adds up."""
    return layer.params * float(np.prod(layer.weight_shape[1:], dtype=np.float64))


def estimated(job: Job, splits: Splits) -> dict[str, Any]:
    """Seconds by step, with what they are based on: timed here and now."""
    timing = _time(job, splits)
    each = timing.candidate_seconds / timing.timed_samples
    options = job.options
    trials = options.trials
    refits = reserved(trials)
    search = trials * (timing.building_seconds + each * len(splits.search))
    limited = search if options.timeout is None else min(search, options.timeout)
    gate = MOST_LOOKS * LEVELS * each * len(splits.holdout)
    (first, second), (few, more) = timing.calibration_seconds, timing.calibrated_samples
    rate = max(second - first, 0.0) / (more - few) if more > few else 0.0
    calibration = second + rate * (len(splits.calibration) - more)
    database = timing.layer_seconds / timing.layer_share
    steps: Mapping[str, float] = {"calibration": calibration, "database": database, "search": limited, "refits": refits * timing.refit_seconds, "gate": gate}
    return {
        "seconds": dict(steps),
        "total_s": sum(steps.values()),
        "threads": usable_threads(),
        "basis": {
            "float_evaluation_s": timing.float_seconds,
            "building_s": timing.building_seconds,
            "candidate_evaluation_s": timing.candidate_seconds,
            "refit_s": timing.refit_seconds,
            "refits": refits,
            "samples": timing.timed_samples,
            "calibration_s": list(timing.calibration_seconds),
            "calibration_samples": list(timing.calibrated_samples),
            "layer": timing.layer,
            "layer_s": timing.layer_seconds,
            "layer_share": timing.layer_share,
        },
    }
