"""The winner, rebuilt: each layer is fitted again to the inputs that the compressed layers before it really produce.

Database entries assume that a layer reads what it read in the original network. In order of the network, each layer's
inputs are collected once more, through the compressed prefix x' and in the original x; its rows then minimise
E|W x - W' x'|^2, so that later layers make up for earlier ones. Where the output is added to a shortcut s (graph/shortcut.py),
which the compressed network computes as s', they minimise E|W x + s - s' - W' x'|^2: the sum is what is read. A row changes
only where that helps on images that were not used for the fit; whether the whole network is better is for the caller to
measure.

Source: the asymmetric targets of He, Zhang & Sun (ICCV 2017), section 3.2, with the rounding of recovery/obs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.collector import collectable
from hwc_onnx.accuracy.tensors import measured_densities
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.database import LayerDatabase, Stitched
from hwc_onnx.graph.layer_graph import FLOAT_BITS, Layer, LayerGraph
from hwc_onnx.graph.zero_pattern import filled_share
from hwc_onnx.plan import CompressionPlan
from hwc_onnx.posing import PAIRED_BYTES, Posed, Posing
from hwc_onnx.pruning.base import FineAlgorithm, runs_of, spread, summed
from hwc_onnx.pruning.table import algorithm
from hwc_onnx.quantization.quantizer import QuantizedWeight
from hwc_onnx.recovery.activated import Activated, better_rows, fitted, start_of, statistics
from hwc_onnx.recovery.layer import LayerRecovery
from hwc_onnx.recovery.layer_weight import quantized
from hwc_onnx.recovery.rounding import Variant
from hwc_onnx.recovery.setting import RepairedRows, Setting
from hwc_onnx.recovery.side_by_side import one_blas_thread
from hwc_onnx.recovery.statistics import Room
from hwc_onnx.rewrite.insert_qdq import insert_qdq

SAMPLES = 1024


def rebuild(
    proto: onnx.ModelProto,
    graph: LayerGraph,
    plan: CompressionPlan,
    database: LayerDatabase,
    samples: Samples,
    *,
    threads: int | None = None,
    batch: int = 64,
    gram_rows: int = 12288,
    seed: int = 0,
    on_layer: Callable[[int, int, str], None] = lambda done, total, layer: None,
) -> Stitched:
    """`plan` stitched from the database, then refitted layer after layer.

    Args:
        proto: the normalised float model.
        graph: its layer graph.
        plan: a setting for every layer.
        database: entries to start from; its recovery must be "full" (otherwise they are returned as they are).
        samples: calibration inputs, of which at most 1,024 are run.
        threads: ONNX Runtime threads.
        batch: images per run.
        gram_rows: patches per layer to fit on, about.
        seed: of the sampled positions.
        on_layer: hears (layers done, layers in all, layer).

    Raises:
        PlanError: the plan does not fit the graph.
        RuntimeFailure: ONNX Runtime cannot run a prefix.
    """
    stitched = database.stitch(plan)
    if database.recovery != "full":
        return stitched
    used = samples.take(slice(0, SAMPLES))
    weights = dict(stitched.weights)
    pruned = stitched.float_model(proto, graph)
    posing = Posing(proto, graph, database, stitched, used, threads, batch, gram_rows, seed)
    todo = posing.shortcuts.ordered(
        [x for x in graph.layers if collectable(x) and plan.layers[x.key].weight_bits < FLOAT_BITS]
    )
    for number, layer in enumerate(todo):
        on_layer(number, len(todo), layer.key)
        compressed = insert_qdq(pruned, graph, weights, stitched.activations, plan.dialect, "measure")
        posed = posing.layer(layer, compressed, weights[layer.key], todo[number + 1 :], activated=True)
        if posed is not None:
            with one_blas_thread():
                weights[layer.key] = _refitted(posed, database, layer, plan, weights[layer.key].bias)
    final = insert_qdq(pruned, graph, weights, stitched.activations, plan.dialect)
    densities = measured_densities(final, graph, used, stitched.activations, threads=threads, batch=batch)
    return replace(stitched, weights=weights, plan=recorded(graph, stitched.plan, weights, densities))


def recorded(
    graph: LayerGraph,
    plan: CompressionPlan, weights: Mapping[str, QuantizedWeight], densities: Mapping[str, float]
) -> CompressionPlan:
    """The plan with the densities that a network with other weights has, of `weights` and of stored tensors."""
    achieved = {}
    for key, record in plan.achieved.items():
        density = weights[key].weight_density
        facts = {"weight_density": density}
        chosen = algorithm(plan.layers[key].algorithm)
        if isinstance(chosen, FineAlgorithm):
            facts["ratio"] = 1.0 - density
            if chosen.block is not None:
                facts["block_density"] = filled_share(weights[key].codes, graph.layer(key), chosen.block)
        achieved[key] = record.model_copy(update=facts)
    return plan.model_copy(
        update={"achieved": achieved, "activation_density": {**plan.activation_density, **densities}}
    )


def _refitted(
    posed: Posed, database: LayerDatabase, layer: Layer, plan: CompressionPlan, bias: NDArray[np.float32] | None
) -> QuantizedWeight:
    """The layer's weight fitted again, row by row where that helps; `bias` is what it has now."""
    setting = database.setting(layer.key, plan.layers[layer.key])
    kept = None if setting.mask is None else posed.start.codes != 0
    if kept is not None and setting.mask is not None and setting.mask.block is not None:
        runs = runs_of(setting.mask.block, posed.layout.taps, kept.shape[2])
        kept = spread(summed(kept.astype(np.float64), runs) > 0, runs, kept.shape[2])
    setting = replace(setting, columns=posed.columns, noise=0.0, ratio=0.0, kept=kept)
    rows = _worker(posed, database).build(setting, posed.start)
    if posed.activated is not None:
        assert posed.start.scale is not None
        start = replace(rows, codes=posed.start.codes.astype(np.int8), scale=posed.start.scale.astype(np.float32), bias=bias)
        rows = better_rows(start, rows, posed.activated[1], posed.layout.tied)
        rows = _activated(posed, database, setting, rows, *posed.activated)
    return quantized(rows, posed.layout, setting.bits)


def _activated(
    posed: Posed, database: LayerDatabase, setting: Setting, rows: RepairedRows, fit: Activated, heldout: Activated
) -> RepairedRows:
    """The rows fitted to what the activation function lets through, where that helps."""
    start, given = start_of(rows, fit)
    keep = None if setting.kept is None else start != 0
    values, bias = fitted(fit, start, given, keep, posed.takes_bias)
    groups, count, width = start.shape
    both = np.concatenate([np.broadcast_to(np.eye(count), (groups, count, count)), np.zeros(start.shape)], axis=2)
    moments = statistics(fit, heldout, values, bias, Room(PAIRED_BYTES))
    targeted = replace(posed, rows=both, statistics=moments)
    setting = replace(setting, columns=np.arange(count, count + width), kept=keep)
    assert rows.scale is not None
    new = _worker(targeted, database).build(setting, Variant(rows.codes.astype(np.int8), rows.scale.astype(np.float64)))
    return better_rows(rows, new, heldout, posed.layout.tied)


def _worker(posed: Posed, database: LayerDatabase) -> LayerRecovery:
    return LayerRecovery(
        posed.layout,
        posed.rows,
        posed.bias,
        posed.statistics,
        posed.takes_bias,
        portable=database.portable,
        prior=posed.prior,
        power_of_two=database.power_of_two,
    )
