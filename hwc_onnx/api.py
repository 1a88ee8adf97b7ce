"""Everything that the command line does, as one call each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwc_onnx.accuracy.data_shapes import shapes_from_data
from hwc_onnx.accuracy.measure import measure_against, measure_alone
from hwc_onnx.accuracy.types import Evaluation, Samples
from hwc_onnx.comparison.comparing import Comparison, compare
from hwc_onnx.comparison.planning import plan_comparison
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.data_check import DataCheck, check_data
from hwc_onnx.diagnosis.sensitivity import sensitivity
from hwc_onnx.diagnosis.sensitivity_result import Sensitivity
from hwc_onnx.diagnosis.why import Why, why
from hwc_onnx.errors import DataError, UsageError
from hwc_onnx.events import Listener, silent
from hwc_onnx.fixing import Fixed, fix
from hwc_onnx.graph.constraints import constraints_of
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.job.applying import Applied, apply_plan
from hwc_onnx.job.compression import Compression
from hwc_onnx.job.planning import work_plan
from hwc_onnx.options import Options
from hwc_onnx.plan import CompressionPlan
from hwc_onnx.profiling import ProfileResult, profile
from hwc_onnx.result import Result
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.verification import VerifyReport
from hwc_onnx.verification import verify as verify_file
from hwc_onnx.workspace import (
    InputShapes,
    Model,
    load_samples,
    open_float_model,
    open_model,
)

Bounds = tuple[float, float]

__all__ = [
    "Applied",
    "Comparison",
    "DataCheck",
    "Fixed",
    "ProfileResult",
    "Sensitivity",
    "Why",
    "apply_plan",
    "check_data",
    "compare",
    "compress",
    "evaluate",
    "fix",
    "inspect",
    "plan_comparison",
    "plan_work",
    "profile",
    "sensitivity",
    "uniform_plan",
    "verify",
    "why",
]


def compress(
    model: Model,
    *,
    output: str | Path | None = None,
    run_dir: str | Path | None = None,
    resume: bool | None = None,
    fresh: bool = False,
    run_dir_limit: int | None = None,
    on_event: Listener | None = None,
    **options: Any,
) -> Result:
    """Search for the plan that costs an accelerator least energy within an accuracy limit, and write the model.

    Args:
        model: path or ModelProto of a float model.
        output: the compressed file; default `<stem>.hwc.onnx` in the current folder.
        run_dir: run folder; default `<stem>.hwc` beside the output.
        resume: True demands an existing run folder.
        fresh: move an existing run folder aside.
        run_dir_limit: bytes that the run folder may take; its cache gives way, used longest ago first.
        on_event: hears the records of `hwc_onnx.events`.
        **options: fields of `hwc_onnx.options.Options`: `data`, `accelerator`, `max_drop` (points or "1%"),
            `objective` ("energy", or "drop": the least within `max_energy`), `max_energy` (share of the INT8 baseline),
            `max_latency` (s), `max_bytes` (file), `max_memory` (weights and activations), `metric`, `task`, `preset`,
            `sampler`, `policy` (file, or "pretrained"), `trials`, `timeout` (s), `seed`, `split_seed`, `gate`, `weight_bits`, `activation_bits`,
            `algorithms`, `granularity`, `lanes`, `min_channels` and `ratio_bounds` (for all layers, or by pattern),
            `keep_heads`, `dialect`, `portable`, `polish`, `first_last`, `include`, `exclude`, `input_shapes`,
            `calibration_samples`, `search_samples`, `compare_accelerators`, `from_run` (folder of a finished run, whose trials
            are judged in place of a search).

    Raises:
        HwcError: the input is refused, or the runtime fails; what was finished stays in the run folder.
    """
    job = _job(
        model, options, output=output, run_dir=run_dir, fresh=fresh, resume=resume, run_dir_limit=run_dir_limit, on_event=on_event
    )
    result = job.run()
    if result.figures is not None:
        from hwc_onnx.report.page import write_pages

        write_pages(job.run_dir, result.figures, job.profile)
    return result


def plan_work(
    model: Model,
    *,
    output: str | Path | None = None,
    run_dir: str | Path | None = None,
    resume: bool | None = None,
    fresh: bool = False,
    run_dir_limit: int | None = None,
    on_event: Listener | None = None,
    **options: Any,
) -> dict[str, Any]:
    """What `compress` would do with the same arguments, and how long it would take: the content of `compress --dry-run --json`.

    Inputs are read and checked, the float model and the INT8 baseline are timed on some samples; nothing is written.

    Raises:
        HwcError: what `compress` would raise before its search.
    """
    job = _job(
        model, options, output=output, run_dir=run_dir, fresh=fresh, resume=resume, run_dir_limit=run_dir_limit, on_event=on_event
    )
    return work_plan(job)


def _job(model: Model, options: Mapping[str, Any], **more: Any) -> Compression:
    try:
        resolved = Options(**options)
    except TypeError as error:
        raise UsageError(f"compress: {error}; see hwc_onnx.options.Options for what can be set") from error
    return Compression(model, resolved, **more)


def inspect(model: Model, *, data: Any = None, input_shapes: InputShapes = None) -> LayerGraph:
    """Layers, channel groups, activation groups and what is not modelled.

    Sizes that the model leaves open come from `input_shapes`, else from the arrays in `data`.
    """
    return open_model(model, shapes_from_data(model, data, input_shapes)).graph


def evaluate(
    model: Model,
    *,
    data: Any,
    against: Model | None = None,
    metric: Any = None,
    task: str | None = None,
    preset: str | None = None,
    input_shapes: InputShapes = None,
) -> Evaluation:
    """The metric of a model on all samples of `data` (its holdout where it has one), or the paired drop from `against`.

    A file written by hwc-onnx prepares samples as recorded in it, unless `preset` or the data say otherwise. `metric` may
    be a callable on an `onnxruntime.InferenceSession`; with `against`, `cosine` is the default in place of `sqnr`.

    Raises:
        DataError: no data, or data that does not fit.
        UsageError: `sqnr` was asked for with `against`.
    """
    if data is None:
        raise DataError("evaluate: no samples; give them with --data")
    input_shapes = shapes_from_data(model, data, input_shapes)
    opened = open_model(model, input_shapes)
    loaded = load_samples(data, opened.loaded.proto, preset, input_shapes, opened.preprocess)
    samples = loaded.holdout.samples() if loaded.holdout is not None else loaded.pool.samples()
    if against is None:
        return measure_alone(opened.loaded.proto, samples, metric, task=task)
    original = open_model(against, input_shapes)
    return measure_against(opened.loaded.proto, original.loaded.proto, samples, metric, task=task)


def uniform_plan(
    model: Model,
    spec: str,
    *,
    first_last: str = "keep",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    lanes: int = 1,
    min_channels: int | Mapping[str, int] | None = None,
    ratio_bounds: Bounds | Mapping[str, Bounds] | None = None,
    keep_heads: bool = False,
    input_shapes: InputShapes = None,
    data: Any = None,
    note: Callable[[str], None] = lambda _: None,
) -> CompressionPlan:
    """One setting for every layer that can take it, such as "w4a8,fine=magnitude:0.5"; `note` hears what was left out.

    Args:
        model: the float model.
        spec: w<bits>a<bits>, then optionally fine=<algorithm>:<ratio> or coarse=<algorithm>:<ratio>.
        first_last: "keep" leaves network inputs and the last layer's input at 8 bits, "free" does not.
        include, exclude: patterns of the layers that take the setting: a glob, `re:` and a regular expression, or an operator.
        lanes: channels are kept in multiples of this.
        min_channels: fewest output channels that layers keep: a count, or counts by pattern.
        ratio_bounds: lowest and highest ratio, or such pairs by pattern; the nearest ratio within them is taken.
        keep_heads: leave every attention head.
        input_shapes: sizes that the model leaves open; default: those of the arrays in `data`.

    Raises:
        UsageError: the setting, a pattern or a constraint is refused.
    """
    config = parse_spec(spec)
    constraints = constraints_of(min_channels, ratio_bounds, keep_heads)
    opened = open_float_model(model, shapes_from_data(model, data, input_shapes), to_run=False)
    return uniform(
        opened.under(constraints).graph,
        config,
        first_last=first_last,
        include=tuple(include),
        exclude=tuple(exclude),
        lanes=lanes,
        constraints=constraints,
        note=note,
    )


def verify(
    compressed: Model,
    *,
    against: Model,
    data: Any = None,
    accelerator: str | Path | None = "edge-flex",
    preset: str | None = None,
    input_shapes: InputShapes = None,
    max_difference: float | None = None,
    on_event: Listener | None = None,
) -> VerifyReport:
    """Check a written file against its original with ONNX Runtime; failed checks are in the report.

    With `max_difference` the outputs must not differ by more on `data` (root mean square, as a share of the original's).

    Its `capabilities` say where the file runs: ONNX Runtime's four levels, OpenVINO and qonnx where they are installed, and
    which of TensorRT's published rules it keeps. `on_event` hears how many mappings are found, where that takes long.
    """
    samples: Samples | None = None
    if data is not None:
        input_shapes = shapes_from_data(compressed, data, input_shapes)
        opened = open_model(compressed, input_shapes)
        loaded = load_samples(data, opened.loaded.proto, preset, input_shapes, opened.preprocess)
        pool = loaded.holdout if loaded.holdout is not None else loaded.pool
        samples = pool.samples(np.arange(min(len(pool), 1024)))
    profile = load_profile(accelerator) if accelerator is not None else None
    return verify_file(
        compressed,
        against,
        samples,
        profile,
        input_shapes=input_shapes,
        everywhere=True,
        most_different=max_difference,
        on_event=on_event or silent,
    )
