"""A plan carried out without a search: the same plan, model and data give the same bytes on one machine."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from hwc_onnx.accuracy.choose import check_declared
from hwc_onnx.accuracy.data_shapes import shapes_from_data
from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.reference import make_reference, with_baseline
from hwc_onnx.accuracy.sanity import doubts
from hwc_onnx.accuracy.signal import FEWEST
from hwc_onnx.accuracy.splits import calibration_size, make_splits
from hwc_onnx.accuracy.synthetic import served
from hwc_onnx.accuracy.types import Evaluation
from hwc_onnx.candidate import assemble
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.cost.types import ModelCost
from hwc_onnx.errors import UsageError
from hwc_onnx.events import Listener, Phase, Step, silent
from hwc_onnx.export import Written, file_bytes, serializable, write_model
from hwc_onnx.files import write_atomic
from hwc_onnx.graph.domains import obstacle_to_running
from hwc_onnx.graph.file_parts import file_parts, growth
from hwc_onnx.graph.layer_graph import FLOAT_BITS
from hwc_onnx.job.compression import check_output
from hwc_onnx.job.memory import repair_notes
from hwc_onnx.job.polishing import Polishing, judging, refitted
from hwc_onnx.job.unrunnable import with_weights_rounded
from hwc_onnx.plan import (
    RANGES,
    RECOVERIES,
    REPAIRS,
    CalibrationRecord,
    CompressionPlan,
    LayerConfig,
    check_plan,
    check_ratios,
    with_plan,
)
from hwc_onnx.polish import Polished
from hwc_onnx.pruning.table import WEIGHTS_ALONE
from hwc_onnx.quantization.dialects import get_dialect
from hwc_onnx.result import versions
from hwc_onnx.uniform import uniform
from hwc_onnx.workspace import (
    InputShapes,
    Model,
    Opened,
    calibrate,
    costs,
    load_samples,
    metadata_of,
    open_float_model,
    plan_from,
)

NOTICEABLE = 0.5
"""Points that are surely lost before `why` is recommended."""
POOR_SQNR = 20.0
"""dB, below which the difference is more than a tenth of the outputs."""
METRICS_IN_POINTS = {"top1", "top5", "agreement", "miou"}


@dataclass(frozen=True)
class Applied:
    """A plan carried out: the model, the plan with what it achieved, its costs and, with data, its drop.

    `polished` says what a polish cost and gained, None where there was none; `int8_bytes` is the size of the INT8 baseline's file.
    """

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
    polished: Polished | None = None
    int8_bytes: int | None = None

    def save(self, path: str | Path | None = None) -> Written:
        """Write the model; default `<stem>.hwc.onnx` in the current folder."""
        target = Path(path) if path is not None else Path.cwd() / f"{self.name}.hwc.onnx"
        check_output(target, self.source)
        return write_model(self.proto, target)

    def save_plan(self, path: str | Path) -> Path:
        """Write the plan as JSON."""
        write_atomic(Path(path), self.plan.to_json().encode(), "--save-plan")
        return Path(path)


def apply_plan(
    model: Model,
    *,
    plan: CompressionPlan | str | Path,
    data: Any = None,
    recovery: str | None = None,
    ranges: str | None = None,
    repairs: Collection[str] | None = None,
    power_of_two: bool | None = None,
    polish: bool | None = None,
    dialect: str | None = None,
    portable: bool | None = None,
    metric: Any = None,
    task: str | None = None,
    preset: str | None = None,
    accelerator: str | Path = "edge-flex",
    input_shapes: InputShapes = None,
    split_seed: int | None = None,
    output: str | Path | None = None,
    on_event: Listener | None = None,
) -> Applied:
    """Carry out a plan without searching; the same plan, model and data give the same bytes, on processors with the same
    instruction sets and with as many threads (sums of floats depend on both in their last digits).

    Args:
        model: the float model.
        plan: a CompressionPlan or a plan file.
        data: samples for ranges and recovery (synthetic inputs when None); its holdout measures the drop.
        recovery: "none" (rounding only), "ranges", "full" (each layer by itself) or "sequential" (each layer after those
            before it); default: the plan's own. A model with operators of foreign domains takes "none" only, and 16-bit
            activations: it is neither calibrated nor measured.
        ranges: how the range of each stored tensor is chosen: "minmax" (all values seen), "percentile" (0.01% cut off either
            tail), "mse" (least squared error) or "entropy" (least relative entropy); default: the plan's own.
        repairs: with recovery "full" or "sequential", which of "equalize" (channels scaled across layers to use their quantizers
            alike), "attention" (those of queries, keys and values too), "absorb" (channels moved into the biases behind them),
            "bias" (a layer's bias takes up the mean of what it gets wrong), "statistics" (means and spreads of channels mended
            across layers) and "normalizations" (BatchNormalizations that are no part of a layer mended too) are made; default: the plan's own, without "absorb" where the
            plan was never carried out and there is no data.
        power_of_two: whether all scales, of activations and of weights, are powers of two; default: the plan's own.
        polish: with recovery "full" or "sequential", whether layers of at most 4 weight bits are rounded up or down anew (AdaRound)
            where that measures better on samples of the search split; default: the plan's own.
        dialect: how quantization is written, for which runtime (docs/dialects.md); default: the plan's own.
        portable: whether 8-bit weights stay within +-63, for processors without wide dot products; default: the plan's own.
        metric, task, preset: as for `compress`; an INT8 baseline that the metric needs is built with the same repairs.
        accelerator: where the energy is computed.
        input_shapes: sizes of dynamic inputs.
        split_seed: which samples calibrate; default the plan's own.
        output: where the model will be saved; refused at once where nothing can be written (UsageError).
        on_event: hears what is being done (hwc_onnx/events.py).
    """
    tell = on_event or silent
    chosen = plan_from(plan)
    if dialect is not None:
        chosen = chosen.model_copy(update={"dialect": dialect})
    if portable is not None:
        chosen = chosen.model_copy(update={"portable": portable})
    measured = get_dialect(chosen.dialect).measured
    recovery = recovery or chosen.calibration.recovery
    if recovery not in RECOVERIES:
        raise UsageError(f"recovery: '{recovery}'; choose {', '.join(RECOVERIES)}")
    ranges = ranges or chosen.calibration.ranges
    if ranges not in RANGES:
        raise UsageError(f"ranges: '{ranges}'; choose {', '.join(RANGES)}")
    unknown = sorted(set(repairs or ()) - set(REPAIRS))
    if unknown:
        raise UsageError(f"repairs: '{unknown[0]}'; choose from {', '.join(REPAIRS)}, or none of them (none)")
    if repairs and recovery not in ("full", "sequential"):
        raise UsageError(f"repairs: recovery {recovery} makes none; choose recovery full or sequential, or leave repairs out")
    settled = repairs is not None or chosen.calibration.samples > 0
    repairs = tuple(name for name in REPAIRS if name in (chosen.calibration.repairs if repairs is None else repairs))
    powers = chosen.calibration.power_of_two if power_of_two is None else power_of_two
    if polish and recovery not in ("full", "sequential"):
        raise UsageError(f"polish: goes on from repaired layers, and recovery {recovery} repairs none; choose full or sequential")
    polish = (chosen.calibration.polish if polish is None else polish) and recovery in ("full", "sequential")
    input_shapes = shapes_from_data(model, data, input_shapes)
    opened = open_float_model(model, input_shapes, to_run=False).under(chosen.constraints)
    if output is not None:
        check_output(Path(output), opened.loaded.path)
    cost_model = CostModel(load_profile(accelerator), on_event=tell)
    notes: list[str] = [f"dialect {chosen.dialect}: {measured}"] if measured else []
    check_plan(opened.graph, chosen)
    check_ratios(opened.graph, chosen)
    if chosen.source_digest and chosen.source_digest != opened.loaded.digest:
        notes.append("the plan was made for another file; it fits this model's layers and is applied as it is")
    obstacle = obstacle_to_running(opened.proto)
    if obstacle is not None:
        return _without_running(opened, chosen, recovery, powers, cost_model, notes, obstacle)
    seed = chosen.calibration.split_seed if split_seed is None else split_seed
    loaded = load_samples("synthetic" if data is None else data, opened.proto, preset, input_shapes, seed=seed)
    check_declared(opened.proto, loaded, metric, task)
    splits = make_splits(loaded, seed, calibration_size(loaded, chosen.calibration.samples))
    recorded = chosen.calibration.digest
    if recorded and recorded != splits.calibration_digest:
        notes.append("the plan was made with other calibration samples: the file will differ from the one it came from")
    repairs = repairs if settled else served(repairs, splits.real)
    notes += [*loaded.notes, *splits.notes]
    if not splits.real:
        notes.append(
            f"{'no data given' if data is None else 'synthetic data'}: ranges and recovery come from {len(splits.calibration)} synthetic {loaded.unit}, the drop from "
            f"{len(splits.holdout)} others; real samples (--data) would be better"
        )
    tell(Phase("calibrate", f"{len(splits.calibration)} {loaded.unit} through the float model"))
    calibrated = calibrate(
        opened,
        splits.calibration,
        seed=seed,
        lanes=chosen.lanes,
        recovery="full" if recovery == "sequential" else recovery,
        portable=chosen.portable,
        dialect=chosen.dialect,
        moments=recovery in ("full", "sequential") or any(c.algorithm not in WEIGHTS_ALONE for c in chosen.layers.values()),
        ranges=ranges,
        repairs=repairs,
        power_of_two=powers,
        on_event=tell,
    )
    notes += calibrated.calibration.remarks() if calibrated.database.recovery == "full" else []
    notes += repair_notes(opened.graph, len(splits.calibration), repairs, recovery)
    record = CalibrationRecord(
        source=Path(loaded.source).name,
        samples=len(splits.calibration),
        split_seed=seed,
        digest=splits.calibration_digest,
        ranges=ranges,
        recovery=recovery,
        repairs=repairs,
        power_of_two=powers,
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
    # layers in float are not refitted: a plan of nothing else has its statistics mended instead
    if recovery == "sequential" and any(config.weight_bits < FLOAT_BITS for config in complete.layers.values()):
        tell(Phase("recover", "each layer by itself, then behind the compressed layers before it"))
        # a plan that was carried out so was judged then
        carried_out = chosen.calibration.samples > 0 and chosen.calibration.recovery == recovery
        judge = None if carried_out else judging(opened, calibrated, splits, metric, task)
        stitched, said = refitted(
            opened, calibrated, splits, complete, judge, lambda done, total, layer: tell(Step(done, total, layer))
        )
        notes += [said] if said else []
    else:
        tell(Phase("recover", "each layer by itself") if recovery == "full" else Phase("recover", f"{recovery}: no layer is repaired"))
        stitched = calibrated.stitch(complete)
    if polish:
        tell(Phase("polish", "round layers of few bits anew"))
    polished = Polishing(opened, calibrated, splits, metric, task)(stitched) if polish else None
    if polished is not None:
        stitched = polished.stitched
        notes.append(polished.note())
    candidate = assemble(calibrated.proto, opened.graph, stitched)
    unquantized, baseline, cost = costs(cost_model, opened, calibrated, candidate.plan)
    tell(Phase("measure", f"the original and the compressed model on {len(splits.holdout)} held-out {loaded.unit}"))
    heard = FEWEST if splits.real else 1  # a plan is carried out without data too, however little can be said of the outcome
    reference = make_reference(opened.proto, splits.holdout, metric, task=task, fewest_heard=heard)
    notes += [reference.note] if reference.note else []
    notes += doubts(reference, seed)
    if reference.needs_baseline:
        reference = with_baseline(reference, calibrated.candidate(calibrated.baseline).proto)
        notes.append(f"metric {reference.metric.name}: compared with the INT8 baseline, built with the same repairs")
    evaluation = measure(candidate.proto, reference, level="all")
    notes += _advice(evaluation, candidate.plan)
    version = {"hwc.version": complete.code_version}
    metadata = metadata_of(candidate.plan, opened, loaded.preprocess, version)
    made = serializable(candidate.proto, metadata)
    parts = file_parts(made, file_bytes(candidate.proto, metadata))
    grown = growth(opened.loaded.proto, opened.loaded.file_bytes, parts)
    notes += [] if grown is None else [grown]
    int8 = assemble(calibrated.proto, opened.graph, calibrated.database.stitch(calibrated.baseline))
    original = opened.loaded.path
    return Applied(
        made,
        candidate.plan,
        cost,
        baseline,
        unquantized,
        evaluation,
        tuple(notes),
        opened.name,
        cost_model.profile.name,
        opened.loaded.file_bytes,
        splits.real,
        original,
        polished,
        file_bytes(int8.proto, metadata_of(int8.plan, opened, loaded.preprocess, version)),
    )


def _advice(found: Evaluation, plan: CompressionPlan) -> list[str]:
    """What the user may not expect of the file, and what to do about a loss that is no chance."""
    said = []
    stored = get_dialect(plan.dialect).stored_bits
    widths = sorted({config.weight_bits for config in plan.layers.values()})
    wider = [f"{bits}-bit weights as INT{stored[bits]}" for bits in widths if stored.get(bits, bits) > bits]
    if wider:
        said.append(
            f"dialect {plan.dialect} stores {', '.join(wider)}: the file is larger than what an accelerator holds that packs them"
        )
    if math.isfinite(found.drop_points) and found.ci95[0] >= NOTICEABLE and METRICS_IN_POINTS & {found.metric}:
        said.append("`hwc-onnx why` with the same model, data and plan (or --uniform) says which layers lose it, and what helps")
    if found.metric == "sqnr" and found.value < POOR_SQNR:
        said.append(
            f"the outputs are at {found.value:.1f} dB from the original's, whatever INT8 does: `hwc-onnx why` with the same model, data "
            "and plan (or --uniform) says which layers make the difference"
        )
    return said


def _without_running(
    opened: Opened,
    plan: CompressionPlan,
    recovery: str,
    power_of_two: bool,
    cost_model: CostModel,
    notes: list[str],
    obstacle: str,
) -> Applied:
    """The weights of a model that ONNX Runtime cannot run, rounded; there is no drop, and activations count as dense."""
    where = f"{opened.loaded.path or 'model'}: {obstacle}"
    version = versions().get("hwc-onnx", "")
    complete = plan.model_copy(
        update={
            "source_digest": opened.loaded.digest,
            "achieved": {},
            "activation_density": {},
            "calibration": CalibrationRecord(recovery="none", power_of_two=power_of_two),
            "preprocess": {},
            "code_version": version,
        }
    )
    candidate = with_weights_rounded(opened, complete, recovery, where)
    int8 = uniform(opened.graph, LayerConfig())
    baseline, cost = (cost_model.cost(with_plan(opened.graph, which)) for which in (int8, candidate.plan))
    return Applied(
        serializable(candidate.proto, metadata_of(candidate.plan, opened, {}, {"hwc.version": version})),
        candidate.plan,
        cost,
        baseline,
        cost_model.cost(opened.graph),
        None,
        (*notes, f"{obstacle}: weights are rounded, nothing is calibrated, and neither drop nor file is checked by a run"),
        opened.name,
        cost_model.profile.name,
        opened.loaded.file_bytes,
        False,
        opened.loaded.path,
    )
