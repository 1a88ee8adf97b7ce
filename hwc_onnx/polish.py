"""A stitched plan, polished: layers of few bits are rounded up or down anew, all weights of a row together.

In order of the network each layer of at most 4 weight bits is posed behind its inputs in the compressed network
(`hwc_onnx.rebuild.Posing`) and goes through `recovery/adaround.py`. A row changes only where that lowers its error on images
that were not fitted to, and the whole network only where its damage on samples of the search split falls. No gradient goes
through the network, and nothing is drawn at random but the positions that the moments are taken at.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx

from hwc_onnx.accuracy.collector import collectable
from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.reference import Reference
from hwc_onnx.accuracy.tensors import measured_densities
from hwc_onnx.accuracy.types import Evaluation, Samples
from hwc_onnx.candidate import assemble
from hwc_onnx.database import LayerDatabase, Stitched
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.posing import Posed, Posing
from hwc_onnx.pruning.base import FineAlgorithm
from hwc_onnx.pruning.table import algorithm
from hwc_onnx.rebuild import SAMPLES, recorded
from hwc_onnx.recovery.adaround import code_bounds, polished_rows
from hwc_onnx.recovery.bias import corrected_bias
from hwc_onnx.recovery.layer_weight import quantized
from hwc_onnx.recovery.quadratic import output_error, output_power, quadratic_of
from hwc_onnx.recovery.rounding import Variant
from hwc_onnx.recovery.scales import storable
from hwc_onnx.recovery.setting import RepairedRows
from hwc_onnx.recovery.statistics import F64, Moments
from hwc_onnx.rewrite.insert_qdq import insert_qdq

MOST_BITS = 4
"""Wider weights lose too little by rounding to be worth it."""
JUDGED = 1024
"""Samples of the search split, its first, on which the whole network is judged."""


@dataclass(frozen=True)
class PolishedLayer:
    """One layer: squared output error relative to the output's variance on held-out images, `before` and `after`.

    `changed` is the share of its codes that are others now, `seconds` what it took, inputs included.
    """

    key: str
    bits: int
    before: float
    after: float
    changed: float
    seconds: float


@dataclass(frozen=True)
class Polished:
    """What came of it: the better of the two networks, whether that is the polished one, and both on the same samples."""

    stitched: Stitched
    kept: bool
    before: Evaluation
    after: Evaluation
    layers: tuple[PolishedLayer, ...]
    seconds: float

    def note(self) -> str:
        """One sentence with the cost and the gain."""
        if not self.layers:
            return f"polish: no layer has at most {MOST_BITS} weight bits; nothing was done"
        return (
            f"polish: {len(self.layers)} layers in {self.seconds:.0f} s; on {self.before.n_samples} search samples damage, which decides, "
            f"{self.before.damage:.4g} -> {self.after.damage:.4g}, drop {self.before.drop_points:+.2f} -> "
            f"{self.after.drop_points:+.2f} points: {'kept' if self.kept else 'not kept'}"
        )

    def payload(self) -> dict[str, Any]:
        """Plain values for JSON."""
        both = (("before", self.before), ("after", self.after))
        return {
            "kept": self.kept,
            "seconds": self.seconds,
            "n_samples": self.before.n_samples,
            "damage": {name: _finite(measured.damage) for name, measured in both},
            "drop_points": {name: _finite(measured.drop_points) for name, measured in both},
            "layers": [asdict(layer) for layer in self.layers],
        }


def polish(
    proto: onnx.ModelProto,
    graph: LayerGraph,
    database: LayerDatabase,
    stitched: Stitched,
    samples: Samples,
    reference: Reference,
    *,
    threads: int | None = None,
    on_layer: Callable[[int, int, str], None] | None = None,
) -> Polished:
    """`stitched` with polished layers, or as it was where that is no better.

    Args:
        proto: the float model that the database describes.
        graph: its layer graph.
        database: its layer database.
        stitched: the network to polish, as stitched or rebuilt.
        samples: calibration inputs, of which at most 1,024 are run.
        reference: the original on samples that judge the whole network.
        threads: ONNX Runtime threads.
        on_layer: hears (layers done, layers in all, layer).

    Raises:
        RuntimeFailure: ONNX Runtime cannot run a part of the network.
    """
    started = time.perf_counter()
    new, layers = polished_layers(proto, graph, database, stitched, samples, threads=threads, on_layer=on_layer)
    before, after = (
        measure(assemble(proto, graph, one, "measure").proto, reference, threads=threads) for one in (stitched, new)
    )
    kept = bool(layers) and after.damage < before.damage
    return Polished(new if kept else stitched, kept, before, after, layers, time.perf_counter() - started)


def polished_layers(
    proto: onnx.ModelProto,
    graph: LayerGraph,
    database: LayerDatabase,
    stitched: Stitched,
    samples: Samples,
    *,
    threads: int | None = None,
    batch: int = 64,
    gram_rows: int = 8192,
    seed: int = 0,
    on_layer: Callable[[int, int, str], None] | None = None,
) -> tuple[Stitched, tuple[PolishedLayer, ...]]:
    """Every layer of few bits polished, in order, and what each was before and after (arguments as for `rebuild`)."""
    used, plan, weights = samples.take(slice(0, SAMPLES)), stitched.plan, dict(stitched.weights)
    pruned = stitched.float_model(proto, graph)
    posing = Posing(proto, graph, database, stitched, used, threads, batch, gram_rows, seed)
    todo = posing.shortcuts.ordered(
        [layer for layer in graph.layers if collectable(layer) and plan.layers[layer.key].weight_bits <= MOST_BITS]
    )
    found: list[PolishedLayer] = []
    for number, layer in enumerate(todo):
        if on_layer is not None:
            on_layer(number, len(todo), layer.key)
        started = time.perf_counter()
        compressed = insert_qdq(pruned, graph, weights, stitched.activations, plan.dialect, "measure")
        posed = posing.layer(layer, compressed, weights[layer.key], todo[number + 1 :])
        if posed is None:
            continue
        config, old = plan.layers[layer.key], weights[layer.key]
        masked = isinstance(algorithm(config.algorithm), FineAlgorithm)
        rows, before = polished_layer(posed, config.weight_bits, masked, database.portable, database.power_of_two)
        new = weights[layer.key] = quantized(rows, posed.layout, config.weight_bits)
        changed, seconds = float(np.mean(old.codes != new.codes)), time.perf_counter() - started
        found.append(PolishedLayer(layer.key, config.weight_bits, before, rows.error_heldout, changed, seconds))
    if not found:
        return stitched, ()
    final = insert_qdq(pruned, graph, weights, stitched.activations, plan.dialect)
    densities = measured_densities(final, graph, used, stitched.activations, threads=threads, batch=batch)
    return replace(stitched, weights=weights, plan=recorded(graph, plan, weights, densities)), tuple(found)


def polished_layer(
    posed: Posed, bits: int, masked: bool, portable: bool = False, power_of_two: bool = False
) -> tuple[RepairedRows, float]:
    """One layer's rows, each from the variant with the least held-out error, and that error as it was before.

    Where it is `masked`, weights that are zero stay zero. The bias takes up the mean difference of the outputs.
    """
    layout, centred = posed.layout, posed.takes_bias

    def settle(scale: F64) -> F64:
        return storable(scale, layout.tied, power_of_two)

    def errors(values: F64, moments: Moments) -> F64:
        power = max(float(output_power(posed.rows, moments).sum()), 1e-30)
        return output_error(posed.rows, values, moments, centred, posed.columns) / power

    fit, heldout = posed.statistics.fit, posed.statistics.heldout
    problem = quadratic_of(posed.rows, fit, centred, posed.columns, prior=posed.prior)
    keep = posed.start.codes != 0 if masked else None
    low, high = code_bounds(posed.start.codes, bits, portable)
    free = not (layout.tied or power_of_two)
    variants = [posed.start, *polished_rows(problem, posed.start, low, high, keep, settle, free)]
    found = np.stack([errors(variant.values(), heldout) for variant in variants])
    best = picked(variants, found, layout.tied)
    values, scale = best.values(), best.scale
    assert scale is not None
    old_bias = None if posed.bias is None else np.asarray(posed.bias, dtype=np.float64).reshape(-1)
    bias = None if old_bias is None else old_bias.astype(np.float32)
    if centred:
        bias = corrected_bias(old_bias, posed.rows, values, fit.mean, posed.columns)
    after = float(errors(values, heldout).sum())
    codes, before = best.codes.astype(np.int8), float(found[0].sum())
    return RepairedRows(codes, scale.astype(np.float32), bias, float(errors(values, fit).sum()), after), before


def picked(variants: Sequence[Variant], errors: F64, tied: bool) -> Variant:
    """Each row from the variant with the least of `errors` [variants, groups, rows]; all from one where scales are `tied`."""
    best = errors.argmin(axis=0)
    if tied:
        best[:] = errors.sum(axis=(1, 2)).argmin()
    group, row = np.indices(best.shape)
    codes = np.stack([variant.codes for variant in variants])[best, group, row]
    return Variant(codes, np.stack([variant.scale for variant in variants if variant.scale is not None])[best, group, row])


def _finite(value: float) -> float | None:
    """JSON has no other numbers."""
    return value if math.isfinite(value) else None
