"""Which loop dimensions to spread over the PE array.

For each array axis: every way to split its size over its dimensions in which no more PEs would save a pass, with
passes kept equal (27 channels on 16 rows take two passes of 14, not of 16 and 11: the same cycles, fewer copies). One
more pass over one dimension may save energy, since fewer PEs hold copies; more idleness than that is not looked for. The
product over the axes is ranked by utilisation *within each kind* (a kind says which kernel dimensions and output rows are unrolled),
because one list for all drops unrolls whose reuse outweighs idle PEs.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.cost.accelerator import AcceleratorProfile
from hwc_onnx.cost.operands import DIMS, FX, FY, INDEX, OX, OY, Nest
from hwc_onnx.cost.rules import unrolls_allowed


def unroll_candidates(nest: Nest, profile: AcceleratorProfile, most: int) -> NDArray[np.int64]:
    """Unroll per axis, [n, axes, 8], that the accelerator's rules allow: at most `most`, best utilisation first.

    No kind takes more than half of the places while others wait.
    """
    sizes = nest.sizes
    partial: list[tuple[tuple[int, ...], ...]] = [()]
    for number, axis in enumerate(profile.array.axes):
        dims = tuple(INDEX[name] for name in axis.dims)
        later = {INDEX[name]: other.size for other in profile.array.axes[number + 1 :] for name in other.dims}
        grown = []
        for chosen in partial:
            left = [
                -(-size // int(np.prod([axis_unroll[d] for axis_unroll in chosen]))) for d, size in enumerate(sizes)
            ]
            splits = {split for wanted in _wanted(left, dims, later) for split in _splits(wanted, dims, axis.size)}
            grown += [(*chosen, split) for split in sorted(splits)]
        partial = grown
    unrolls = unrolls_allowed(profile.mapping, nest, np.array(partial, dtype=np.int64))
    whole = unrolls.prod(axis=1)
    passes = -(-np.array(sizes) // whole)
    cycles = passes.prod(axis=1)
    kinds: dict[tuple[bool, ...], list[int]] = {}
    for i in np.lexsort((whole.prod(axis=1), cycles)):
        kind = tuple(bool(whole[i, d] > 1) for d in (FY, FX, OY, OX))
        kinds.setdefault(kind, []).append(int(i))
    first = [i for members in kinds.values() for i in members[: most // 2]]
    ranked = sorted(first, key=lambda i: int(cycles[i]))
    best: NDArray[np.int64] = unrolls[ranked[:most]]
    return best


def one_more_pass(unrolls: NDArray[np.int64], sizes: tuple[int, ...]) -> NDArray[np.int64]:
    """Unrolls with one dimension of one axis spread over fewer PEs, so that it takes one more pass, [n, axes, 8];
    fewest cycles first."""
    made = []
    for unroll in unrolls:
        for axis, d in zip(*np.nonzero(unroll > 1), strict=True):
            others = int(unroll[:, d].prod() // unroll[axis, d])
            passes = -(-sizes[d] // int(unroll[:, d].prod()))
            fewer = -(-sizes[d] // (others * (passes + 1)))
            if d not in (FY, FX) and fewer < unroll[axis, d]:
                changed = unroll.copy()
                changed[axis, d] = fewer
                made.append(changed)
    found: NDArray[np.int64] = np.unique(np.array(made, dtype=np.int64).reshape(-1, *unrolls.shape[1:]), axis=0)
    order = np.argsort((-(-np.array(sizes) // found.prod(axis=1))).prod(axis=1), kind="stable")
    return found[order]


def balanced(size: int, limit: int) -> int:
    """The smallest split of `size` into as many equal passes as splitting by `limit` needs."""
    limit = max(1, min(size, limit))
    return -(-size // -(-size // limit))


def _wanted(left: list[int], dims: tuple[int, ...], later: dict[int, int]) -> list[tuple[int, ...]]:
    """How much of each dimension an axis should take: all, or what a later axis that has it too would leave."""
    found = [tuple(left)]
    for d in dims:
        if d in later and left[d] > 1:
            found += [(*wanted[:d], -(-wanted[d] // later[d]), *wanted[d + 1 :]) for wanted in found]
    return list(dict.fromkeys(found))


def _splits(left: tuple[int, ...], dims: tuple[int, ...], size: int) -> list[tuple[int, ...]]:
    """Maximal splits of one axis of `size` PEs over `dims`, each [8]."""
    found = set()
    split_over = [d for d in dims if left[d] > 1]
    for last in split_over:
        others = [d for d in split_over if d != last]
        for choice in itertools.product(*(_shares(left[d], d, size) for d in others)):
            split, room = [1] * len(DIMS), size // int(np.prod(choice, dtype=np.int64))
            if room:
                for d, share in zip(others, choice, strict=True):
                    split[d] = share
                split[last] = balanced(left[last], room) if last not in (FY, FX) or left[last] <= room else 1
                found.add(tuple(split))
    if not split_over:
        return [(1,) * len(DIMS)]
    return sorted(split for split in found if not _can_grow(split, left, dims, size))


def _can_grow(split: tuple[int, ...], left: tuple[int, ...], dims: tuple[int, ...], size: int) -> bool:
    """Whether one dimension could take more PEs of the axis and finish in fewer passes."""
    used = int(np.prod(split))
    for d in dims:
        room = size // (used // split[d])
        if d in (FY, FX):
            if split[d] < left[d] <= room:
                return True
        elif -(-left[d] // room) < -(-left[d] // split[d]):
            return True
    return False


def _shares(length: int, d: int, size: int) -> list[int]:
    """Shares of an axis that a dimension may take before the last one fills it: kernels whole, others few."""
    if d in (FY, FX):
        return [1, length] if length <= size else [1]
    shares, step = {1, balanced(length, size)}, 2
    while step < size:
        shares.add(balanced(length, step))
        step *= 2
    return sorted(shares)
