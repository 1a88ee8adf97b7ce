"""Values of a stored tensor by channel, so that its range can be found again once some of the channels are gone.

Kept are the extremes of each channel over everything seen, and values at positions that are drawn, the same for all channels.
When they become too many, every second one is dropped and as many fewer are drawn from then on: all batches weigh alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.quantization.histogram import StreamingHistogram

Index = NDArray[np.int64]

VALUES = 1 << 17
"""About so many values of a tensor are kept."""
FEWEST, MOST = 64, 4096
"""Values of one channel."""
SHARE = 8
"""Batches of which each may give its full share at first."""


class ChannelValues:
    """The channels along `axis`; `rng` draws positions."""

    def __init__(self, axis: int, channels: int, rng: np.random.Generator) -> None:
        self.axis = axis
        self._rng = rng
        self._most = min(max(VALUES // channels, FEWEST), MOST)
        self._take = max(self._most // SHARE, 1)
        self._parts: list[NDArray[np.float32]] = []
        self._low = np.full(channels, np.inf, dtype=np.float32)
        self._top = np.full(channels, -np.inf, dtype=np.float32)

    def update(self, array: NDArray[np.float32]) -> None:
        """Take in a batch of the tensor."""
        if not array.size:
            return
        others = tuple(axis for axis in range(array.ndim) if axis != self.axis)
        self._low, self._top = np.minimum(self._low, array.min(axis=others)), np.maximum(self._top, array.max(axis=others))
        sizes = tuple(array.shape[axis] for axis in others)
        # drawn with replacement: among so many positions hardly any comes twice
        places = np.unravel_index(np.sort(self._rng.integers(int(np.prod(sizes)), size=self._take)), sizes)
        drawn: tuple[Any, ...] = (slice(None), *places)
        self._parts.append(np.moveaxis(array, self.axis, 0)[drawn])
        if sum(part.shape[1] for part in self._parts) > self._most:
            whole = np.concatenate(self._parts, axis=1)
            self._parts, self._take = [whole[:, ::2]], max(self._take // 2, 1)

    def histogram(self, kept: Index) -> StreamingHistogram:
        """The histogram of the channels `kept`: the values drawn, and the extremes."""
        found = StreamingHistogram()
        for part in self._parts:
            found.update(part[kept])
        if self._parts:
            found.update(np.concatenate([self._low[kept], self._top[kept]]))
        return found
