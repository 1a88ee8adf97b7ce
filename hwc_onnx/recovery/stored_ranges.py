"""Quantizers of stored tensors, from what calibration saw of them; of tensors that lost channels, from the ones that are left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.layer_graph import ActivationGroup
from hwc_onnx.quantization.channel_values import ChannelValues
from hwc_onnx.quantization.histogram import StreamingHistogram
from hwc_onnx.quantization.quantizer import QuantParams
from hwc_onnx.quantization.ranges import Method, activation_params
from hwc_onnx.recovery.byte_cache import ByteCache
from hwc_onnx.recovery.channels import ChannelMaps
from hwc_onnx.recovery.entries import Parameters

Index = NDArray[np.int64]

HISTOGRAM_BYTES = 64 << 20
"""Histograms of tensors that lost channels are remembered up to so many bytes."""
NOTHING_CUT: Mapping[str, Index] = MappingProxyType({})


STILL_STEPS = 256
"""Steps of a bias in its root mean square, behind a tensor that is always zero."""


def still_scale(group: ActivationGroup, parameters: Mapping[str, Parameters]) -> float:
    """A scale for a tensor that calibration only saw zeros of, so fine that the readers' biases, which are stored as multiples
    of it and the weights' scale, stay what they are at any width of the weights.
    """
    found = []
    for one in (parameters[key] for key in group.readers if key in parameters):
        bias = 0.0 if one.bias is None else float(np.sqrt(np.mean(np.square(one.bias, dtype=np.float64))))
        largest = float(np.abs(one.weight).max(initial=0.0))
        if bias > 0.0 and largest > 0.0:
            found.append(bias / largest / STILL_STEPS)
    return min(found, default=1.0)


class StoredRanges:
    """Quantizers by tensor and width; all tensors of an activation group share one.

    Args:
        groups: the activation groups.
        histograms: values seen, by tensor.
        channels: values by channel, of the tensors that can lose some.
        maps: the channels that are left of a tensor.
        method: how ranges are chosen.
        symmetric: signed codes with zero point 0.
        power_of_two: only such scales.
        still: the scale of a group that calibration only saw zeros of.
    """

    def __init__(
        self,
        groups: Sequence[ActivationGroup],
        histograms: Mapping[str, StreamingHistogram],
        channels: Mapping[str, ChannelValues],
        maps: ChannelMaps,
        method: Method,
        symmetric: bool,
        power_of_two: bool,
        still: Callable[[ActivationGroup], float] = lambda group: 1.0,
    ) -> None:
        self.group_of = {tensor: group for group in groups for tensor in group.tensors}
        self._seen, self._channels, self._maps = histograms, channels, maps
        self._method, self._symmetric, self._power_of_two = method, symmetric, power_of_two
        self._still = still
        self._params: dict[tuple[object, ...], QuantParams] = {}
        self._cut = ByteCache(HISTOGRAM_BYTES)
        self._whole: dict[tuple[str, int], tuple[float, float]] = {}

    def params(self, tensor: str, bits: int, keep: Mapping[str, Index] = NOTHING_CUT) -> QuantParams:
        """Quantizer of `tensor`, for the channels that are left when channel groups are cut to `keep`."""
        group = self.group_of[tensor]
        kept = [self._kept(name, keep) for name in group.tensors]
        memo = (group.tensor, bits, *(None if places is None else places.tobytes() for places in kept))
        if memo not in self._params:
            histogram, *others = (self._histogram(*one) for one in zip(group.tensors, kept, strict=True))
            for other in others:
                histogram = histogram.merge(other)
            how = (self._method, self._symmetric, self._power_of_two)
            zero = histogram.minimum == histogram.maximum == 0.0
            self._params[memo] = activation_params(histogram, bits, *how, self._still(group) if zero else 1.0)
        return self._params[memo]

    def density(self, tensor: str, bits: int, keep: Mapping[str, Index] = NOTHING_CUT) -> float:
        """Share of the tensor's elements that are not zero once quantized at `bits`, of the channels that are left."""
        params = self.params(tensor, bits, keep)
        if params is self.params(tensor, bits):
            return self._uncut(tensor, bits)[0]
        return self._histogram(tensor, self._kept(tensor, keep)).density(params)

    def noise(self, tensor: str, bits: int) -> float:
        """Mean squared rounding error of the tensor at `bits`."""
        return self._uncut(tensor, bits)[1]

    def _uncut(self, tensor: str, bits: int) -> tuple[float, float]:
        """Density and mean squared rounding error of the whole tensor (remembered: every candidate asks for them)."""
        if (tensor, bits) not in self._whole:
            seen, params = self._seen[tensor], self.params(tensor, bits)
            self._whole[tensor, bits] = seen.density(params), seen.squared_error(params)
        return self._whole[tensor, bits]

    def _kept(self, tensor: str, keep: Mapping[str, Index]) -> Index | None:
        """Channels of a tensor that are left, None where it loses none or none are told apart."""
        values = self._channels.get(tensor) if keep else None
        return None if values is None else self._maps.kept_at(tensor, values.axis, keep)

    def _histogram(self, tensor: str, kept: Index | None) -> StreamingHistogram:
        """The values of a tensor, or those of the channels `kept` (remembered)."""
        if kept is None:
            return self._seen[tensor]
        key = (tensor, kept.tobytes())
        found: StreamingHistogram | None = self._cut.get(key)
        if found is None:
            found = self._channels[tensor].histogram(kept)
            self._cut.put(key, found, found.counts.nbytes)
        return found
