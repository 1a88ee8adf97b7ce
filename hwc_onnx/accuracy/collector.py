"""One streaming pass of calibration data through the original network, and what is kept of it.

Kept are, per layer, the moments of its input patches at sampled positions (separately for the images to fit on and
those to judge by); per stored tensor, a histogram.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.tensors import check_finite, fixed_batch, run_tensors
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError
from hwc_onnx.events import Listener, Step, silent
from hwc_onnx.graph.layer_graph import Layer, LayerGraph, Node
from hwc_onnx.quantization.channel_values import ChannelValues
from hwc_onnx.quantization.histogram import StreamingHistogram
from hwc_onnx.recovery.layout import layout_of
from hwc_onnx.recovery.patches import Along, along_batch, patches_of
from hwc_onnx.recovery.statistics import WIDEST, LayerStatistics, MomentsBuilder, Room

HELDOUT_SHARE = 0.25
GRAM_BYTES = 1 << 30
"""Gram matrices of all layers above this lie in temporary files."""
HISTOGRAM_ELEMENTS = 4 << 20
"""About so many values of each tensor enter its histogram, from as many whole images as that takes (at least 128)."""
LARGEST = 1e15
"""Inputs of a layer beyond this are refused: sums of their squares leave single precision."""
COUNTED_ELEMENTS = 8 << 20
"""Values that are counted at once: each takes 20 bytes while it is."""


@dataclass(frozen=True)
class Calibration:
    """Statistics by layer key and histograms by tensor name, from `samples` images; `unseen` says of layers why they have no
    statistics; `channels` holds values by channel of the tensors that can lose some.
    """

    layers: Mapping[str, LayerStatistics]
    histograms: Mapping[str, StreamingHistogram]
    samples: int
    unseen: Mapping[str, str] = field(default_factory=dict)
    channels: Mapping[str, ChannelValues] = field(default_factory=dict)

    def remarks(self) -> list[str]:
        """What the repairs cannot rely on, in words: layers with fewer patches than inputs, tensors that never vary."""
        found = []
        thin = {k: s.fit for k, s in self.layers.items() if s.fit.rows < s.fit.gram.shape[-1]}
        if thin:
            worst = min(thin, key=lambda key: thin[key].rows / thin[key].gram.shape[-1])
            rows, width = thin[worst].rows, thin[worst].gram.shape[-1]
            found.append(
                f"{len(thin)} of {len(self.layers)} layers: seen with fewer input patches than there are inputs "
                f"({worst}: {rows} of {width}); what the samples do not tell is damped, more samples repair better"
            )
        dead = {key: (seen.fit.never, seen.fit.gram.shape[0] * seen.fit.gram.shape[-1]) for key, seen in self.layers.items()}
        worst_dead = max(dead, key=lambda key: dead[key][0] / dead[key][1], default=None)
        if worst_dead is not None and dead[worst_dead][0]:
            never, width = dead[worst_dead]
            found.append(
                f"{sum(bool(count) for count, _ in dead.values())} of {len(self.layers)} layers: some inputs were always zero "
                f"({worst_dead}: {never} of {width}); what their weights do on other data is not known"
            )
        for why in dict.fromkeys(self.unseen.values()):
            keys = [key for key, said in self.unseen.items() if said == why]
            found.append(
                f"{len(keys)} of {len(self.layers) + len(self.unseen)} layers: rounded and pruned, not repaired: {why} "
                f"({keys[0]})"
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
    on_event: Listener = silent,
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
        on_event: hears how many samples are done.

    Raises:
        DataError: values that are NaN or infinite; the message names the node and the sample.
        RuntimeFailure: ONNX Runtime cannot run the model.
    """
    collectors = _collectors(graph, samples, gram_rows, rng) if moments else {}
    histograms = {name: StreamingHistogram() for group in graph.activation_groups for name in group.tensors}
    channels = _channel_values(graph, histograms)
    wanted = set(histograms)
    for collector in collectors.values():
        wanted.add(collector.source)
    names = sorted(name for name in wanted if graph.tensors[name].dtype.startswith("float"))
    sizes = {name: int(np.prod(graph.tensors[name].shape, dtype=np.int64)) for name in names}
    fixed = fixed_batch(input_specs(proto))
    done = 0
    for name, at, array in run_tensors(proto, samples, names, sizes, threads, batch):
        check_finite(proto, graph, samples, fixed, name, at, array)
        if name in histograms and at.start < max(128, HISTOGRAM_ELEMENTS // max(sizes[name], 1)):
            flat = array.reshape(-1)
            for start in range(0, flat.size, COUNTED_ELEMENTS):
                histograms[name].update(flat[start : start + COUNTED_ELEMENTS])
        if name in channels:
            channels[name].update(array)
        for collector in collectors.values():
            if name == collector.source:
                collector.see(at, array, along_batch(array.shape, graph.tensors[name].shape, len(at), fixed))
        done += len(at)
        on_event(Step(done // len(names), len(samples)))
    unseen = {layer.key: why for layer in graph.layers if moments and (why := unseen_because(layer)) is not None}
    return Calibration({key: c.build() for key, c in collectors.items()}, histograms, len(samples), unseen, channels)


def _channel_values(graph: LayerGraph, stored: Container[str]) -> dict[str, ChannelValues]:
    """One for each stored tensor that can lose channels along one axis; each draws from its own generator."""
    axes: dict[str, set[int]] = {}
    for group in graph.channel_groups:
        for member in group.members if group.locked_because is None else ():
            if member.tensor in stored:
                axes.setdefault(member.tensor, set()).add(member.axis)
    found = {}
    for name, (axis, *others) in axes.items():
        if axis > 0 and not others:
            rng = np.random.default_rng([zlib.crc32(name.encode()), 0xC4A])
            found[name] = ChannelValues(axis, graph.tensors[name].shape[axis], rng)
    return found


class _LayerCollector:
    """Gathers one layer's moments from its input tensor."""

    def __init__(
        self, layer: Layer, node: Node, heldout_from: int, per_image: int, rng: np.random.Generator, room: Room
    ) -> None:
        layout = layout_of(layer)
        self.layer, self.node, self.source = layer, node, layer.inputs[0]
        self._heldout_from, self._per_image, self._rng = heldout_from, per_image, rng
        self._moments = [MomentsBuilder(layout.groups, layout.width, room) for _ in range(2)]

    def see(self, batch: range, array: NDArray[np.float32], along: Along | None) -> None:
        """Take in the samples `batch` of the layer's input, which lie `along` an axis; without one they are not divided."""
        largest = max(float(array.max(initial=0.0)), -float(array.min(initial=0.0)))
        if largest > LARGEST:
            raise DataError(
                f"layer '{self.layer.key}': its input has values up to {largest:.3g} on the calibration samples, more than "
                f"{LARGEST:g}; check the samples and the weights before it, or leave the layer out with --exclude"
            )
        cut = min(max(self._heldout_from - batch.start, 0), len(batch))
        if along is None:
            whole = patches_of(self.layer, self.node.attributes, array, self._per_image * len(batch), self._rng, None)
            self._moments[int(cut < len(batch) - cut)].add(whole)
            return
        for builder, (first, stop) in zip(self._moments, ((0, cut), (cut, len(batch))), strict=True):
            if first < stop:
                part = along.part(array, first, stop)
                builder.add(patches_of(self.layer, self.node.attributes, part, self._per_image, self._rng, along))

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


def unseen_because(layer: Layer) -> str | None:
    """Why no moments are gathered for a layer that has a weight, so that it is rounded and pruned without repair."""
    if layer.weight is None or collectable(layer):
        return None
    if _too_wide(layer):
        return f"more than {WIDEST:,} inputs to each output"
    if layer.state_weight is not None:
        return f"what a {layer.op_type} reads of its own state is not seen"
    if layer.op_type in ("Conv", "ConvTranspose"):
        return f"{layer.op_type} with more than two kernel axes"
    return f"{layer.op_type} with a stack of matrices"


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
