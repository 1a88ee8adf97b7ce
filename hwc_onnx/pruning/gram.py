"""Channels leave one by one, each time the one whose loss the remaining channels can best make up for.

With second moment C of a reader's inputs and its inverse V, removing the columns J of one channel and refitting the
others costs tr(W_J (V_JJ)^-1 W_J^T); afterwards W and V are downdated as in block Gaussian elimination. W is needed
through G = W^T W alone. Costs are relative to each reader's output power and added over readers.

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
WAITING = 64
"""Columns whose removal is carried out at once."""


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
    """One reader's inverse moment V and its rows' products G = W^T W while channels leave.

    Both change by products of narrow matrices, V by A T^T and G by B T^T + T B^T, which wait until there are enough of them:
    only the columns of the next channel and the blocks of the living ones are needed in between.
    """

    def __init__(self, consumer: Consumer, channels: int) -> None:
        width = consumer.moment.shape[0]
        ridge = RIDGE * max(float(np.trace(consumer.moment)) / width, 1e-12)
        self.inverse = np.linalg.inv(consumer.moment + ridge * np.eye(width))
        self.products = consumer.weight.T @ consumer.weight
        self.power = max(float(np.einsum("rd,rd->", consumer.weight @ consumer.moment, consumer.weight)), 1e-30)
        self.channel = consumer.channel.copy()
        self.alive = np.ones(width, dtype=bool)
        self._begin()

    def add_costs(self, cost: F64) -> None:
        """Add the relative output error that removing each channel here would leave to `cost` [channels]."""
        for blocks in self._blocks:
            cost[blocks.channels] += blocks.costs() / self.power

    def remove(self, channel: int) -> None:
        """Refit the rest as if the channel were gone."""
        columns = np.flatnonzero((self.channel == channel) & self.alive)
        if not len(columns):
            return
        left, right, both = (np.hstack(parts) for parts in (self._left, self._right, self._both))
        cross = self.inverse[:, columns] - left @ right[columns].T
        own = self.products[:, columns] - both @ right[columns].T - right @ both[columns].T
        solved = np.linalg.solve(cross[columns], cross.T).T.astype(np.float64, copy=False)
        halved = own - 0.5 * solved @ own[columns]
        self.alive[columns] = False
        for blocks in self._blocks:
            blocks.follow(channel, cross, solved, halved)
        self._left.append(cross)
        self._right.append(solved)
        self._both.append(halved)
        if left.shape[1] + len(columns) >= WAITING:
            self._catch_up()

    def _catch_up(self) -> None:
        """Carry out what waits, and let go of what is gone."""
        left, right, both = (np.hstack(parts) for parts in (self._left, self._right, self._both))
        self.inverse -= left @ right.T
        change = both @ right.T
        self.products -= change + change.T
        if self.alive.mean() < SHRUNK:
            stays = np.flatnonzero(self.alive)
            self.inverse = np.ascontiguousarray(self.inverse[np.ix_(stays, stays)])
            self.products = np.ascontiguousarray(self.products[np.ix_(stays, stays)])
            self.channel, self.alive = self.channel[stays], self.alive[stays]
        self._begin()

    def _begin(self) -> None:
        """Nothing waits; the living channels' columns, by how many a channel has."""
        nothing: F64 = np.zeros((len(self.channel), 0))
        self._left, self._right, self._both = [nothing], [nothing], [nothing]
        living = np.flatnonzero((self.channel >= 0) & self.alive)
        by_channel = living[np.argsort(self.channel[living], kind="stable")]
        names, first, counts = np.unique(self.channel[by_channel], return_index=True, return_counts=True)
        self._blocks = []
        for width in np.unique(counts):
            index = by_channel[first[counts == width][:, None] + np.arange(width)]
            at = (index[:, :, None], index[:, None, :])
            self._blocks.append(_Blocks(names[counts == width], index, self.inverse[at], self.products[at]))


class _Blocks:
    """Blocks V_JJ and G_JJ [n, width, width] of the channels [n] that have `width` columns each, `index` [n, width]."""

    def __init__(self, channels: NDArray[np.int64], index: NDArray[np.int64], inverse: F64, products: F64) -> None:
        self.channels, self._index = channels, index
        self._inverse, self._products = inverse, products

    def costs(self) -> F64:
        """tr(W_J (V_JJ)^-1 W_J^T) = tr((V_JJ)^-1 G_JJ) of each channel [n]."""
        if self._index.shape[1] == 1:
            return self._products[:, 0, 0] / self._inverse[:, 0, 0]
        found: F64 = np.trace(np.linalg.solve(self._inverse, self._products), axis1=1, axis2=2)
        return found

    def follow(self, gone: int, cross: F64, solved: F64, halved: F64) -> None:
        """What the removal of a channel does to the others, which are all that is kept."""
        stays = self.channels != gone
        if not stays.all():
            self.channels, self._index = self.channels[stays], self._index[stays]
            self._inverse, self._products = self._inverse[stays], self._products[stays]
        right = solved[self._index].transpose(0, 2, 1)
        self._inverse -= cross[self._index] @ right
        change = halved[self._index] @ right
        self._products -= change + change.transpose(0, 2, 1)


ALGORITHM = CoarseAlgorithm("gram", score, reads="consumers", order=order)
