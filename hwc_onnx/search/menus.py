"""Menus: the options of a unit that are worth searching.

An option that costs more energy and does more damage than another of the same unit is never the right choice, so only
the lower-left front stays, plus the unpruned option of every width (a coarsely pruned layer needs it).
Source: the Pareto menus of constrained configuration search, e.g. SPDY (Frantar & Alistarh, ICML 2022), section 3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.problem import Option


def front(energy: NDArray[np.float64], damage: NDArray[np.float64], slack: float = 0.0) -> NDArray[np.bool_]:
    """Which points no other point beats, [n]: one that costs no more and does less damage even after adding `slack`."""
    keep = np.ones(len(energy), dtype=np.bool_)
    order = np.arange(len(energy))
    for i in order:
        no_dearer = (energy < energy[i]) | ((energy == energy[i]) & ((damage < damage[i]) | (order < i)))
        keep[i] = not np.any(no_dearer & (damage * (1.0 + slack) <= damage[i]))
    return keep


def menu(
    options: list[Option], energy: NDArray[np.float64], damage: NDArray[np.float64], limit: int = 24, slack: float = 0.0
) -> NDArray[np.int64]:
    """Positions of the options to keep, mild (most energy) first.

    The front and the unpruned options always stay; of those within `slack` of the front, as many as `limit` leaves
    room for, evenly spread over energy.
    """
    always = front(energy, damage) | np.array([option.algorithm == "none" for option in options])
    near = np.flatnonzero(front(energy, damage, slack) & ~always)
    near = near[np.argsort(-energy[near], kind="stable")]
    room = max(0, limit - int(always.sum()))
    if len(near) > room:
        near = near[np.linspace(0, len(near) - 1, room).astype(np.int64)] if room else near[:0]
    kept = np.union1d(np.flatnonzero(always), near)
    return kept[np.lexsort((damage[kept], -energy[kept]))]
