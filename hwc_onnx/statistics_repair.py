"""Channel statistics of a stitched plan, brought back to the original's in one run of the compressed network.

Entries of the layer database know nothing of one another; what the first layers get wrong shifts and scales the inputs
of the later ones. The mean and the spread of each output channel show most of it, and both are free to mend: the spread
with the scale of the channel's weights, the mean with its bias (rewrite/channel_repair.py has the formulas). The
BatchNormalizations that are no part of a layer have a scale and a bias too, and are mended in the same run
(recovery/batch_norms.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.runner import open_session
from hwc_onnx.accuracy.tensors import with_outputs
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.database import LayerDatabase, Stitched
from hwc_onnx.errors import RuntimeFailure
from hwc_onnx.graph.external import tensor_values
from hwc_onnx.graph.layer_graph import Layer, LayerGraph
from hwc_onnx.quantization.quantizer import QuantizedWeight, QuantParams
from hwc_onnx.recovery.batch_norms import AXIS, batch_norms, reestimated
from hwc_onnx.rewrite.channel_repair import ChannelTarget, mending, with_means
from hwc_onnx.rewrite.insert_qdq import insert_qdq

MOST_SAMPLES = 256
FEWEST_SAMPLES = 16
BATCH_BYTES = 256 << 20
"""The largest tensor of the one batch that all samples make stays below this."""
ROUNDING = 1e-4
"""Smaller factors (less 1) and shifts (in standard deviations) are those of sums taken in another order."""


class StatisticsRepair:
    """Mends stitched plans of one model; the original's statistics are measured once, when first needed.

    Args:
        proto: the normalised float model.
        graph: its layer graph.
        database: where the plans come from.
        samples: calibration inputs; some 256 of them, spread over all, make one batch.
        threads: ONNX Runtime threads.
        layers: whether layers are mended.
        normalizations: whether BatchNormalizations are.

    A model that does not take a batch of that size, or fewer than 16 samples, leaves plans as they are.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        graph: LayerGraph,
        database: LayerDatabase,
        samples: Samples,
        threads: int | None = None,
        layers: bool = True,
        normalizations: bool = True,
    ) -> None:
        self._proto, self._graph, self._database, self._threads = proto, graph, database, threads
        largest = max((int(np.prod(info.shape, dtype=np.int64)) for info in graph.tensors.values()), default=1)
        count = min(MOST_SAMPLES, len(samples), BATCH_BYTES // max(4 * largest, 1))
        self._samples = samples.take(np.linspace(0, len(samples) - 1, max(count, 1)).astype(np.int64))
        self._layers = {layer.key: layer for layer in graph.layers if layers and layer.weight is not None}
        norms = [norm for norm in batch_norms(proto) if norm.key in graph.tensors] if normalizations else []
        self._norms = {norm.key: norm for norm in norms if len(graph.tensors[norm.key].shape) > AXIS}

    @property
    def possible(self) -> bool:
        """Whether plans can be mended."""
        return bool(self._targets)

    def __call__(self, stitched: Stitched) -> Stitched:
        """The plan with mended scales and biases (the same where it cannot be mended)."""
        targets = self._targets_of(stitched)
        if not targets:
            return stitched
        carrier = stitched.float_model(self._proto, self._graph)
        candidate = insert_qdq(
            carrier, self._graph, stitched.weights, stitched.activations, stitched.plan.dialect, "measure"
        )
        try:
            model, names = mending(candidate, {self._tensors[key]: target for key, target in targets.items()})
            values = self._run(model, names)
        except RuntimeFailure:
            return stitched
        weights, constants = dict(stitched.weights), dict(stitched.constants)
        given = {tensor.name: tensor for tensor in carrier.graph.initializer}
        for place, key in enumerate(targets):
            mean, shift, factor = (values[3 * place + i].reshape(-1).astype(np.float64) for i in range(3))
            if not all(np.isfinite(part).all() for part in (mean, shift, factor)):
                continue
            if key in self._layers:
                if weights[key].params is not None or _moved(targets[key], shift, factor):
                    weights[key] = _mended(weights[key], self._layers[key].output_axis, mean, shift, factor)
            elif _moved(targets[key], shift, factor):
                norm = self._norms[key]
                scale, bias = (tensor_values(given[name]) for name in (norm.scale, norm.bias))
                constants[norm.scale], constants[norm.bias] = reestimated(scale, bias, mean, shift, factor)
        return replace(stitched, weights=weights, constants=constants)

    def _targets_of(self, stitched: Stitched) -> dict[str, ChannelTarget]:
        """Targets of the normalizations, and of the layers that have a bias, for the channels that are left."""
        found = {}
        for key, target in self._targets.items():
            if key in self._norms:
                kept = self._database.maps.kept_at(self._norms[key].scale, 0, stitched.keep)
                found[key] = _of_channels(target, kept)
                continue
            weight, layer = stitched.weights.get(key), self._layers[key]
            if weight is None or weight.bias is None:
                continue
            target = _of_channels(target, self._database.maps.kept(layer, layer.output_axis, stitched.keep))
            rows = weight.codes.shape[layer.output_axis] if weight.params is None else weight.params.scale.size
            if weight.bias.size == rows == target.variance.size:
                found[key] = target
        return found

    @cached_property
    def _tensors(self) -> Mapping[str, str]:
        """The tensor that has a layer's bias in it, by layer key, and the outputs of normalizations."""
        adds = {name: node for node in self._graph.nodes if node.op_type == "Add" for name in node.inputs}
        found = {key: key for key in self._norms}
        for key, layer in self._layers.items():
            behind = adds.get(key) if layer.op_type == "MatMul" and layer.bias is not None else None
            found[key] = behind.key if behind is not None and layer.bias in behind.inputs else key
        return found

    @cached_property
    def _targets(self) -> dict[str, ChannelTarget]:
        """The original's statistics by key of a layer or normalization; empty where it cannot run on the batch."""
        axes = {key: (len(self._graph.tensors[key].shape), AXIS) for key in self._norms}
        for key, layer in self._layers.items():
            rank = len(self._graph.tensors[self._tensors[key]].shape)
            axis = _channel_axis(layer, rank)
            if axis is not None and layer.state_weight is None:
                axes[self._tensors[key]] = (rank, axis)
        if len(self._samples) < FEWEST_SAMPLES or not axes:
            return {}
        try:
            values = self._run(*with_means(self._proto, axes))
        except RuntimeFailure:
            return {}
        found = {}
        places = {tensor: place for place, tensor in enumerate(axes)}
        for key, tensor in self._tensors.items():
            if tensor not in axes:
                continue
            place = places[tensor]
            means, variance = values[2 * place], values[2 * place + 1]
            if len(means) == len(self._samples) and np.isfinite(means).all() and np.isfinite(variance).all():
                rank, axis = axes[tensor]
                found[key] = ChannelTarget(means.reshape(len(means), -1), variance.reshape(-1), rank, axis)
        return found

    def _run(self, model: onnx.ModelProto, names: list[str]) -> list[NDArray[np.float32]]:
        """Tensors `names` for all samples as one batch."""
        cut = with_outputs(model, names)
        for value in cut.graph.input:
            if value.type.tensor_type.shape.dim and value.type.tensor_type.shape.dim[0].dim_value:
                value.type.tensor_type.shape.dim[0].dim_param = "batch"
        del cut.graph.value_info[:]
        session = open_session(cut, self._threads, "fake_quant", "operators")
        feeds = {spec.name: self._samples.inputs[spec.name] for spec in session.inputs if not spec.whole}
        return session.run(feeds, names)


def _of_channels(target: ChannelTarget, kept: NDArray[np.int64] | None) -> ChannelTarget:
    """The target of the channels `kept` (None: all)."""
    return target if kept is None else replace(target, means=target.means[:, kept], variance=target.variance[kept])


def _moved(target: ChannelTarget, shift: NDArray[np.float64], factor: NDArray[np.float64]) -> bool:
    """Whether a correction is more than the rounding of the run: what nothing compressed precedes stays bit by bit."""
    spread = np.sqrt(target.variance.mean(dtype=np.float64))
    return bool((np.abs(factor - 1.0) > ROUNDING).any() or (np.abs(shift) > ROUNDING * spread).any())


def _channel_axis(layer: Layer, rank: int) -> int | None:
    """The axis of a layer's output channels in its output of `rank` axes; None where images have no axis of their own."""
    if rank < 2:
        return None
    if layer.op_type in ("Conv", "ConvTranspose"):
        return 1
    if layer.op_type == "Gemm":
        return 1
    turned = layer.output_axis == len(layer.weight_shape) - 2
    axis = rank - 2 if turned else rank - 1
    return axis if axis > 0 else None


def _mended(
    weight: QuantizedWeight, axis: int, mean: NDArray[np.float64], shift: NDArray[np.float64], factor: NDArray[np.float64]
) -> QuantizedWeight:
    """y = (y' - m) a + m - k d, with a in the scales of the weight (or in its real values, whose outputs are along `axis`) and
    the rest in its bias.
    """
    assert weight.bias is not None
    params = weight.params
    bias = ((weight.bias - mean) * factor + mean - shift).astype(np.float32)
    if params is None:
        shape = [1] * weight.codes.ndim
        shape[axis] = -1
        return replace(weight, codes=(weight.codes * factor.reshape(shape)).astype(np.float32), bias=bias)
    scale = (params.scale * factor).astype(np.float32)
    return replace(weight, bias=bias, params=QuantParams(scale, params.zero_point, params.bits, params.signed, params.axis))
