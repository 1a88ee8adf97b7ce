"""The problem of one layer behind a compressed prefix: make the outputs of the original from what the compressed layers give it.

Both networks are walked through side by side (accuracy/walk.py). At sampled positions the inputs of the layer are taken from
both, and where its output is added to a shortcut (graph/shortcut.py), what the compressed shortcut lacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.tensors import batch_within, fixed_batch, read_by
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.accuracy.walk import Walk
from hwc_onnx.database import LayerDatabase, Stitched
from hwc_onnx.graph.layer_graph import Layer, LayerGraph
from hwc_onnx.graph.shortcut import Shortcut, Shortcuts, clip_bounds
from hwc_onnx.quantization.quantizer import QuantizedWeight
from hwc_onnx.recovery.activated import Activated
from hwc_onnx.recovery.kept_patches import KeptPatches, Patches
from hwc_onnx.recovery.layout import RowLayout
from hwc_onnx.recovery.patches import Along, along_batch, patches_of
from hwc_onnx.recovery.rounding import Variant
from hwc_onnx.recovery.statistics import F64, WIDEST, LayerStatistics, MomentsBuilder, Room

HELDOUT_SHARE = 0.25
PAIRED_BYTES = 1 << 30
"""Moments of one layer's inputs, twice, above this lie in temporary files."""

F32 = NDArray[np.float32]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Posed:
    """One layer behind a compressed prefix: make the outputs of the original from what the compressed layers give it.

    `rows` [groups, rows, width + d] are the original rows followed by zeros, to be read with `statistics` of the original
    inputs followed by the new ones; those are the columns `columns`. In between lie, with a shortcut, as many columns as rows:
    what the shortcut lacks, one column for each row. `prior` [groups, rows, d] holds the original rows on
    what is kept of the inputs, `start` the codes and scales that the layer has, `bias` [outputs] its original bias. `activated`
    are patches to fit to and patches to judge by, where a Relu or Clip alone reads the output (on request).
    """

    layout: RowLayout
    rows: F64
    prior: F64
    columns: Index
    bias: NDArray[np.generic] | None
    takes_bias: bool
    statistics: LayerStatistics
    start: Variant
    activated: tuple[Activated, Activated] | None = None


