"""Channels that are alike are folded into one: of each cluster one channel stays, and readers add up what they read of all.

Channels are clustered by k-means over all that belongs to them: the rows of the layers that produce the group, with their
biases, and the columns of those that read it, each layer scaled to the same size. A cluster's channel nearest to its centre
stays, and each of the others is read from the nearest channel that stays: W[:, c'] = sum of W[:, c] over the channels c
folded into c'. Equal channels cost nothing.

Source: Wang, Sikic, Thiele & Saukh, Forget the Data and Fine-Tuning! Just Fold the Network to Compress (ICLR 2025).
Differs from the paper: a cluster is represented by one of its channels, not by its mean, so that removal leaves producers as
they are; statistics are mended from data (docs/recovery.md), not from the weights.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.pruning.base import F64, CoarseAlgorithm
from hwc_onnx.pruning.l2 import score

STARTS = 8
"""Random beginnings, fewer of many channels; the clusters of least error count."""
MANY = 512
"""Channels over which the beginnings are shared out."""
FEWEST = 3

ROUNDS = 50


def represent(features: F64, kept: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The sorted channels that stand for all, [kept].

    Args:
        features: what belongs to each channel [channels, m].
        kept: clusters, 1..channels.
        rng: for the beginnings.
    """
    best: NDArray[np.int64] | None = None
    least = np.inf
    gram = features @ features.T
    for _ in range(min(STARTS, max(FEWEST, MANY // len(features)))):
        member = _assigned(_to_channels(gram, np.array(_spread(gram, kept, rng))))
        for _ in range(ROUNDS):
            apart = _to_means(gram, member)
            moved = _assigned(apart)
            if np.array_equal(moved, member):
                break
            member = moved
        stays = _nearest_members(apart, member)
        error = float(_to_channels(gram, stays).min(axis=1).sum())
        if best is None or error < least:
            best, least = np.sort(stays), error
    assert best is not None
    return best


def _to_channels(gram: F64, chosen: NDArray[np.int64]) -> F64:
    """Squared distances of all channels from the chosen ones [channels, chosen], by products `gram` of what belongs to them."""
    power = np.diag(gram)
    found: F64 = np.maximum(power[:, None] + power[chosen] - 2.0 * gram[:, chosen], 0.0)
    return found


def _to_means(gram: F64, member: NDArray[np.int64]) -> F64:
    """Squared distances of all channels from the means of the clusters, of which none is empty [channels, clusters]."""
    from scipy.sparse import csr_array

    each = np.arange(len(member))
    sizes = np.bincount(member)
    products = np.asarray(csr_array((np.ones(len(member)), (member, each))) @ gram).T / sizes
    power = np.bincount(member, products[each, member]) / sizes
    found: F64 = np.maximum(np.diag(gram)[:, None] + power - 2.0 * products, 0.0)
    return found


def _spread(gram: F64, kept: int, rng: np.random.Generator) -> list[int]:
    """First centres, drawn by how far they are from those before (k-means++)."""
    power = np.diag(gram)
    chosen = [int(rng.integers(len(gram)))]
    far = np.full(len(gram), np.inf)
    while len(chosen) < kept:
        last = chosen[-1]
        far = np.minimum(far, np.maximum(power + power[last] - 2.0 * gram[last], 0.0))
        far[last] = 0.0
        reached = far.cumsum()
        if reached[-1] <= 0:
            left = np.ones(len(gram))
            left[chosen] = 0.0
            reached = left.cumsum()
        chosen.append(int(np.searchsorted(reached, rng.random() * reached[-1], side="right")))
    return chosen


def _assigned(apart: F64) -> NDArray[np.int64]:
    """The nearest centre of each channel [channels]; none is left alone: it takes the channel farthest from its own."""
    member: NDArray[np.int64] = apart.argmin(axis=1).astype(np.int64)
    sizes = np.bincount(member, minlength=apart.shape[1])
    for center in np.flatnonzero(sizes == 0):
        far = np.where(sizes[member] > 1, apart[np.arange(len(member)), member], -1.0)
        taken = int(far.argmax())
        sizes[member[taken]] -= 1
        sizes[center] += 1
        member[taken] = center
    return member


def _nearest_members(apart: F64, member: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each cluster the channel nearest to its centre, the first of equals: [centres]."""
    inside = np.where(member[:, None] == np.arange(apart.shape[1]), apart, np.inf)
    found: NDArray[np.int64] = inside.argmin(axis=0).astype(np.int64)
    return found


ALGORITHM = CoarseAlgorithm("fold", score, represent=represent)
