"""What a pruning algorithm is: a score per weight (fine-grained) or per channel (coarse-grained); least goes first.

A fine-grained algorithm sees the weight as rows [R, d], one per output channel; a coarse-grained one sees a matrix
[channels, m] in which each row holds everything that belongs to one channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class WeightContext:
    """What a score may know besides the weight.

    `taps` is the number of kernel positions: column c * taps + k is input channel c at tap k. `input_power` is
    E[x_j^2] and `inverse_diagonal` the diagonal of the inverse second moment of the inputs, both [R, d], repeated for
    the rows that share inputs. `rng` is for algorithms that draw.
    """

    taps: int
    input_power: F64
    inverse_diagonal: F64
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))


@dataclass(frozen=True)
class FineAlgorithm:
    """Zeros inside the tensor.

    `score` maps rows [R, d] to scores [R, d]. `scope` says within what the smallest are taken: the whole layer, each
    row, or runs of M consecutive input channels at one tap (`pattern` = (N, M): N of every M are kept and the ratio is
    implied). With `block`, runs of so many consecutive input channels at one tap become zero as wholes, those with the
    least sums of scores in the layer; the ratio is the share of runs. `sequential` asks for zeros chosen column by column
    while the rest is being repaired; `score` is then used only where no repair runs.
    """

    name: str
    score: Callable[[F64, WeightContext], F64]
    scope: Literal["layer", "row", "pattern", "block"] = "layer"
    pattern: tuple[int, int] | None = None
    block: int | None = None
    sequential: bool = False
    granularity: Literal["fine"] = "fine"

    def __post_init__(self) -> None:
        """Refuse a scope that lacks what it needs, or says two things (ValueError)."""
        given = {"pattern": self.pattern is not None, "block": self.block is not None}
        if any((self.scope == name) != there for name, there in given.items()):
            raise ValueError(
                f"algorithm {self.name}: scope {self.scope} with pattern {self.pattern} and block {self.block}; give scope pattern "
                "a pattern (N, M), scope block a size, and the other scopes neither"
            )

    def keep(self, weight: F64, ratio: float, context: WeightContext) -> NDArray[np.bool_]:
        """Which weights of `weight` [R, d] stay, [R, d]."""
        scores = self.score(weight, context)
        if self.pattern is not None:
            return keep_pattern(scores, self.pattern, context.taps)
        if self.block is not None:
            return keep_blocks(scores, ratio, runs_of(self.block, context.taps, scores.shape[1]))
        if self.scope == "row":
            return keep_largest(scores, ratio)
        return keep_largest(scores.reshape(1, -1), ratio).reshape(scores.shape)


@dataclass(frozen=True)
class Consumer:
    """A layer that reads the channels: rows [R, d], second moment [d, d], column j belongs to channel `channel[j]`.

    A column with channel -1 reads something else.
    """

    weight: F64
    moment: F64
    channel: NDArray[np.int64]


@dataclass(frozen=True)
class CoarseAlgorithm:
    """Channels that leave.

    `score` maps [channels, m] to [channels]; the matrix holds the producers' rows, or the consumers' columns when
    `reads` is "consumers". `order`, where given, replaces scores: from all consumers, the number of channels and how many of
    them are to leave, it returns these in the order in which they leave. `represent`, where given, replaces both: from what belongs to each channel [channels, m], how many stay and a
    generator it chooses the channels that stand for all, sorted, and readers add what they read of a removed channel to what
    they read of the nearest that stays. `rescale` divides what consumers read by the share of channels kept. `refits` asks for the consumers'
    least-squares refit even where no other repair is wanted.
    """

    name: str
    score: Callable[[F64, np.random.Generator], F64]
    reads: Literal["producers", "consumers"] = "producers"
    order: Callable[[Sequence[Consumer], int, int], NDArray[np.int64]] | None = None
    represent: Callable[[F64, int, np.random.Generator], NDArray[np.int64]] | None = None
    rescale: bool = False
    refits: bool = False
    granularity: Literal["coarse"] = "coarse"


def keep_largest(scores: F64, ratio: float) -> NDArray[np.bool_]:
    """Per row, drop exactly round(ratio * n) of the n smallest scores (at least one stays; ties by position)."""
    count = min(round(ratio * scores.shape[1]), scores.shape[1] - 1)
    keep = np.ones(scores.shape, dtype=bool)
    if count > 0:
        order = np.argsort(scores, axis=1, kind="stable")[:, :count]
        np.put_along_axis(keep, order, False, axis=1)
    return keep


def keep_pattern(scores: F64, pattern: tuple[int, int], taps: int) -> NDArray[np.bool_]:
    """Keep the N largest of every M consecutive input channels at each tap; a shorter last run keeps at most N."""
    kept, run = pattern
    rows, width = scores.shape
    by_tap = scores.reshape(rows, width // taps, taps).transpose(0, 2, 1)
    keep = np.zeros(by_tap.shape, dtype=bool)
    for first in range(0, by_tap.shape[2], run):
        part = by_tap[:, :, first : first + run]
        order = np.argsort(-part, axis=2, kind="stable")[:, :, :kept]
        np.put_along_axis(keep[:, :, first : first + run], order, True, axis=2)
    return keep.transpose(0, 2, 1).reshape(rows, width)


def runs_of(size: int, taps: int, width: int) -> NDArray[np.int64]:
    """The positions [n, size] of every `size` consecutive input channels at one tap, of a row of `width`; -1 fills up the last run."""
    channels = width // taps
    padded = np.full((-(-channels // size) * size, taps), -1)
    padded[:channels] = np.arange(width).reshape(channels, taps)
    return padded.reshape(-1, size, taps).transpose(0, 2, 1).reshape(-1, size)


def summed(values: F64, runs: NDArray[np.int64]) -> F64:
    """Sums [..., n] of `values` [..., d] over runs [n, size]."""
    padded = np.concatenate([values, np.zeros((*values.shape[:-1], 1), values.dtype)], axis=-1)
    sums: F64 = padded[..., runs].sum(axis=-1)
    return sums


def spread(keep: NDArray[np.bool_], runs: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """The mask [..., d] of weights whose runs are kept, from that of runs [..., n]."""
    owner = np.empty(width + 1, dtype=np.int64)
    owner[runs.ravel()] = np.repeat(np.arange(len(runs)), runs.shape[1])
    found: NDArray[np.bool_] = keep[..., owner[:width]]
    return found


def keep_blocks(scores: F64, ratio: float, runs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Of all runs of all rows, exactly round(ratio * n) with the smallest sums of `scores` [R, d] go (at least one stays)."""
    sums = summed(scores, runs)
    return spread(keep_largest(sums.reshape(1, -1), ratio).reshape(sums.shape), runs, scores.shape[1])