@dataclass(frozen=True)
class Added:
    """The shortcut of a layer of which the channels `outputs` are left (None: all)."""

    shortcut: Shortcut
    outputs: Index | None

    def missing(self, layer: Layer, original: NDArray[np.float32], compressed: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the compressed shortcut lacks of the original one, on the channels that are left."""
        if self.outputs is not None:
            original = np.take(original, self.outputs, axis=1 if "Conv" in layer.op_type else -1)
        return original - compressed


class Posing:
    """Poses the problem of one layer after the other (`Posed`); what stays the same between them."""

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
        self.shortcuts = Shortcuts(graph)
        self.fixed = fixed_batch(input_specs(proto))
        # both walks in the same batches, although the tensors of a pruned network are smaller
        largest = max((int(np.prod(info.shape, dtype=np.int64)) for info in graph.tensors.values()), default=1)
        self.walks = [Walk(samples, threads, batch_within(largest, batch)) for _ in range(2)]

    def layer(
        self,
        layer: Layer,
        compressed: onnx.ModelProto,
        weight: QuantizedWeight,
        ahead: Sequence[Layer],
        activated: bool = False,
    ) -> Posed | None:
        """The problem of `layer`, which has `weight`, behind its inputs in `compressed`; None where it cannot be posed, or where
        its inputs twice, original and compressed, are more than `WIDEST` (1.2 GB a matrix).

        The layers `ahead` will be asked for later. `activated` asks for patches too, where an activation function follows and
        rows and inputs are not more than `WIDEST`.
        """
        view, keep = self.database.views[layer.key], self.stitched.keep
        outputs = self.database.maps.kept(layer, layer.output_axis, keep)
        inputs = self.database.input_keep(layer.key, keep)
        alone = view.layout.groups > 1 and self.database.maps.kept(layer, layer.input_axis, keep) is not None
        if alone or view.layout.stack > 1:
            return None
        cut = _cut(view.layout, outputs, inputs)
        if cut is None or weight.params is None:
            return None
        layout, groups = cut
        if view.layout.width + layout.width > WIDEST:
            return None
        added = self.added(layer, layout, outputs, ahead)
        if added is not None and view.layout.width + layout.rows + layout.width > WIDEST:
            added = None
        flat = view.rows.reshape(view.layout.outputs, -1)
        old = (flat if outputs is None else flat[outputs]).reshape(layout.groups, layout.rows, view.layout.width)
        columns = slice(None) if inputs is None else view.layout.columns(inputs)
        parameters = self.database.parameters[layer.key]
        bias = parameters.bias
        if bias is not None and outputs is not None:
            bias = bias[outputs]
        bounds = self._bounds(layer, added) if activated and layout.rows + layout.width <= WIDEST else None
        kept = None if bounds is None else KeptPatches(old, bias, bounds)
        statistics = self._paired(layer, compressed, layout, groups, ahead, added, kept)
        found = None if kept is None else kept.found()
        own = np.zeros((layout.rows, 0)) if added is None else np.eye(layout.rows)
        both = np.concatenate(
            [old, np.broadcast_to(own, (layout.groups, *own.shape)), np.zeros((*old.shape[:2], layout.width))], axis=2
        )
        scale = np.asarray(weight.params.scale, dtype=np.float64).reshape(1 if layout.tied else layout.groups, -1)
        start = Variant(
            layout.to_rows(weight.codes).astype(np.int8),
            np.broadcast_to(scale, (layout.groups, layout.rows)).copy(),
        )
        new = np.arange(both.shape[2] - layout.width, both.shape[2], dtype=np.int64)
        return Posed(layout, both, old[:, :, columns], new, bias, parameters.takes_bias, statistics, start, found)

    def added(self, layer: Layer, layout: RowLayout, outputs: Index | None, ahead: Sequence[Layer]) -> Added | None:
        """What is added to the output of `layer`, where all of it is settled before the layers `ahead`."""
        transposed = layer.op_type == "Gemm" and bool(self.nodes[layer.key].attributes.get("transA", 0))
        flipped = transposed or (layer.op_type == "MatMul" and layer.output_axis == len(layer.weight_shape) - 2)
        shortcut = None if flipped else self.shortcuts.of(layer, {layer.key, *(later.key for later in ahead)})
        return None if shortcut is None else Added(shortcut, outputs)

    def _paired(
        self,
        layer: Layer,
        compressed: onnx.ModelProto,
        layout: RowLayout,
        groups: Index,
        ahead: Sequence[Layer],
        added: Added | None,
        kept: KeptPatches | None,
    ) -> LayerStatistics:
        """Moments of the original inputs, what the shortcut lacks and the compressed inputs, at the same positions."""
        width = self.database.views[layer.key].layout.width + layout.width + (0 if added is None else layout.rows)
        room = Room(PAIRED_BYTES)
        builders = [MomentsBuilder(layout.groups, width, room) for _ in range(2)]
        for parts in self.pairs(layer, compressed, layout, groups, ahead, added):
            for builder, part in zip(builders, parts, strict=True):
                if part.new.shape[1]:
                    builder.add(part.together())
            if kept is not None:
                kept.add(parts)
        fit, heldout = (builder.build() for builder in builders)
        return LayerStatistics(fit, heldout if heldout.rows else fit)

    def pairs(
        self,
        layer: Layer,
        compressed: onnx.ModelProto,
        layout: RowLayout,
        groups: Index,
        ahead: Sequence[Layer],
        added: Added | None = None,
    ) -> Iterator[tuple[Patches, Patches]]:
        """Patches of `layer` and of what is `added` to it, batch by batch: those to fit to, and those to judge by."""
        narrow = replace(layer, loop_dims=replace(layer.loop_dims, G=layout.groups))
        before, after = (
            walk.to(model, self._names(model, layer, added), self._ahead(model, ahead))
            for walk, model in zip(self.walks, (self.proto, compressed), strict=True)
        )
        for (images, (original, *told)), (_, (new, *found)) in zip(before, after, strict=True):
            along = self._along(layer, original, len(images))
            before_it = self._patches(layer, original, images, along)[groups]
            missing = behind = None
            if added is not None:
                missing, behind = (
                    self._patches(_pointwise(narrow), array, images, along)
                    for array in (added.missing(layer, told[0], found[0]), found[0])
                )
            patches = Patches(before_it, missing, behind, self._patches(narrow, new, images, along))
            count = before_it.shape[1]
            fitted = min(max(self.fitted - images.start, 0), len(images))
            if along is None:
                cut = count if 2 * fitted >= len(images) else 0
            else:
                cut = fitted * (count // len(images))
            yield patches.part(slice(cut)), patches.part(slice(cut, None))

    def _names(self, proto: onnx.ModelProto, layer: Layer, added: Added | None) -> list[str]:
        """The tensors that pose `layer` in `proto`: its input and its shortcut."""
        return [read_by(proto, self.graph, layer), *([] if added is None else [added.shortcut.read_in(proto)])]

    def _ahead(self, proto: onnx.ModelProto, ahead: Sequence[Layer]) -> list[str]:
        """The tensors that the layers `ahead` may be posed with."""
        names = [read_by(proto, self.graph, later) for later in ahead]
        shortcuts = (self.shortcuts.of(later, {later.key}) for later in ahead)
        return names + [shortcut.read_in(proto) for shortcut in shortcuts if shortcut is not None]

    def _bounds(self, layer: Layer, added: Added | None) -> tuple[float, float] | None:
        """The bounds of the Relu or Clip that alone reads the output of `layer`, with the shortcut that is `added`."""
        node = self.shortcuts.reader(layer, None if added is None else added.shortcut)
        if node is None or node.op_type not in ("Relu", "Clip"):
            return None
        return (0.0, np.inf) if node.op_type == "Relu" else clip_bounds(self.proto, node)

    def _along(self, layer: Layer, original: NDArray[np.float32], count: int) -> Along | None:
        """Where the samples lie in the layer's input, of which channels may be gone in the compressed network."""
        return along_batch(original.shape, self.graph.tensors[layer.inputs[0]].shape, count, self.fixed)

    def _patches(
        self, layer: Layer, array: NDArray[np.float32], images: range, along: Along | None
    ) -> NDArray[np.float32]:
        """Patches of a batch of the layer's input; the positions depend on the seed and the batch only."""
        rng = np.random.default_rng([self.seed, images.start])
        each = self.per_image * (1 if along is not None else len(images))
        return patches_of(layer, self.nodes[layer.key].attributes, array, each, rng, along)


def _pointwise(layer: Layer) -> Layer:
    """A layer that reads, at each position of the output of `layer`, this position alone."""
    if "Conv" not in layer.op_type:
        return layer
    dims = replace(layer.loop_dims, FX=1, FY=1, pads=(0, 0, 0, 0), stride=(1, 1), dilation=(1, 1))
    return replace(layer, op_type="Conv", loop_dims=dims)


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
