"""One streaming pass of calibration data through the original network, and what is kept of it.

Kept are, per layer, the moments of its input patches at sampled positions (separately for the images to fit on and
those to judge by); per stored tensor, a histogram.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.tensors import run_tensors
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError
from hwc_onnx.graph.layer_graph import Layer, LayerGraph, Node
from hwc_onnx.quantization.histogram import StreamingHistogram
from hwc_onnx.recovery.layout import layout_of
from hwc_onnx.recovery.patches import patches_of
from hwc_onnx.recovery.statistics import LayerStatistics, MomentsBuilder, Room

HELDOUT_SHARE = 0.25
GRAM_BYTES = 1 << 30
"""Gram matrices of all layers above this lie in temporary files."""
WIDEST = 12288
"""A layer with more inputs than this (1.2 GB a matrix) is not seen; it is rounded without repair."""
HISTOGRAM_ELEMENTS = 4 << 20
"""About so many values of each tensor enter its histogram, from as many whole images as that takes (at least 128)."""
COUNTED_ELEMENTS = 8 << 20
"""Values that are counted at once: each takes 20 bytes while it is."""


@dataclass(frozen=True)
class Calibration:
    """Statistics by layer key and histograms by tensor name, from `samples` images; `unseen` layers were too wide."""

    layers: Mapping[str, LayerStatistics]
    histograms: Mapping[str, StreamingHistogram]
    samples: int
    unseen: tuple[str, ...] = ()

    def remarks(self) -> list[str]:
        """What the repairs cannot rely on, in words: layers with fewer patches than inputs, tensors that never vary."""
        found = []
        thin = {k: s.fit for k, s in self.layers.items() if s.fit.rows < s.fit.gram.shape[-1]}
        if thin:
            worst = min(thin, key=lambda key: thin[key].rows / thin[key].gram.shape[-1])
            rows, width = thin[worst].rows, thin[worst].gram.shape[-1]
            found.append(
                f"{len(thin)} of {len(self.layers)} layers were seen with fewer input patches than they have inputs "
                f"({worst}: {rows} of {width}); what the samples do not tell is damped, more samples repair better"
            )
        if self.unseen:
            found.append(
                f"{len(self.unseen)} layers have more than {WIDEST:,} inputs to each output ({self.unseen[0]}); they are rounded "
                "and pruned, not repaired"
            )
        still = [name for name, seen in self.histograms.items() if seen.total and seen.minimum == seen.maximum]
        if still:
            found.append(
                f"{len(still)} stored tensors have one value on all calibration samples ({still[0]}: "
                f"{self.histograms[still[0]].minimum:g}); their ranges hold it and zero"
            )
        return found

    def digest(self) -> str:
        """SHA-256 of the layer statistics."""
        hasher = hashlib.sha256(str(self.samples).encode())
        for key in sorted(self.layers):
            hasher.update(key.encode())
            hasher.update(self.layers[key].digest().encode())
        return hasher.hexdigest()


def collect(
    proto: onnx.ModelProto,
    graph: LayerGraph,
    samples: Samples,
    *,
    threads: int | None = None,
    batch: int = 64,
    gram_rows: int = 8192,
    moments: bool = True,
    rng: np.random.Generator,
) -> Calibration:
    """Run `samples` through the normalised float model `proto` once and gather statistics.

    Args:
        proto: the model that `graph` was parsed from.
        graph: its layers and activation groups.
        samples: calibration inputs; the last quarter is held out.
        threads: ONNX Runtime threads, None for its default.
        batch: images per run, where the model's batch size is free.
        gram_rows: patches per layer to fit on, about (a quarter as many more are held out).
        moments: False leaves out the layers' moments (d x d for d inputs), for callers that only round.
        rng: draws the positions.

    Raises:
        DataError: values that are NaN or infinite; the message names the node and the sample.
        RuntimeFailure: ONNX Runtime cannot run the model.
    """
    collectors = _collectors(graph, samples, gram_rows, rng) if moments else {}
    histograms = {name: StreamingHistogram() for group in graph.activation_groups for name in group.tensors}
    wanted = set(histograms)
    for collector in collectors.values():
        wanted.add(collector.source)
    names = sorted(name for name in wanted if graph.tensors[name].dtype.startswith("float"))
    sizes = {name: int(np.prod(graph.tensors[name].shape, dtype=np.int64)) for name in names}
    makers = {output: node for node in graph.nodes for output in node.outputs}
    for name, first, array in run_tensors(proto, samples, names, sizes, threads, batch):
        _check_finite(name, first, array, makers.get(name))
        if name in histograms and first < max(128, HISTOGRAM_ELEMENTS // max(sizes[name], 1)):
            flat = array.reshape(-1)
            for start in range(0, flat.size, COUNTED_ELEMENTS):
                histograms[name].update(flat[start : start + COUNTED_ELEMENTS])
        for collector in collectors.values():
            collector.see(name, first, array)
    unseen = tuple(layer.key for layer in graph.layers if moments and layer.weight is not None and _too_wide(layer))
    return Calibration({key: c.build() for key, c in collectors.items()}, histograms, len(samples), unseen)


def _check_finite(name: str, first: int, array: NDArray[np.float32], maker: Node | None) -> None:
    if np.isfinite(array).all():
        return
    bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
    by = f"{maker.op_type} '{maker.name or maker.key}' gives" if maker is not None else f"input '{name}' has"
    raise DataError(
        f"calibration sample {first + int(bad[0])}: {by} values that are NaN or infinite ({len(bad)} samples of its batch); "
        "check this sample and the weights around that node, or leave the sample out"
    )


class _LayerCollector:
    """Gathers one layer's moments from its input tensor."""

    def __init__(
        self, layer: Layer, node: Node, heldout_from: int, per_image: int, rng: np.random.Generator, room: Room
    ) -> None:
        layout = layout_of(layer)
        self.layer, self.node, self.source = layer, node, layer.inputs[0]
        self._heldout_from, self._per_image, self._rng = heldout_from, per_image, rng
        self._moments = [MomentsBuilder(layout.groups, layout.width, room) for _ in range(2)]

    def see(self, name: str, first: int, array: NDArray[np.float32]) -> None:
        """Take in a batch of tensor `name` whose first sample is number `first`."""
        if name == self.source:
            cut = min(max(self._heldout_from - first, 0), len(array))
            for builder, part in zip(self._moments, (array[:cut], array[cut:]), strict=True):
                if len(part):
                    builder.add(patches_of(self.layer, self.node.attributes, part, self._per_image, self._rng))

    def build(self) -> LayerStatistics:
        """What was gathered."""
        fit, heldout = (builder.build() for builder in self._moments)
        return LayerStatistics(fit, heldout if heldout.rows else fit)


def collectable(layer: Layer) -> bool:
    """Whether moments describe the layer: its weight is one matrix (per group) of at most `WIDEST` columns, with at most two
    kernel axes.
    """
    axes = (3, 4) if layer.op_type in ("Conv", "ConvTranspose") else (2,)
    return layer.weight is not None and len(layer.weight_shape) in axes and not _too_wide(layer)


def _too_wide(layer: Layer) -> bool:
    return layout_of(layer).width > WIDEST


def _collectors(
    graph: LayerGraph, samples: Samples, gram_rows: int, rng: np.random.Generator
) -> dict[str, _LayerCollector]:
    """One collector per layer; each draws from its own generator, so that layers do not depend on one another."""
    nodes = {node.key: node for node in graph.nodes}
    fitted = max(1, len(samples) - round(len(samples) * HELDOUT_SHARE))
    per_image = max(1, -(-gram_rows // fitted))
    layers = [layer for layer in graph.layers if collectable(layer)]
    generators = rng.spawn(len(layers))
    room = Room(GRAM_BYTES)
    return {
        layer.key: _LayerCollector(layer, nodes[layer.key], fitted, per_image, generator, room)
        for layer, generator in zip(layers, generators, strict=True)
    }
