"""A Reshape as factors: how a run of axes is cut anew, and which factor can carry channels through it.

Both sides of a run hold the same elements in the same order, so each axis is a product of common factors, as in mixed
radix numbers: [heads * features] becomes [heads, features] with the factors (heads, features). Channels that lie on one
factor can be followed; the position p of an axis stands for digit (p // stride) % factor of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

Axes = Mapping[int, tuple[int, ...]]
"""Axis -> numbers of the factors it is made of, outermost first."""


@dataclass(frozen=True)
class Regroup:
    """One run of a Reshape of `source` into `target`: the node's key and title, the factors, and both sides' axes."""

    key: str
    title: str
    source: str
    target: str
    factors: tuple[int, ...]
    left: Axes
    right: Axes

    def carriers(self) -> list[int]:
        """Factors that can carry channels: larger than 1, and not between the batch axis and another one.

        At batch 1 a batch axis is invisible, so what moves to or from axis 0 may be mixed with it.
        """
        return [
            factor
            for factor, size in enumerate(self.factors)
            if size > 1 and (self.left_axis(factor) == 0) == (self.right_axis(factor) == 0)
        ]

    def left_axis(self, factor: int) -> int:
        """The axis of the source that holds a factor."""
        return next(axis for axis, held in self.left.items() if factor in held)

    def right_axis(self, factor: int) -> int:
        """The axis of the target that holds a factor."""
        return next(axis for axis, held in self.right.items() if factor in held)

    def digits(self, side: Axes, factor: int) -> NDArray[np.int64]:
        """The digit of `factor` at each position of the axis that holds it on one side, [size of that axis]."""
        held = next(factors for factors in side.values() if factor in factors)
        sizes = [self.factors[number] for number in held]
        digits: NDArray[np.int64] = np.unravel_index(np.arange(prod(sizes)), sizes)[held.index(factor)].astype(np.int64)
        return digits


def runs(before: tuple[int, ...], after: tuple[int, ...]) -> Iterator[tuple[list[int], list[int]]]:
    """Cut both shapes into the shortest runs of axes with equal products: pairs of axis numbers before and after."""
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [i] if i < len(before) else [], [j] if j < len(after) else []
        i, j = i + len(left), j + len(right)
        size, other = prod(before[axis] for axis in left), prod(after[axis] for axis in right)
        while size != other:
            if size < other:
                left.append(i)
                size, i = size * before[i], i + 1
            else:
                right.append(j)
                other, j = other * after[j], j + 1
        yield left, right


def common_factors(
    left: list[tuple[int, int]], right: list[tuple[int, int]]
) -> tuple[tuple[int, ...], dict[int, tuple[int, ...]], dict[int, tuple[int, ...]]] | None:
    """The factors of two lists of (axis, size) with equal products, and which axes they make up; None without any.

    Sizes such as 4 x 6 and 6 x 4 have no common factors of which both sides are made.
    """
    factors: list[int] = []
    held: tuple[dict[int, list[int]], dict[int, list[int]]] = ({}, {})
    rest = [list(left), list(right)]
    while rest[0] and rest[1]:
        (one, size), (other, size_other) = rest[0][0], rest[1][0]
        factor = min(size, size_other)
        if size % factor or size_other % factor:
            return None
        for side, axis, whole in ((0, one, size), (1, other, size_other)):
            held[side].setdefault(axis, []).append(len(factors))
            if whole == factor:
                rest[side].pop(0)
            else:
                rest[side][0] = (axis, whole // factor)
        factors.append(factor)
    before, after = ({axis: tuple(numbers) for axis, numbers in side.items()} for side in held)
    return tuple(factors), before, after
