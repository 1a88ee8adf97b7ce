"""What every long call prepares: the model in normal form, its data, its accelerator and the calibrated layer database."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from hwc_onnx.accuracy.collector import Calibration, collect
from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.pool import Data
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.candidate import Candidate, assemble
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.types import ModelCost
from hwc_onnx.database import LayerDatabase, Stitched
from hwc_onnx.equalization import KINDS, Equalized, equalize
from hwc_onnx.errors import ModelError, PlanError
from hwc_onnx.events import Listener, silent
from hwc_onnx.graph.bodies import inner_layers
from hwc_onnx.graph.constraints import Constraints, constrained
from hwc_onnx.graph.domains import obstacle_to_running
from hwc_onnx.graph.fixed_inputs import deciding_inputs
from hwc_onnx.graph.infer import input_shapes_of
from hwc_onnx.graph.layer_graph import FLOAT_BITS, LayerGraph
from hwc_onnx.graph.loading import Loaded, load_model
from hwc_onnx.graph.op_kinds import GATES, LAYER_OPS
from hwc_onnx.graph.open_sizes import settle_open_sizes
from hwc_onnx.graph.parse import DENSITY_KEY, PATTERN_KEY, parse, with_densities
from hwc_onnx.graph.read_qdq import BITS_KEY
from hwc_onnx.graph.zero_pattern import claim_of
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.plan import REPAIRS, CompressionPlan, LayerConfig, with_plan, zeros_of
from hwc_onnx.quantization.dialects import get_dialect
from hwc_onnx.rewrite.insert_qdq import Purpose
from hwc_onnx.statistics_repair import StatisticsRepair
from hwc_onnx.uniform import uniform
from hwc_onnx.verification import SOURCE_KEY

PREPROCESS_KEY = "hwc.preprocess"
"""Metadata: JSON of how samples are prepared, so that `evaluate` does the same."""

InputShapes = Mapping[str, Sequence[int]] | None
Model = str | Path | onnx.ModelProto


@dataclass(frozen=True)
class Opened:
    """A model as it was given and in normal form, with its layer graph."""

    loaded: Loaded
    proto: onnx.ModelProto
    graph: LayerGraph

    @property
    def name(self) -> str:
        """The file's stem, or the graph's name."""
        return self.loaded.path.stem if self.loaded.path is not None else self.proto.graph.name or "model"

    def under(self, constraints: Constraints) -> Opened:
        """The same model with a graph that says what the constraints leave (UsageError)."""
        return replace(self, graph=constrained(self.graph, constraints))

    @property
    def quantized(self) -> bool:
        """Whether the file already carries quantizers."""
        weights = any(layer.weight is not None and layer.weight_bits < FLOAT_BITS for layer in self.graph.layers)
        return weights or any(info.bits < FLOAT_BITS for info in self.graph.tensors.values())

    @property
    def preprocess(self) -> dict[str, object]:
        """The preparation of samples recorded in the file, empty when there is none."""
        stored = {entry.key: entry.value for entry in self.loaded.proto.metadata_props}.get(PREPROCESS_KEY)
        try:
            found = json.loads(stored) if stored else {}
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def open_model(model: Model, input_shapes: InputShapes = None) -> Opened:
    """Load, normalize and parse (ModelError when any of it is refused).

    Open sizes that `input_shapes` does not settle are found from the constants where only one fits.
    """
    loaded = load_model(model)
    if not input_shapes:
        settle_open_sizes(loaded.proto)
    proto = normalize(loaded.proto, input_shapes)
    graph = replace(parse(proto, input_shapes), source_digest=loaded.digest)
    return Opened(loaded, proto, graph)


def open_float_model(model: Model, input_shapes: InputShapes = None, *, to_run: bool = True) -> Opened:
    """As `open_model`, for a model that is to be compressed.

    Raises:
        ModelError: no layer has weights, the file is already quantized, so that these have lost what recovery needs, or, where
            it is `to_run`, it has operators of a domain that ONNX Runtime does not implement, so that it cannot be calibrated.
    """
    opened = open_model(model, input_shapes)
    if not any(layer.weight is not None for layer in opened.graph.layers):
        inside = sum(layer.weight is not None for layer in inner_layers(opened.graph))
        choosing = deciding_inputs(opened.loaded.proto)
        if choosing:
            raise ModelError(
                f"{opened.loaded.path or 'model'}: its layers are inside an If, and input {', '.join(choosing)} chooses the branch; "
                f"settle that with `hwc-onnx fix MODEL {' '.join(f'--input {name}=VALUE' for name in choosing)} -o FILE`, and "
                "compress the file that it writes (inspect and profile take this one as it is)"
            )
        raise ModelError(
            f"{opened.loaded.path or 'model'}: none of its {len(opened.graph.nodes)} nodes is a layer with constant weights "
            f"({', '.join(sorted((*LAYER_OPS, *GATES)))}); there is nothing to compress (inspect and profile take it as it is)"
            + (
                f"; the {inside} inside its If, Loop and Scan nodes are costed and not compressed: export the branch that is "
                "deployed as a model of its own"
                if inside
                else ""
            )
        )
    obstacle = obstacle_to_running(opened.proto)
    if to_run and obstacle is not None:
        raise ModelError(
            f"{opened.loaded.path or 'model'}: {obstacle}, so the model cannot be run to calibrate it (inspect and profile "
            "take it as it is, apply can round its weights); cut the model around this operator, or give the operator as a "
            "local function"
        )
    if opened.quantized:
        tool = any(entry.key == BITS_KEY for entry in opened.loaded.proto.metadata_props)
        raise ModelError(
            f"{opened.loaded.path or 'model'}: already quantized{' by hwc-onnx' if tool else ''}; compress the float model "
            "that it was made from (profile, evaluate and verify take this file as it is)"
        )
    return opened


@dataclass(frozen=True)
class Calibrated:
    """The layer database of one model and calibration split, the INT8 baseline's plan and how long it took.

    `proto` is the model that the database describes: equalized, where that was asked for, and of the same function as the
    normalised one. `repair` mends stitched plans, None where channel statistics are left alone.
    """

    proto: onnx.ModelProto
    graph: LayerGraph
    database: LayerDatabase
    calibration: Calibration
    baseline: CompressionPlan
    repair: StatisticsRepair | None
    seconds: float

    def stitch(self, plan: CompressionPlan) -> Stitched:
        """`plan` from the database, with mended channel statistics (PlanError)."""
        stitched = self.database.stitch(plan)
        return stitched if self.repair is None else self.repair(stitched)

    def candidate(self, plan: CompressionPlan, purpose: Purpose = "file") -> Candidate:
        """The model of `plan` (PlanError)."""
        return assemble(self.proto, self.graph, self.stitch(plan), purpose)


def calibrate(
    opened: Opened,
    samples: Samples,
    *,
    seed: int,
    cache_dir: Path | None = None,
    lanes: int = 1,
    recovery: str = "full",
    portable: bool = False,
    dialect: str = "ort",
    moments: bool = True,
    ranges: str = "mse",
    repairs: Collection[str] = REPAIRS,
    power_of_two: bool = False,
    measured: Calibration | None = None,
    on_event: Listener = silent,
) -> Calibrated:
    """Run the calibration samples once and set up the layer database and the INT8 baseline.

    Without `moments` only ranges are measured: enough for plans that round and do nothing else. `ranges` is
    how those of activations are chosen (`hwc_onnx.quantization.ranges`). `repairs` (of `REPAIRS`) are made with
    recovery "full" only; without "bias" layers are repaired as if they had none to change. `power_of_two` keeps all scales at powers of two, which leaves "statistics" out: means alone, without
    the spreads that scales mend, do harm. A dialect without zero points gets symmetric ranges. `measured` is what an earlier call
    without repairs measured on the same samples: nothing is run again. `on_event` hears how many samples are done.
    """
    started = time.perf_counter()
    rng = np.random.default_rng([seed, 0xCA11])
    repairs = repairs if recovery == "full" and moments else ()
    repairs = [name for name in repairs if not (power_of_two and name == "statistics")]
    kinds = [name for name in KINDS if name in repairs]
    equalized = equalize(opened.proto, opened.graph, samples, kinds=kinds) if kinds else Equalized(opened.proto)
    found = measured or collect(equalized.proto, opened.graph, samples, moments=moments, rng=rng, on_event=on_event)
    database = LayerDatabase(
        equalized.proto,
        opened.graph,
        found,
        cache_dir=cache_dir,
        lanes=lanes,
        recovery=recovery,  # type: ignore[arg-type]
        portable=portable,
        ranges=ranges,  # type: ignore[arg-type]
        taken=equalized.factors,
        symmetric=not get_dialect(dialect).zero_points,
        power_of_two=power_of_two,
        corrects_bias=recovery != "full" or "bias" in repairs,
    )
    layers, nodes = "statistics" in repairs, "normalizations" in repairs
    repair = None
    if layers or nodes:
        repair = StatisticsRepair(equalized.proto, opened.graph, database, samples, layers=layers, normalizations=nodes)
    baseline = uniform(opened.graph, LayerConfig()).model_copy(
        update={"dialect": dialect, "lanes": lanes, "portable": portable}
    )
    plan = database.stitch(baseline).plan
    seconds = time.perf_counter() - started
    return Calibrated(equalized.proto, opened.graph, database, found, plan, repair, seconds)


def float_densities(graph: LayerGraph, database: LayerDatabase) -> LayerGraph:
    """The float network with its own activation densities: the share of elements that are not exactly zero."""
    seen = {name: database.calibration.histograms[name] for group in graph.activation_groups for name in group.tensors}
    return with_densities(graph, {name: 1.0 - found.zeros / max(found.total, 1) for name, found in seen.items()})


def costs(
    model: CostModel, opened: Opened, calibrated: Calibrated, plan: CompressionPlan | None
) -> tuple[ModelCost, ModelCost, ModelCost]:
    """Costs of (float, INT8 baseline, `plan`); the float network's stand for `plan` None."""
    unquantized = model.cost(float_densities(opened.graph, calibrated.database))
    baseline = model.cost(with_plan(opened.graph, calibrated.baseline))
    return unquantized, baseline, unquantized if plan is None else model.cost(with_plan(opened.graph, plan))


