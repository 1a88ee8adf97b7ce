"""What one search is worth, read from its trials: best saving so far, area under that curve, and hypervolume.

The budget axis counts evaluation-equivalents: the larger of the evaluations and of the images through the network divided
by the search split's size. Preparation (calibration, the original's run, the damage table) is on it too.
"""

from __future__ import annotations

from collections.abc import Sequence

LEAST_DROP = 0.1
"""Points: the reference drop of a hypervolume where the limit is (nearly) zero."""

Curve = Sequence[Sequence[float]]
"""[evaluation-equivalents, best saving] at each improvement, in order. A saving is 1 - energy / energy of INT8."""


def best_at(curve: Curve, budget: float) -> float:
    """The best saving after `budget` evaluation-equivalents; 0 before the first, because the INT8 baseline remains."""
    return max((saving for spent, saving in curve if spent <= budget), default=0.0)


def area(curve: Curve, budget: float) -> float:
    """Mean of the best saving over the whole budget axis from 0 to `budget`: the area under the steps, per unit of it."""
    corners = [(0.0, 0.0), *((spent, saving) for spent, saving in curve if spent < budget)]
    ends = [*(spent for spent, _ in corners[1:]), budget]
    best, total = 0.0, 0.0
    for (spent, saving), end in zip(corners, ends, strict=True):
        best = max(best, saving)
        total += best * (end - spent)
    return total / budget


def reference_drop(limit_points: float) -> float:
    """The drop in points beyond which a plan adds no hypervolume: twice the limit, at least `LEAST_DROP`."""
    return max(2.0 * limit_points, LEAST_DROP)


def hypervolume(points: Sequence[tuple[float, float]], limit_points: float) -> float:
    """Share of the rectangle between (0, 0) and the reference point that some plan is better than, in 0..1.

    Args:
        points: (energy as a share of the INT8 baseline's, drop in points) of each plan. A negative drop counts as none, so
            that luck on the samples earns nothing.
        limit_points: the largest allowed drop. The reference point is (1, `reference_drop`).
    """
    reference = reference_drop(limit_points)
    total, lowest = 0.0, reference
    for energy, drop in sorted((energy, max(drop, 0.0)) for energy, drop in points):
        if energy < 1.0 and drop < lowest:
            total += (1.0 - energy) * (lowest - drop)
            lowest = drop
    return total / reference
