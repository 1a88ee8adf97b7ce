"""Lanes of one PE whose products are added before the accumulator: how often the partial sum is touched.

A PE that works on n products of one output with l lanes touches its partial sum ceil(n / l) times. Where a dimension
does not divide evenly over the PEs, some have one step less.
"""

from __future__ import annotations

import itertools

import numpy as np

from hwc_onnx.cost.operands import FX, FY, C
from hwc_onnx.cost.passes import Floats, Ints


def products_together(sizes: tuple[int, ...], whole: Ints, lanes: float) -> Floats:
    """Mean number of products for each time a partial sum is touched, [n].

    Args:
        sizes: loop sizes, [8].
        whole: PEs along each dimension, [n, 8].
        lanes: products that one PE adds at once.
    """
    touched = np.zeros(len(whole))
    kinds = []
    for d in (C, FY, FX):
        steps = -(-sizes[d] // whole[:, d])
        busy = sizes[d] - (steps - 1) * whole[:, d]
        kinds.append(((busy, steps), (whole[:, d] - busy, steps - 1)))
    for chosen in itertools.product((0, 1), repeat=len(kinds)):
        pes, products = np.ones(len(whole)), np.ones(len(whole))
        for kind, which in zip(kinds, chosen, strict=True):
            pes, products = pes * kind[which][0], products * kind[which][1]
        touched += pes * np.ceil(products / lanes)
    together: Floats = sizes[C] * sizes[FY] * sizes[FX] / touched
    return together
