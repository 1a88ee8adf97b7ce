"""Mappings one step away from a given one: a loop moved, split, recut, or another unroll.

The structured nests of `candidates` fix the order of blocks and cut every dimension at most twice. What they miss is
close to the best of them, so a few rounds of such steps from there find it (`refine`).
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

PASSES = (2, 3, 4, 6, 8, 12)
"""Into how many equal passes a loop may be split."""

LONGEST = 13
"""Loops of a nest; longer ones are not split further."""


def neighbours(unrolls: Ints, sizes: Ints, which: int, dims: Ints, trips: Ints) -> tuple[Ints, Ints, Ints]:
    """Nests one step away from a nest.

    Args:
        unrolls: [u, axes, 8] PEs along each array axis and dimension.
        sizes: [8] sizes of the loop dimensions.
        which: row of `unrolls` that the nest uses.
        dims: [l] dimension of each temporal loop, inner to outer, none absent.
        trips: [l] its trips.

    Returns:
        Unroll [n], dimensions [n, m] and trips [n, m] (1 where a loop is absent).
    """
    whole = -(-sizes // unrolls.prod(axis=1))
    steps = [_moved(dims, trips), _recut(dims, trips)]
    if len(dims) < LONGEST:
        steps.append(_split(dims, trips))
    others = np.array([i for i in range(len(unrolls)) if i != which], dtype=np.int64)
    steps.append((np.tile(dims, (len(others), 1)), np.tile(trips, (len(others), 1))))
    every, absent = np.arange(len(sizes)), np.ones(len(sizes), dtype=np.int64)
    made_dims = np.concatenate([_with_absent(step[0], every, len(dims) + 1) for step in steps])
    made_trips = np.concatenate([_with_absent(step[1], absent, len(dims) + 1) for step in steps])
    # what another unroll leaves over goes round outermost, or innermost
    inside_dims, inside_trips = np.roll(made_dims, len(sizes), axis=1), np.roll(made_trips, len(sizes), axis=1)
    last = slice(len(made_dims) - len(others), None)
    inside_trips[last, : len(sizes)] = -(-whole[others] // whole[which])
    made_dims = np.concatenate([made_dims, inside_dims[last]])
    made_trips = np.concatenate([made_trips, inside_trips[last]])
    unroll = np.full(len(made_dims), which, dtype=np.int64)
    unroll[len(unroll) - 2 * len(others) :] = np.tile(others, 2)
    return unroll, made_dims, fitted(made_dims, made_trips, whole[unroll])


def fitted(dims: Ints, trips: Ints, whole: Ints) -> Ints:
    """Trips [n, m] such that each dimension makes `whole` [n, 8] trips: inner loops shortened, the outermost one extended.

    Every dimension must have a loop in each nest, absent or not.
    """
    rows = np.arange(len(dims))
    left = whole.copy()
    made = np.ones_like(trips)
    outermost = np.full(whole.shape, -1)
    for column in range(dims.shape[1]):
        d = dims[:, column]
        made[:, column] = np.minimum(trips[:, column], left[rows, d])
        left[rows, d] = -(-left[rows, d] // made[:, column])
        known = outermost[rows, d]
        outermost[rows, d] = np.where((trips[:, column] > 1) | (known < 0), column, known)
    for dimension in range(whole.shape[1]):
        short = np.nonzero(left[:, dimension] > 1)[0]
        made[short, outermost[short, dimension]] *= left[short, dimension]
    return made


def with_every_dimension(dims: Ints, trips: Ints) -> tuple[Ints, Ints]:
    """Loops [n, l] with an absent one of each dimension added outermost: [n, l + 8]."""
    return _with_absent(dims, np.arange(8), dims.shape[1]), _with_absent(trips, np.ones(8, np.int64), dims.shape[1])


def _moved(dims: Ints, trips: Ints) -> tuple[Ints, Ints]:
    """One loop taken out and put in elsewhere, or two exchanged."""
    order = _orders(len(dims))
    return dims[order], trips[order]


def _recut(dims: Ints, trips: Ints) -> tuple[Ints, Ints]:
    """A dimension that is cut several times, one of its inner cuts elsewhere."""
    rows = [trips]
    for i, j in itertools.combinations(range(len(dims)), 2):
        if dims[i] == dims[j]:
            both = int(trips[i] * trips[j])
            for size in {1, 2, *(-(-both // passes) for passes in (1, *PASSES))} - {int(trips[i])}:
                row = trips.copy()
                row[i], row[j] = size, -(-both // size)
                rows.append(row)
    return np.tile(dims, (len(rows), 1)), np.array(rows)


def _split(dims: Ints, trips: Ints) -> tuple[Ints, Ints]:
    """A loop cut in two, either part anywhere in the nest."""
    source, part, loop, passes = _splits(len(dims))
    inner = -(-trips[loop] // np.minimum(passes, trips[loop]))
    outer = -(-trips[loop] // inner)
    made = np.where(part == 1, inner[:, None], np.where(part == 2, outer[:, None], trips[source]))
    keep = (inner > 1) & (outer > 1)
    return dims[source[keep]], made[keep]


def _with_absent(loops: Ints, absent: Ints, length: int) -> Ints:
    """Columns up to `length` and those of `absent` [8] added: one absent loop of each dimension, outermost."""
    middle = np.tile(absent[:1], (len(loops), length - loops.shape[1]))
    return np.concatenate([loops, middle, np.tile(absent, (len(loops), 1))], axis=1)


@lru_cache(maxsize=32)
def _orders(count: int) -> Ints:
    found = {tuple(range(count))}
    for i, j in itertools.permutations(range(count), 2):
        order = [n for n in range(count) if n != i]
        found.add((*order[:j], i, *order[j:]))
        swapped = list(range(count))
        swapped[i], swapped[j] = j, i
        found.add(tuple(swapped))
    return np.array(sorted(found), dtype=np.int64).reshape(len(found), count)


@lru_cache(maxsize=32)
def _splits(count: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Source of each new loop [n, count + 1], 1 for an inner and 2 for an outer part, the loop cut [n], passes [n]."""
    rows, parts, loops, passes = [], [], [], []
    for loop, at in itertools.product(range(count), range(count + 1)):
        source, part = list(range(count)), [0] * count
        part[loop] = 2 if at <= loop else 1
        source.insert(at, loop)
        part.insert(at, 1 if at <= loop else 2)
        for number in PASSES:
            rows.append(source)
            parts.append(part)
            loops.append(loop)
            passes.append(number)
    made = (np.array(column, dtype=np.int64) for column in (rows, parts, loops, passes))
    first, second, third, fourth = made
    return first.reshape(-1, count + 1), second.reshape(-1, count + 1), third, fourth
