"""Everything that the command line does, as one call each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.measure import measure, measure_against, measure_alone
from hwc_onnx.accuracy.pool import Data
from hwc_onnx.accuracy.reference import make_reference, with_baseline
from hwc_onnx.accuracy.runner import input_specs
from hwc_onnx.accuracy.splits import make_splits
from hwc_onnx.accuracy.types import Evaluation, Samples
from hwc_onnx.candidate import assemble, build
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.cost.types import ModelCost
from hwc_onnx.errors import DataError, PlanError, UsageError
from hwc_onnx.events import Listener
from hwc_onnx.export import Written, serializable, write_model
from hwc_onnx.files import write_atomic
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.job.compression import Compression, check_output
from hwc_onnx.options import Options
from hwc_onnx.plan import RECOVERIES, CalibrationRecord, CompressionPlan, check_plan, with_plan
from hwc_onnx.rebuild import rebuild
from hwc_onnx.result import Result, versions
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.verification import VerifyReport
from hwc_onnx.verification import verify as verify_file
from hwc_onnx.workspace import (
    InputShapes,
    Model,
    calibrate,
    costs,
    float_densities,
    metadata_of,
    open_float_model,
    open_model,
)


def compress(
    model: Model,
    *,
    output: str | Path | None = None,
    run_dir: str | Path | None = None,
    resume: bool | None = None,
    fresh: bool = False,
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
        on_event: hears the records of `hwc_onnx.events`.
        **options: fields of `hwc_onnx.options.Options`: `data`, `accelerator`, `max_drop` (points or "1%"),
            `max_energy` (share of the INT8 baseline), `max_latency` (s), `max_bytes` (file), `metric`, `task`, `preset`,
            `sampler`, `trials`, `timeout` (s), `seed`, `split_seed`, `gate`, `weight_bits`, `activation_bits`,
            `algorithms`, `granularity`, `lanes`, `dialect`, `portable`, `first_last`, `include`, `exclude`,
            `input_shapes`, `calibration_samples`, `search_samples`, `compare_accelerators`.

    Raises:
        HwcError: the input is refused, or the runtime fails; what was finished stays in the run folder.
    """
    try:
        resolved = Options(**options)
    except TypeError as error:
        raise UsageError(f"compress: {error}; see hwc_onnx.options.Options for what can be set") from error
    return Compression(
        model, resolved, output=output, run_dir=run_dir, fresh=fresh, resume=resume, on_event=on_event
    ).run()


@dataclass(frozen=True)
class ProfileResult:
    """The cost of one model on one accelerator, with the INT8 and unquantized network beside it.

    `densities` says where the shares of zero activations come from: nowhere (all count as dense), the given samples, or
    the compressed file, which records them.
    """

    cost: ModelCost
    baseline: ModelCost
    float_cost: ModelCost
    graph: LayerGraph
    accelerator: str
    seconds: float
    densities: Literal["dense", "measured", "recorded"] = "dense"

    def to_json(self) -> dict[str, Any]:
        """The content of `profile --json`."""
        from hwc_onnx.report.payloads import profile_payload

        return profile_payload(
            self.accelerator, self.cost, self.baseline, self.float_cost, self.seconds, self.densities
        )

    def to_table(self) -> str:
        """The table that `hwc-onnx profile` prints."""
        from hwc_onnx.report.console import tables_text
        from hwc_onnx.report.profile_table import profile_tables

        return tables_text(profile_tables([self.to_json()]))


def profile(
    model: Model,
    *,
    accelerator: str | Path = "edge-flex",
    data: Any = None,
    input_shapes: InputShapes = None,
    plan: CompressionPlan | str | Path | None = None,
) -> ProfileResult:
    """Energy, latency and traffic per node of a float or compressed model.

    Args:
        model: path or ModelProto.
        accelerator: profile name or YAML file.
        data: samples to measure activation densities on; without them a float model's activations count as dense, and
            a compressed file's densities are those recorded in it.
        input_shapes: sizes of dynamic inputs.
        plan: cost the model as this plan would leave it, without building it.
    """
    opened = open_model(model, input_shapes)
    started = time.perf_counter()
    cost_model = CostModel(load_profile(accelerator))
    graph = opened.graph
    stored = {name for group in graph.activation_groups for name in group.tensors} if opened.quantized else set()
    recorded = {name: graph.tensors[name].density for name in sorted(stored) if graph.tensors[name].density < 1.0}
    densities = dict(recorded)
    unquantized = _as_float(graph) if opened.quantized else graph
    if data is not None and not opened.quantized:
        loaded = _load(data, opened.proto, None, input_shapes)
        calibrated = calibrate(opened, make_splits(loaded).calibration, seed=0)
        densities = calibrated.baseline.activation_density
        unquantized = float_densities(graph, calibrated.database)
        graph = unquantized
    if plan is not None:
        chosen = _plan(plan)
        check_plan(graph, chosen)
        graph = with_plan(graph, chosen)
    int8 = uniform(opened.graph, parse_spec("w8a8")).model_copy(update={"activation_density": densities})
    baseline = cost_model.cost(with_plan(opened.graph, int8))
    cost, float_cost = cost_model.cost(graph), cost_model.cost(unquantized)
    name = load_profile(accelerator).name
    origin: Literal["dense", "measured", "recorded"] = "recorded" if recorded else "dense"
    if data is not None and not opened.quantized:
        origin = "measured"
    return ProfileResult(cost, baseline, float_cost, graph, name, time.perf_counter() - started, origin)


