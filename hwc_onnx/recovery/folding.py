"""Channels that stand for others: what makes a channel, which one replaces which, and the readers' weights added up.

The choice itself is the algorithm's (hwc_onnx/pruning/fold.py); here are the arrays that it sees and what follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.layer_graph import FIXED, ChannelGroup
from hwc_onnx.recovery.statistics import F64

Index = NDArray[np.int64]
EQUAL = 1e-9
"""Squared distance, as a share of the squared norms, below which two channels are the same."""

Represent = Callable[[F64, int, np.random.Generator], Index]


def joined(matrices: Sequence[tuple[F64, Index]], channels: int) -> F64:
    """All that belongs to each channel side by side [channels, m], each layer scaled to a norm of one.

    Args:
        matrices: (rows [positions, n], group channel of each position or -1) of some layers.
        channels: of the group.
    """
    found = [np.zeros((channels, 0))]
    for matrix, index in matrices:
        place, turns = occurrences(index), int(occurrences(index).max(initial=0)) + 1
        inside = index >= 0
        rows = np.zeros((channels, turns, matrix.shape[1]))
        rows[index[inside], place[inside]] = matrix[inside]
        found.append(rows.reshape(channels, -1) / max(float(np.linalg.norm(rows)), 1e-30))
    return np.concatenate(found, axis=1)


def shared_by_equals(made: F64, read: F64) -> F64:
    """`read` [channels, n] with the mean of all channels for which `made` [channels, m] is equal, for each of them.

    Readers add up what they read of equal channels, so how it is divided among these says nothing.
    """
    power = np.square(made).sum(axis=1)
    apart = power[:, None] + power - 2.0 * made @ made.T
    first = (apart <= EQUAL * (power[:, None] + power)).argmax(axis=1)
    found = np.empty_like(read)
    for channel in np.unique(first):
        found[first == channel] = read[first == channel].mean(axis=0)
    return found


def occurrences(index: Index) -> Index:
    """How often the channel of each position [positions] came before (a channel of an image has a position per pixel)."""
    order = np.argsort(index, kind="stable")
    ranked = index[order]
    first = np.searchsorted(ranked, ranked)
    found = np.empty(len(index), np.int64)
    found[order] = np.arange(len(index)) - first
    return found


def representatives(
    group: ChannelGroup, features: F64, represent: Represent, kept: int, rng: np.random.Generator
) -> Index:
    """The sorted channels that stay, `kept` in all, of each part its share; fixed ones stay."""
    part_of = _parts(group)
    stays = [np.flatnonzero(part_of == FIXED)]
    for part, count in enumerate(group.kept_of_parts(kept)):
        members = np.flatnonzero(part_of == part)
        stays.append(members[represent(features[members], count, rng)])
    return np.sort(np.concatenate(stays)).astype(np.int64)


def stand_ins(group: ChannelGroup, features: F64, keep: Index) -> Index:
    """The channel that stands for each [channels]: itself where it stays, else the nearest of its part that does."""
    part_of = _parts(group)
    found = np.arange(group.channels, dtype=np.int64)
    for part in np.unique(part_of):
        staying = keep[part_of[keep] == part]
        gone = np.setdiff1d(np.flatnonzero(part_of == part), staying)
        for channel in gone if len(staying) else ():
            apart = np.square(features[staying] - features[channel]).sum(axis=1)
            found[channel] = staying[int(apart.argmin())]
    return found


def moved(index: Index, stands: Index, target: Index) -> Index:
    """`target` [positions] with the positions of channels that others stand for led to those of the others.

    Args:
        index: group channel of each position, -1 where the group is not.
        stands: the channel that stands for each.
        target: where each position leads so far.
    """
    place = occurrences(index)
    table = np.full((len(stands), int(place.max(initial=0)) + 1), -1, np.int64)
    inside = np.flatnonzero(index >= 0)
    table[index[inside], place[inside]] = inside
    found = target.copy()
    led = table[stands[index[inside]], place[inside]]
    found[inside] = np.where(led >= 0, led, found[inside])
    return found


def folded(rows: F64, into: Index) -> F64:
    """Rows [groups, rows, d] in which each column is added to the column `into` [d] names for it; what is moved is zero."""
    found = np.zeros_like(rows)
    order = np.argsort(into, kind="stable")
    columns, first = np.unique(into[order], return_index=True)
    found[:, :, columns] = np.add.reduceat(rows[:, :, order], first, axis=2)
    return found


def _parts(group: ChannelGroup) -> Index:
    return np.asarray(group.parts or (0,) * group.channels, np.int64)
