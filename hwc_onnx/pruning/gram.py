"""Channels leave one by one, each time the one whose loss the remaining channels can best make up for.

With second moment C of a reader's inputs and its inverse V, removing the columns J of one channel and refitting the
others costs tr(W_J (V_JJ)^-1 W_J^T); afterwards W and V are downdated as in block Gaussian elimination. Costs are
relative to each reader's output power and added over readers.

Source: Hassibi & Stork, Optimal Brain Surgeon (NeurIPS 1993), equations 5 and 6, in block form; Frantar & Alistarh,
Optimal Brain Compression (NeurIPS 2022), section 4 (blocks).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.pruning.base import F64, CoarseAlgorithm, Consumer
from hwc_onnx.pruning.l2 import score

RIDGE = 0.01


def select(consumers: Sequence[Consumer], channels: int, kept: int) -> NDArray[np.int64]:
    """The sorted channels that stay, [kept], out of `channels`."""
    states = [_State(consumer, channels) for consumer in consumers]
    alive = np.ones(channels, dtype=bool)
    for _ in range(channels - kept):
        cost = np.zeros(channels)
        for state in states:
            cost += state.costs(alive)
        cost[~alive] = np.inf
        victim = int(np.argmin(cost))
        alive[victim] = False
        for state in states:
            state.remove(victim)
    return np.flatnonzero(alive).astype(np.int64)


class _State:
    """One reader's rows and inverse moment while channels leave."""

    def __init__(self, consumer: Consumer, channels: int) -> None:
        width = consumer.moment.shape[0]
        ridge = RIDGE * max(float(np.trace(consumer.moment)) / width, 1e-12)
        self.weight = consumer.weight.copy()
        self.inverse = np.linalg.inv(consumer.moment + ridge * np.eye(width))
        self.power = max(float(np.einsum("rd,rd->", consumer.weight @ consumer.moment, consumer.weight)), 1e-30)
        self.columns = [np.flatnonzero(consumer.channel == channel) for channel in range(channels)]

    def costs(self, alive: NDArray[np.bool_]) -> F64:
        """Relative output error [channels] that removing each living channel would leave."""
        cost = np.zeros(len(self.columns))
        by_width: dict[int, list[int]] = {}
        for channel in np.flatnonzero(alive).tolist():
            by_width.setdefault(len(self.columns[channel]), []).append(channel)
        for width, members in by_width.items():
            if width == 0:
                continue
            index = np.stack([self.columns[channel] for channel in members])
            square = self.inverse[index[:, :, None], index[:, None, :]]
            rows = self.weight[:, index].transpose(1, 2, 0)
            cost[members] = np.einsum("nwr,nwr->n", np.linalg.solve(square, rows), rows) / self.power
        return cost

    def remove(self, channel: int) -> None:
        """Refit the rest as if the channel were gone."""
        columns = self.columns[channel]
        if not len(columns):
            return
        cross = self.inverse[:, columns]
        solved = np.linalg.solve(self.inverse[np.ix_(columns, columns)], cross.T)
        self.weight -= self.weight[:, columns] @ solved
        self.inverse -= cross @ solved


ALGORITHM = CoarseAlgorithm("gram", score, reads="consumers", select=select)
