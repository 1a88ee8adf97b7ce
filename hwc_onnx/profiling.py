"""Energy, latency and traffic of a model as it stands or as a plan would leave it, beside INT8 and float."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hwc_onnx.accuracy.data_shapes import shapes_from_data
from hwc_onnx.accuracy.splits import make_splits
from hwc_onnx.cost.accelerator import AcceleratorProfile
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.cost.types import ModelCost
from hwc_onnx.errors import ModelError
from hwc_onnx.events import Listener, silent
from hwc_onnx.graph.before import float_graph, unpruned_graph
from hwc_onnx.graph.constraints import constrained
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.graph.parse import with_densities
from hwc_onnx.plan import CompressionPlan, check_plan, check_ratios, with_plan
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import InputShapes, Model, calibrate, float_densities, load_samples, open_model, plan_from

Densities = Literal["dense", "measured", "recorded", "plan"]
Zeros = Literal["none", "own", "unknown"]


@dataclass(frozen=True)
class ProfileResult:
    """The cost of one model on one accelerator, with the INT8 and unquantized network beside it.

    `densities` says where the shares of zero activations come from: nowhere (all count as dense), the given samples, the
    compressed file, which records them, or the plan, which does too. `baseline_zeros` says which zero weights the INT8 and
    the unquantized network have: "none", the unquantized file's "own", or none because those before it was compressed are
    "unknown".
    """

    cost: ModelCost
    baseline: ModelCost
    float_cost: ModelCost
    graph: LayerGraph
    profile: AcceleratorProfile
    seconds: float
    densities: Densities = "dense"
    baseline_zeros: Zeros = "none"

    @property
    def accelerator(self) -> str:
        """The accelerator's name."""
        return self.profile.name

    def to_json(self, explain: str | bool | None = None) -> dict[str, Any]:
        """The content of `profile --json`; the node `explain` (True: every node) with each product of its energy."""
        from hwc_onnx.report.profile_payload import profile_payload

        return profile_payload(
            self.profile,
            self.cost,
            self.baseline,
            self.float_cost,
            self.seconds,
            self.densities,
            explain,
            self.baseline_zeros,
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
    cache_dir: str | Path | None = None,
    on_event: Listener | None = None,
) -> ProfileResult:
    """Energy, latency and traffic per node of a float or compressed model.

    Args:
        model: path or ModelProto.
        accelerator: profile name or YAML file.
        data: samples to measure activation densities on; without them the densities are those recorded in the plan
            (for the INT8 and float network too) or in the compressed file; where nothing is recorded, activations
            count as dense.
        input_shapes: sizes of dynamic inputs.
        plan: cost the model as this plan would leave it, without building it.
        cache_dir: where searched mappings are kept for the next call.
        on_event: hears how many mappings are found, where that takes long.
    """
    input_shapes = shapes_from_data(model, data, input_shapes)
    opened = open_model(model, input_shapes)
    unpruned = unpruned_graph(opened.graph) if opened.quantized else opened.graph
    started = time.perf_counter()
    loaded_profile = load_profile(accelerator)
    cost_model = CostModel(loaded_profile, cache_dir, on_event or silent)
    graph = opened.graph
    stored = {name for group in graph.activation_groups for name in group.tensors} if opened.quantized else set()
    recorded = {name: graph.tensors[name].density for name in sorted(stored) if graph.tensors[name].density < 1.0}
    densities = dict(recorded)
    origin: Densities = "recorded" if recorded else "dense"
    unquantized = float_graph(unpruned) if opened.quantized else graph
    if data is not None and not opened.quantized:
        loaded = load_samples(data, opened.proto, None, input_shapes)
        calibrated = calibrate(opened, make_splits(loaded).calibration, seed=0)
        densities = calibrated.baseline.activation_density
        unquantized = float_densities(graph, calibrated.database)
        graph, origin = unquantized, "measured"
    if plan is not None:
        chosen = plan_from(plan)
        graph = constrained(graph, chosen.constraints)
        check_plan(graph, chosen)
        check_ratios(graph, chosen)
        if data is None and chosen.activation_density:
            densities, origin = chosen.activation_density, "plan"
            unquantized = with_densities(unquantized, densities)
        graph = with_plan(graph, chosen)
    baseline = cost_model.cost(with_plan(unpruned, _int8(unpruned, densities)))
    cost = cost_model.cost(graph)
    float_cost = cost if unquantized is graph else cost_model.cost(unquantized)
    zeros: Zeros = "none"
    if opened.quantized:
        zeros = "unknown"
    elif any(layer.weight is not None and layer.weight_density < 1.0 for layer in opened.graph.layers):
        zeros = "own"
    return ProfileResult(cost, baseline, float_cost, graph, loaded_profile, time.perf_counter() - started, origin, zeros)


def graph_cost(
    graph: LayerGraph,
    accelerator: str | Path = "edge-flex",
    cache_dir: str | Path | None = None,
    on_event: Listener | None = None,
) -> ModelCost | None:
    """The cost of what `inspect` returned, at the widths that it has; None where some layer fits the accelerator in no way."""
    try:
        return CostModel(load_profile(accelerator), cache_dir, on_event or silent).cost(graph)
    except ModelError:
        return None


def _int8(graph: LayerGraph, densities: Mapping[str, float]) -> CompressionPlan:
    """The plan of the INT8 baseline."""
    if not graph.layers:
        return CompressionPlan(source_digest=graph.source_digest, layers={}, activation_density=dict(densities))
    return uniform(graph, parse_spec("w8a8")).model_copy(update={"activation_density": densities})
