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
"""Random beginnings; the clusters of least error count."""

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
    for _ in range(STARTS):
        centers = features[_spread(features, kept, rng)]
        for _ in range(ROUNDS):
            member = _assigned(features, centers)
            moved = np.stack([features[member == k].mean(axis=0) for k in range(kept)])
            if np.array_equal(moved, centers):
                break
            centers = moved
        stays = _nearest_members(distances(features, centers), member)
        error = float(distances(features, features[stays]).min(axis=1).sum())
        if best is None or error < least:
            best, least = np.sort(stays), error
    assert best is not None
    return best


def distances(features: F64, centers: F64) -> F64:
    """Squared Euclidean distances [channels, centres]."""
    apart = np.square(features).sum(axis=1)[:, None] + np.square(centers).sum(axis=1) - 2.0 * features @ centers.T
    found: F64 = np.maximum(apart, 0.0)
    return found


def _spread(features: F64, kept: int, rng: np.random.Generator) -> list[int]:
    """First centres, drawn by how far they are from those before (k-means++)."""
    chosen = [int(rng.integers(len(features)))]
    far = distances(features, features[chosen])[:, 0]
    while len(chosen) < kept:
        share = far.copy()
        share[chosen] = 0.0
        if share.sum() <= 0:
            share = np.ones(len(features))
            share[chosen] = 0.0
        chosen.append(int(rng.choice(len(features), p=share / share.sum())))
        far = np.minimum(far, distances(features, features[chosen[-1:]])[:, 0])
    return chosen


def _assigned(features: F64, centers: F64) -> NDArray[np.int64]:
    """The centre of each channel [channels]; none is left alone: it takes the channel farthest from its own."""
    apart = distances(features, centers)
    member: NDArray[np.int64] = apart.argmin(axis=1).astype(np.int64)
    for center in range(len(centers)):
        sizes = np.bincount(member, minlength=len(centers))
        if sizes[center] == 0:
            far = np.where(sizes[member] > 1, apart[np.arange(len(member)), member], -1.0)
            member[int(far.argmax())] = center
    return member


def _nearest_members(apart: F64, member: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each cluster the channel nearest to its centre, the first of equals: [centres]."""
    inside = np.where(member[:, None] == np.arange(apart.shape[1]), apart, np.inf)
    found: NDArray[np.int64] = inside.argmin(axis=0).astype(np.int64)
    return found


ALGORITHM = CoarseAlgorithm("fold", score, represent=represent)
