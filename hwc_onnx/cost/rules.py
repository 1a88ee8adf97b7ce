"""Mappings that an accelerator's control allows: rules of the file, applied to unrolls and nests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.cost.accelerator import MappingRules
from hwc_onnx.cost.operands import FX, FY, INDEX, Nest
from hwc_onnx.cost.passes import Ints

Allowed = NDArray[np.bool_]


def unrolls_allowed(rules: MappingRules, nest: Nest, unrolls: Ints, full: Ints | None = None) -> Ints:
    """Unrolls [u, axes, 8] that spread what must be spread.

    All of them for a layer that no unroll suits: none of these, or none of `full` where that is given.
    """
    keep = _spread(rules, nest, unrolls)
    suited = keep.any() if full is None else _spread(rules, nest, full).any()
    return unrolls[keep] if suited else unrolls


def _spread(rules: MappingRules, nest: Nest, unrolls: Ints) -> Allowed:
    whole = unrolls.prod(axis=1)
    keep = np.ones(len(unrolls), dtype=bool)
    for name in rules.unroll:
        d = INDEX[name]
        if nest.sizes[d] > 1:
            keep &= whole[:, d] == nest.sizes[d] if d in (FX, FY) else whole[:, d] > 1
    return keep


def nests_allowed(rules: MappingRules, nest: Nest, whole: Ints, dims: Ints, trips: Ints) -> Allowed:
    """Which nests follow `rules.inner`, [n]; all where the layer has no loop over its last dimension.

    Args:
        rules: of the accelerator.
        nest: the layer.
        whole: PEs along each dimension of each nest, [n, 8].
        dims: dimension of each temporal loop, [n, l], inner to outer.
        trips: its trips, 1 where a loop is absent.
    """
    if not rules.inner:
        return np.ones(len(dims), dtype=bool)
    *before, last = (INDEX[name] for name in rules.inner)
    if nest.sizes[last] == 1:
        return np.ones(len(dims), dtype=bool)
    rank = np.full(8, -1)
    rank[before] = np.arange(len(before))
    present = trips > 1
    inside = present & (np.cumsum(present & (dims == last), axis=1) == 0)
    ranks = np.where(inside, rank[dims], -2)
    allowed: Allowed = (ranks != -1).all(axis=1)
    seen = np.full(len(dims), -1)
    for column in range(dims.shape[1]):
        here = ranks[:, column]
        allowed &= (here == -2) | (here > seen)
        seen = np.maximum(seen, here)
    for d in before:
        if d in (FX, FY):
            kept = np.where(inside & (dims == d), trips, 1).prod(axis=1)
            allowed &= kept * whole[:, d] >= nest.sizes[d]
    return allowed
