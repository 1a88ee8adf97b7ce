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
SHRUNK = 0.75
"""Share of a reader's columns that is left when its arrays are made smaller."""


def order(consumers: Sequence[Consumer], channels: int, count: int) -> NDArray[np.int64]:
    """The first `count` of `channels` to leave, in that order."""
    states = [_State(consumer, channels) for consumer in consumers]
    left: list[int] = []
    cost = np.zeros(channels)
    for _ in range(count):
        cost[:] = 0.0
        for state in states:
            state.add_costs(cost)
        cost[left] = np.inf
        left.append(int(np.argmin(cost)))
        for state in states:
            state.remove(left[-1])
    return np.array(left, dtype=np.int64)


class _State:
    """One reader's rows and inverse moment while channels leave."""

    def __init__(self, consumer: Consumer, channels: int) -> None:
        width = consumer.moment.shape[0]
        ridge = RIDGE * max(float(np.trace(consumer.moment)) / width, 1e-12)
        self.weight = consumer.weight.copy()
        self.inverse = np.linalg.inv(consumer.moment + ridge * np.eye(width))
        self.power = max(float(np.einsum("rd,rd->", consumer.weight @ consumer.moment, consumer.weight)), 1e-30)
        self.channel = consumer.channel.copy()
        self.alive = np.ones(width, dtype=bool)
        self._place()

    def add_costs(self, cost: F64) -> None:
        """Add the relative output error that removing each channel here would leave to `cost` [channels]."""
        for members, index in self._groups:
            if index.shape[1] == 1:
                column = index[:, 0]
                apart = np.einsum("rd,rd->d", self.weight, self.weight)[column]
                cost[members] += apart / self.inverse[column, column] / self.power
                continue
            square = self.inverse[index[:, :, None], index[:, None, :]]
            rows = self.weight[:, index].transpose(1, 2, 0)
            cost[members] += np.einsum("nwr,nwr->n", np.linalg.solve(square, rows), rows) / self.power

    def remove(self, channel: int) -> None:
        """Refit the rest as if the channel were gone."""
        columns = np.flatnonzero((self.channel == channel) & self.alive)
        if not len(columns):
            return
        cross = self.inverse[:, columns]
        solved = np.linalg.solve(self.inverse[np.ix_(columns, columns)], cross.T)
        self.weight -= self.weight[:, columns] @ solved
        self.inverse -= cross @ solved
        self.alive[columns] = False
        if self.alive.mean() < SHRUNK:
            stays = np.flatnonzero(self.alive)
            self.weight = np.ascontiguousarray(self.weight[:, stays])
            self.inverse = np.ascontiguousarray(self.inverse[np.ix_(stays, stays)])
            self.channel, self.alive = self.channel[stays], self.alive[stays]
        self._place()

    def _place(self) -> None:
        """The columns [n, width] of the living channels [n], by how many columns a channel has."""
        living = np.flatnonzero((self.channel >= 0) & self.alive)
        by_channel = living[np.argsort(self.channel[living], kind="stable")]
        names, first, counts = np.unique(self.channel[by_channel], return_index=True, return_counts=True)
        self._groups = [
            (names[counts == width], by_channel[first[counts == width][:, None] + np.arange(width)])
            for width in np.unique(counts)
        ]


ALGORITHM = CoarseAlgorithm("gram", score, reads="consumers", order=order)
