"""What is measured of a stored tensor and its quantizer: how its values lie in the range, and what part of the error is whose.

All figures come from the calibration histogram. Exact zeros are left out where shares of levels are counted: every
quantizer here represents them exactly, and after a Relu they are most of a tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.database import LayerDatabase
from hwc_onnx.graph.layer_graph import ActivationGroup, Layer, LayerGraph
from hwc_onnx.graph.op_kinds import BINARY, JOINS, SOFTMAXES
from hwc_onnx.quantization.histogram import StreamingHistogram
from hwc_onnx.quantization.quantizer import QuantParams

HELD = 0.99
TAIL = 0.999


@dataclass(frozen=True)
class TensorFacts:
    """One stored tensor at one width.

    `low`, `high` are the values seen, `range_ratio` how many times wider their range is than that of the innermost 99.9%
    of the values that are not zero; `levels` how many of the 2^bits levels hold 99% of them. `error` is the rounding error
    relative to the tensor's variance, `clipped` the share of it that comes from values beyond the range; `lost` the share
    of the values that are not zero but become so. `softmax` says that a Softmax makes the tensor, `constant` that
    calibration saw one value only.
    """

    tensor: str
    bits: int
    low: float
    high: float
    range_ratio: float
    levels: int
    error: float
    clipped: float
    lost: float
    softmax: bool
    constant: bool

    @property
    def level_share(self) -> float:
        """Share of the levels that hold 99% of the values."""
        return self.levels / float(2**self.bits)


def tensor_facts(graph: LayerGraph, database: LayerDatabase, group: ActivationGroup, bits: int) -> TensorFacts:
    """The facts of a group's tensors, which share one quantizer, at `bits` (2 to 8)."""
    histogram = merged(database, group)
    params = database.activation_params(group.tensor, bits)
    step, zero = float(params.scale), int(params.zero_point)
    centers, counts = histogram.centers()
    codes = np.clip(np.rint(centers / step) + zero, params.qmin, params.qmax)
    total, clipped = _errors(histogram, params)
    nonzero = max(float(counts.sum()), 1.0)
    return TensorFacts(
        group.tensor,
        bits,
        histogram.minimum,
        histogram.maximum,
        _range_ratio(histogram),
        _levels(codes, counts),
        total / max(histogram.variance, 1e-30),
        clipped / total if total > 0 else 0.0,
        float(counts[codes == zero].sum()) / nonzero,
        any(made_by(graph, name, SOFTMAXES) for name in group.tensors),
        histogram.minimum == histogram.maximum,
    )


def merged(database: LayerDatabase, group: ActivationGroup) -> StreamingHistogram:
    """The histogram of all tensors of a group."""
    found = [database.calibration.histograms[name] for name in group.tensors]
    histogram = found[0]
    for other in found[1:]:
        histogram = histogram.merge(other)
    return histogram


def made_by(graph: LayerGraph, tensor: str, operators: frozenset[str]) -> bool:
    """Whether one of these operators makes a tensor, looking through operators that only move values."""
    makers = {name: node for node in graph.nodes for name in node.outputs}
    node = makers.get(tensor)
    while node is not None and node.op_type in JOINS and node.inputs:
        node = makers.get(node.inputs[0])
    return node is not None and node.op_type in operators


def feeds_softmax(graph: LayerGraph, layer: Layer) -> bool:
    """Whether a layer's output reaches a Softmax through nothing but scaling, shifting and moving values."""
    reached = set(layer.outputs)
    for node in graph.nodes:
        if reached & set(node.inputs):
            if node.op_type in SOFTMAXES:
                return True
            if node.op_type in BINARY | JOINS:
                reached |= set(node.outputs)
    return False


def _range_ratio(histogram: StreamingHistogram) -> float:
    """Range of the values seen over the range of the innermost 99.9% of those that are not zero, each with 0 in it."""
    centers, counts = histogram.centers()
    if not len(centers):
        return 1.0
    cumulative = np.cumsum(counts) / counts.sum()
    tail = (1.0 - TAIL) / 2.0 if histogram.minimum < 0.0 < histogram.maximum else 1.0 - TAIL
    first = centers[int(np.searchsorted(cumulative, tail))] if histogram.minimum < 0 else 0.0
    last = (
        centers[min(int(np.searchsorted(cumulative, 1.0 - tail)), len(centers) - 1)] if histogram.maximum > 0 else 0.0
    )
    inner = max(float(last), 0.0) - min(float(first), 0.0)
    return (max(histogram.maximum, 0.0) - min(histogram.minimum, 0.0)) / inner if inner > 0 else 1.0


def _levels(codes: NDArray[np.float64], counts: NDArray[np.int64]) -> int:
    """How many levels, the fullest first, hold 99% of the values."""
    if not len(codes):
        return 1
    _, place = np.unique(codes, return_inverse=True)
    held = np.sort(np.bincount(place, weights=counts))[::-1]
    return int(np.searchsorted(np.cumsum(held), HELD * held.sum())) + 1


def _errors(histogram: StreamingHistogram, params: QuantParams) -> tuple[float, float]:
    """Mean squared error of the quantizer, and the part of it from values beyond its range."""
    total = histogram.squared_error(params)
    if not histogram.total:
        return 0.0, 0.0
    centers, counts = histogram.centers()
    step, zero = float(params.scale), int(params.zero_point)
    low, high = (params.qmin - zero - 0.5) * step, (params.qmax - zero + 0.5) * step
    limited = np.clip(centers, (params.qmin - zero) * step, (params.qmax - zero) * step)
    outside = (centers < low) | (centers > high)
    clipped = float((counts[outside] * (centers[outside] - limited[outside]) ** 2).sum()) / histogram.total
    return total, min(clipped, total)