def metadata_of(
    plan: CompressionPlan, opened: Opened, preprocess: Mapping[str, object], extra: Mapping[str, str]
) -> dict[str, str]:
    """What a written file says of itself; densities are needed to cost it again, the rest is for people."""
    text: dict[str, str] = {
        "hwc.plan": plan.digest(),
        SOURCE_KEY: opened.loaded.digest,
        DENSITY_KEY: json.dumps(dict(sorted(plan.activation_density.items())), separators=(",", ":")),
    }
    patterns = _patterns(plan)
    if patterns:
        text[PATTERN_KEY] = json.dumps(patterns)
    if preprocess:
        text[PREPROCESS_KEY] = json.dumps(preprocess, sort_keys=True, default=_plain)
    return text | dict(extra)


def _patterns(plan: CompressionPlan) -> dict[str, str | list[int]]:
    found = {key: zeros_of(plan, key) for key in sorted(plan.layers)}
    return {key: claim_of(pattern) for key, pattern in found.items() if pattern is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


def load_samples(
    data: Any,
    proto: onnx.ModelProto,
    preset: str | None,
    input_shapes: InputShapes,
    recorded: Mapping[str, object] | None = None,
    seed: int = 0,
) -> Data:
    """Samples for the model's inputs; `recorded` is the preparation stored in a file of ours, `seed` of synthetic ones."""
    return load_data(
        data,
        input_specs(proto),
        preset=preset,
        input_shapes=input_shapes_of(proto, input_shapes),
        stored=recorded or None,
        seed=seed,
        model=proto,
    )


def plan_from(plan: CompressionPlan | str | Path) -> CompressionPlan:
    """A plan as it is, or read from its file (PlanError)."""
    if isinstance(plan, CompressionPlan):
        return plan
    if isinstance(plan, str | Path):
        return CompressionPlan.load(plan)
    raise PlanError(f"plan: {type(plan).__name__}; give a CompressionPlan or the path of a plan.json")