def inspect(model: Model, *, input_shapes: InputShapes = None) -> LayerGraph:
    """Layers, channel groups, activation groups and what is not modelled."""
    return open_model(model, input_shapes).graph


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
    opened = open_model(model, input_shapes)
    loaded = _load(data, opened.loaded.proto, preset, input_shapes, opened.preprocess)
    samples = loaded.holdout.samples() if loaded.holdout is not None else loaded.pool.samples()
    if against is None:
        return measure_alone(opened.loaded.proto, samples, metric, task=task)
    original = open_model(against, input_shapes)
    return measure_against(opened.loaded.proto, original.loaded.proto, samples, metric, task=task)


@dataclass(frozen=True)
class Applied:
    """A plan carried out: the model, the plan with what it achieved, its costs and, with data, its drop."""

    proto: onnx.ModelProto
    plan: CompressionPlan
    cost: ModelCost
    baseline: ModelCost
    float_cost: ModelCost
    evaluation: Evaluation | None
    notes: tuple[str, ...]
    name: str
    accelerator: str
    original_bytes: int
    real_data: bool
    source: Path | None = None

    def save(self, path: str | Path | None = None) -> Written:
        """Write the model; default `<stem>.hwc.onnx` in the current folder."""
        target = Path(path) if path is not None else Path.cwd() / f"{self.name}.hwc.onnx"
        check_output(target, self.source)
        return write_model(self.proto, target)

    def save_plan(self, path: str | Path) -> Path:
        """Write the plan as JSON."""
        write_atomic(Path(path), self.plan.to_json().encode())
        return Path(path)


