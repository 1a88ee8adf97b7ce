"""The winner, rebuilt: each layer is fitted again to the inputs that the compressed layers before it really produce.

Database entries assume that a layer reads what it read in the original network. In order of the network, each layer's
inputs are collected once more, through the compressed prefix x' and in the original x; its rows then minimise
E|W x - W' x'|^2, so that later layers make up for earlier ones. A row changes only where that helps on images that were
not used for the fit; whether the whole network is better is for the caller to measure.

Source: the asymmetric targets of He, Zhang & Sun (ICCV 2017), section 3.2, with the rounding of recovery/obs.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.collector import collectable
from hwc_onnx.accuracy.tensors import measured_densities, read_by
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.accuracy.walk import Walk
from hwc_onnx.database import LayerDatabase, Stitched, quantized
from hwc_onnx.graph.layer_graph import FLOAT_BITS, Layer, LayerGraph
from hwc_onnx.plan import CompressionPlan
from hwc_onnx.quantization.quantizer import QuantizedWeight
from hwc_onnx.recovery.layer import LayerRecovery
from hwc_onnx.recovery.layout import RowLayout
from hwc_onnx.recovery.patches import patches_of
from hwc_onnx.recovery.rounding import Variant
from hwc_onnx.recovery.statistics import LayerStatistics, MomentsBuilder
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from hwc_onnx.rewrite.remove_channels import remove_channels

SAMPLES = 512
HELDOUT_SHARE = 0.25

Index = NDArray[np.int64]


def rebuild(
    proto: onnx.ModelProto,
    graph: LayerGraph,
    plan: CompressionPlan,
    database: LayerDatabase,
    samples: Samples,
    *,
    threads: int | None = None,
    batch: int = 64,
    gram_rows: int = 4096,
    seed: int = 0,
) -> Stitched:
    """`plan` stitched from the database, then refitted layer after layer.

    Args:
        proto: the normalised float model.
        graph: its layer graph.
        plan: a setting for every layer.
        database: entries to start from; its recovery must be "full" (otherwise they are returned as they are).
        samples: calibration inputs, of which at most 512 are run.
        threads: ONNX Runtime threads.
        batch: images per run.
        gram_rows: patches per layer to fit on, about.
        seed: of the sampled positions.

    Raises:
        PlanError: the plan does not fit the graph.
        RuntimeFailure: ONNX Runtime cannot run a prefix.
    """
    stitched = database.stitch(plan)
    if database.recovery != "full":
        return stitched
    used = samples.take(slice(0, SAMPLES))
    weights = dict(stitched.weights)
    pruned = remove_channels(proto, graph, stitched.keep) if stitched.keep else proto
    rebuilder = _Rebuilder(proto, graph, database, stitched, used, threads, batch, gram_rows, seed)
    todo = [x for x in graph.layers if collectable(x) and plan.layers[x.key].weight_bits < FLOAT_BITS]
    for number, layer in enumerate(todo):
        compressed = insert_qdq(pruned, graph, weights, stitched.activations, plan.dialect, "measure")
        weights[layer.key] = rebuilder.layer(layer, compressed, weights[layer.key], todo[number + 1 :])
    final = insert_qdq(pruned, graph, weights, stitched.activations, plan.dialect)
    densities = measured_densities(final, graph, used, stitched.activations, threads=threads, batch=batch)
    return replace(stitched, weights=weights, plan=_recorded(stitched.plan, weights, densities))


def _recorded(
    plan: CompressionPlan, weights: Mapping[str, QuantizedWeight], densities: Mapping[str, float]
) -> CompressionPlan:
    """The plan with the densities that the rebuilt network has."""
    achieved = {
        key: record.model_copy(update={"weight_density": weights[key].weight_density})
        for key, record in plan.achieved.items()
    }
    return plan.model_copy(
        update={"achieved": achieved, "activation_density": {**plan.activation_density, **densities}}
    )


class _Rebuilder:
    """What stays the same from layer to layer."""

    def __init__(
        self,
        proto: onnx.ModelProto,
        graph: LayerGraph,
        database: LayerDatabase,
        stitched: Stitched,
        samples: Samples,
        threads: int | None,
        batch: int,
        gram_rows: int,
        seed: int,
    ) -> None:
        self.proto, self.graph, self.database, self.stitched = proto, graph, database, stitched
        self.seed = seed
        self.fitted = max(1, len(samples) - round(len(samples) * HELDOUT_SHARE))
        self.per_image = max(1, -(-gram_rows // self.fitted))
        self.nodes = {node.key: node for node in graph.nodes}
        self.walks = [Walk(samples, threads, batch) for _ in range(2)]

    def layer(
        self, layer: Layer, compressed: onnx.ModelProto, weight: QuantizedWeight, ahead: Sequence[Layer]
    ) -> QuantizedWeight:
        """The layer's weight, refitted to its inputs in `compressed`; the layers `ahead` come later."""
        view, keep = self.database.views[layer.key], self.stitched.keep
        outputs = self.database.maps.kept(layer, layer.output_axis, keep)
        inputs = self.database.input_keep(layer.key, keep)
        alone = view.layout.groups > 1 and self.database.maps.kept(layer, layer.input_axis, keep) is not None
        if alone or view.layout.stack > 1:
            return weight
        cut = _cut(view.layout, outputs, inputs)
        if cut is None or weight.params is None:
            return weight
        layout, groups = cut
        statistics = self._paired(layer, compressed, layout, groups, ahead)
        flat = view.rows.reshape(view.layout.outputs, -1)
        old = (flat if outputs is None else flat[outputs]).reshape(layout.groups, layout.rows, view.layout.width)
        columns = slice(None) if inputs is None else view.layout.columns(inputs)
        both = np.concatenate([old, np.zeros((*old.shape[:2], layout.width))], axis=2)
        parameters = self.database.parameters[layer.key]
        bias = parameters.bias
        if bias is not None and outputs is not None:
            bias = bias[outputs]
        worker = LayerRecovery(
            layout,
            both,
            bias,
            statistics,
            parameters.takes_bias,
            portable=self.database.portable,
            prior=old[:, :, columns],
            power_of_two=self.database.power_of_two,
        )
        setting = self.database.setting(layer.key, self.stitched.plan.layers[layer.key])
        second_half = np.arange(old.shape[2], both.shape[2], dtype=np.int64)
        scale = np.asarray(weight.params.scale, dtype=np.float64).reshape(1 if layout.tied else layout.groups, -1)
        rival = Variant(
            layout.to_rows(weight.codes).astype(np.int8),
            np.broadcast_to(scale, (layout.groups, layout.rows)).copy(),
        )
        rows = worker.build(replace(setting, columns=second_half, noise=0.0), rival)
        return quantized(rows, layout, setting.bits)

    def _paired(
        self, layer: Layer, compressed: onnx.ModelProto, layout: RowLayout, groups: Index, ahead: Sequence[Layer]
    ) -> LayerStatistics:
        """Moments of the original inputs followed by the compressed ones, at the same positions."""
        width = self.database.views[layer.key].layout.width + layout.width
        builders = [MomentsBuilder(layout.groups, width) for _ in range(2)]
        narrow = replace(layer, loop_dims=replace(layer.loop_dims, G=layout.groups))
        before, after = (
            walk.to(model, read_by(model, self.graph, layer), [read_by(model, self.graph, later) for later in ahead])
            for walk, model in zip(self.walks, (self.proto, compressed), strict=True)
        )
        for (images, original), (_, new) in zip(before, after, strict=True):
            pair = self._patches(layer, original, images.start)[groups], self._patches(narrow, new, images.start)
            patches = np.concatenate(pair, axis=2)
            fitted = min(max(self.fitted - images.start, 0), len(images))
            cut = fitted * (patches.shape[1] // len(images))
            for builder, part in zip(builders, (patches[:, :cut], patches[:, cut:]), strict=True):
                if part.shape[1]:
                    builder.add(part)
        fit, heldout = (builder.build() for builder in builders)
        return LayerStatistics(fit, heldout if heldout.rows else fit)

    def _patches(self, layer: Layer, array: NDArray[np.float32], first: int) -> NDArray[np.float32]:
        """Patches of a batch of the layer's input; the positions depend on the seed and the batch only."""
        rng = np.random.default_rng([self.seed, first])
        return patches_of(layer, self.nodes[layer.key].attributes, array, self.per_image, rng)


def _cut(layout: RowLayout, outputs: Index | None, inputs: Index | None) -> tuple[RowLayout, Index] | None:
    """The layout once channels are gone and the original groups that are left; None where groups lose rows unevenly."""
    channels = layout.channels if inputs is None else len(inputs)
    if outputs is None:
        return replace(layout, channels=channels), np.arange(layout.groups)
    if layout.groups == 1:
        return replace(layout, rows=len(outputs), channels=channels), np.zeros(1, dtype=np.int64)
    groups, counts = np.unique(outputs // layout.rows, return_counts=True)
    if layout.transposed or (counts != layout.rows).any():
        return None
    return replace(layout, groups=len(groups)), groups.astype(np.int64)