def apply_plan(
    model: Model,
    *,
    plan: CompressionPlan | str | Path,
    data: Any = None,
    recovery: str | None = None,
    metric: Any = None,
    task: str | None = None,
    preset: str | None = None,
    accelerator: str | Path = "edge-flex",
    input_shapes: InputShapes = None,
    split_seed: int | None = None,
) -> Applied:
    """Carry out a plan without searching; the same plan, model and data give the same bytes.

    Args:
        model: the float model.
        plan: a CompressionPlan or a plan file.
        data: samples for ranges and recovery (synthetic inputs when None); its holdout measures the drop.
        recovery: "none" (rounding only), "ranges", "full" (each layer by itself) or "sequential" (each layer after those
            before it); default: the plan's own.
        metric, task, preset: as for `compress`; an INT8 baseline that the metric needs is built with the same repairs.
        accelerator: where the energy is computed.
        input_shapes: sizes of dynamic inputs.
        split_seed: which samples calibrate; default the plan's own.
    """
    chosen = _plan(plan)
    recovery = recovery or chosen.calibration.recovery
    if recovery not in RECOVERIES:
        raise UsageError(f"recovery: '{recovery}'; choose {', '.join(RECOVERIES)}")
    opened = open_float_model(model, input_shapes)
    notes: list[str] = []
    check_plan(opened.graph, chosen)
    if chosen.source_digest and chosen.source_digest != opened.loaded.digest:
        notes.append("the plan was made for another file; it fits this model's layers and is applied as it is")
    loaded = _load("synthetic" if data is None else data, opened.proto, preset, input_shapes)
    seed = chosen.calibration.split_seed if split_seed is None else split_seed
    splits = make_splits(loaded, seed)
    recorded = chosen.calibration.digest
    if recorded and recorded != splits.digest:
        notes.append("the plan was made with other calibration samples: the file will differ from the one it came from")
    if not splits.real:
        notes.append(
            "no data given: ranges and recovery come from synthetic images; real samples (--data) would be better"
        )
    calibrated = calibrate(
        opened,
        splits.calibration,
        seed=seed,
        lanes=chosen.lanes,
        recovery="full" if recovery == "sequential" else recovery,
        portable=chosen.portable,
        dialect=chosen.dialect,
    )
    record = CalibrationRecord(
        source=loaded.source, samples=len(splits.calibration), split_seed=seed, digest=splits.digest, recovery=recovery
    )
    complete = chosen.model_copy(
        update={
            "source_digest": opened.loaded.digest,
            "achieved": {},
            "activation_density": {},
            "calibration": record,
            "preprocess": dict(loaded.preprocess),
            "code_version": versions().get("hwc-onnx", ""),
        }
    )
    database = calibrated.database
    if recovery == "sequential":
        stitched = rebuild(opened.proto, opened.graph, complete, database, splits.calibration)
    else:
        stitched = database.stitch(complete)
    candidate = assemble(opened.proto, opened.graph, stitched)
    cost_model = CostModel(load_profile(accelerator))
    unquantized, baseline, cost = costs(cost_model, opened, calibrated, candidate.plan)
    reference = make_reference(opened.proto, splits.holdout, metric, task=task)
    if reference.needs_baseline:
        reference = with_baseline(reference, build(opened.proto, opened.graph, database, calibrated.baseline).proto)
        notes.append(f"metric {reference.metric.name}: compared with the INT8 baseline, built with the same repairs")
    evaluation = measure(candidate.proto, reference, level="all")
    metadata = metadata_of(candidate.plan, opened, loaded.preprocess, {"hwc.version": complete.code_version})
    original = opened.loaded.path
    return Applied(
        serializable(candidate.proto, metadata),
        candidate.plan,
        cost,
        baseline,
        unquantized,
        evaluation,
        tuple(notes),
        opened.name,
        cost_model.profile.name,
        original.stat().st_size if original is not None else opened.loaded.proto.ByteSize(),
        splits.real,
        original,
    )


def uniform_plan(
    model: Model,
    spec: str,
    *,
    first_last: str = "keep",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    input_shapes: InputShapes = None,
    note: Callable[[str], None] = lambda _: None,
) -> CompressionPlan:
    """One setting for every layer that can take it, such as "w4a8,fine=magnitude:0.5"; `note` hears what was left out."""
    config = parse_spec(spec)
    opened = open_float_model(model, input_shapes)
    return uniform(
        opened.graph, config, first_last=first_last, include=tuple(include), exclude=tuple(exclude), note=note
    )


def verify(
    compressed: Model,
    *,
    against: Model,
    data: Any = None,
    accelerator: str | Path | None = "edge-flex",
    preset: str | None = None,
) -> VerifyReport:
    """Check a written file against its original with ONNX Runtime; failed checks are in the report."""
    samples: Samples | None = None
    if data is not None:
        opened = open_model(compressed)
        loaded = _load(data, opened.loaded.proto, preset, None, opened.preprocess)
        pool = loaded.holdout if loaded.holdout is not None else loaded.pool
        samples = pool.samples(np.arange(min(len(pool), 1024)))
    return verify_file(compressed, against, samples, load_profile(accelerator) if accelerator is not None else None)


def _load(
    data: Any,
    proto: onnx.ModelProto,
    preset: str | None,
    input_shapes: InputShapes,
    recorded: Mapping[str, object] | None = None,
) -> Data:
    """Samples for the model's inputs; `recorded` is the preparation stored in a file of ours."""
    return load_data(
        data, input_specs(proto), preset=preset, input_shapes=input_shapes, stored=recorded or None, model=proto
    )


def _plan(plan: CompressionPlan | str | Path) -> CompressionPlan:
    if isinstance(plan, CompressionPlan):
        return plan
    if isinstance(plan, str | Path):
        return CompressionPlan.load(plan)
    raise PlanError(f"plan: {type(plan).__name__}; give a CompressionPlan or the path of a plan.json")


def _as_float(graph: LayerGraph) -> LayerGraph:
    """The same network with every operand at 16 bits and no weight known to be zero."""
    tensors = {name: replace(info, bits=16) for name, info in graph.tensors.items()}
    layers = tuple(
        replace(
            layer,
            weight_bits=16,
            activation_bits=16,
            output_bits=16,
            weight_density=1.0,
            nm_pattern=None,
            algorithm="none",
        )
        for layer in graph.layers
    )
    return replace(graph, tensors=tensors, layers=layers)
