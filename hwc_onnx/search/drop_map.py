"""From smooth damage to points of drop.

The drop of a plan is noisy (a few images decide), its damage is not. `DropMap` regresses drop on damage and on the
signed change of cross-entropy (damage alone also punishes harmless shifts on images that were wrong anyway), and
smooths the result with a monotone curve through (0, 0).
Source: isotonic regression by pool-adjacent-violators, Barlow et al. 1972, chapter 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FEWEST = 6
"""Trials that a slope is fitted to."""


def isotonic(values: Array, weights: Array) -> Array:
    """The non-decreasing sequence closest to `values` in weighted least squares, [n]."""
    level: list[float] = []
    mass: list[float] = []
    size: list[int] = []
    for value, weight in zip(values, weights, strict=True):
        level.append(float(value))
        mass.append(float(weight))
        size.append(1)
        while len(level) > 1 and level[-2] > level[-1]:
            total = mass[-2] + mass[-1]
            level[-2] = (level[-2] * mass[-2] + level[-1] * mass[-1]) / total
            mass[-2], size[-2] = total, size[-2] + size[-1]
            del level[-1], mass[-1], size[-1]
    return np.repeat(level, size)


@dataclass(frozen=True)
class DropMap:
    """A monotone curve `drop = curve(damage)` with knots, and how far measured drops scatter around it (points).

    `shift` is the share of a measured drop that the signed cross-entropy change explains, points per nat; `usual` the
    change that goes with one unit of damage.
    """

    knots: Array
    drops: Array
    scatter: float
    shift: float
    usual: float

    @classmethod
    def fit(cls, damage: Array, ce_shift: Array, drop: Array, limit_points: float, start_damage: float) -> DropMap:
        """Fit to measured trials, [n] each.

        Until trials say more, a straight line is assumed on which `start_damage` causes `limit_points`, steeper where plans beyond the limit
        say so. Trials far beyond it count only as long as there are few others.
        """
        slope = limit_points / max(start_damage, 1e-9)
        near = drop < max(6.0 * limit_points + 1.0, float(np.sort(drop)[:FEWEST].max(initial=0.0)) + 1e-9)
        damage, ce_shift, drop = damage[near], ce_shift[near], drop[near]
        shift = 0.0
        beyond = (drop > limit_points) & (damage > 0.0)
        if np.any(beyond):
            seen = drop[beyond] / damage[beyond]
            steep = np.log(np.append(seen, slope if slope > 0.0 else seen.min())).mean()
            slope = max(slope, float(np.exp(steep)))
        if len(drop) >= FEWEST:
            features = np.column_stack([damage, ce_shift])
            scales: Array = np.maximum(np.std(features, axis=0), 1e-9)
            gram = (features / scales).T @ (features / scales) + np.diag([1e-3, 1.0]) * len(drop) * 0.05
            weights = np.linalg.solve(gram, (features / scales).T @ drop) / scales
            shift = float(max(weights[1], 0.0))
            slope = float(max(weights[0] + shift * _ratio(ce_shift, damage), 0.1 * slope))
        smooth = drop
        if shift > 0.0:
            # the part of the cross-entropy change that is not simply proportional to damage is taken out of the drop
            smooth = drop - shift * (ce_shift - _ratio(ce_shift, damage) * damage)
        reach = max(2.0 * float(damage.max(initial=0.0)), 2.0 * start_damage)
        grid = np.concatenate([np.linspace(0.0, reach, 24), damage])
        values = np.concatenate([slope * np.linspace(0.0, reach, 24), smooth])
        weights_of = np.concatenate([np.full(24, 0.25), np.ones(len(damage))])
        order = np.argsort(grid, kind="stable")
        fitted = isotonic(values[order], weights_of[order])
        knots, first = np.unique(grid[order], return_index=True)
        drops = _soften(knots, fitted[first])
        error = smooth - np.interp(damage, knots, drops)
        scatter = float(np.sqrt((np.sum(error**2) + 4.0 * (0.25 * limit_points) ** 2) / (len(error) + 4.0)))
        return cls(knots, drops, scatter, shift, _ratio(ce_shift, damage))

    def drop(self, damage: Array) -> Array:
        """Expected drop in points, [n]; beyond the last knot the mean slope continues."""
        slope = self._mean_slope()
        inside = np.interp(damage, self.knots, self.drops)
        result: Array = inside + slope * np.maximum(damage - self.knots[-1], 0.0)
        return result

    def expected(self, damage: Array, ce_shift: Array) -> Array:
        """Expected drop in points of plans that were measured, [n]: what their cross-entropy says is added to the curve."""
        return self.drop(damage) + self.shift * (ce_shift - self.usual * damage)

    def damage(self, drop: float) -> float:
        """The damage at which the curve reaches this drop (0 if it starts above it)."""
        if drop <= self.drops[0]:
            return float(self.knots[min(1, len(self.knots) - 1)]) * 0.5
        if drop >= self.drops[-1]:
            return float(self.knots[-1] + (drop - self.drops[-1]) / self._mean_slope())
        strictly = self.drops + np.linspace(0.0, 1e-9, len(self.drops))
        return float(np.interp(drop, strictly, self.knots))

    def _mean_slope(self) -> float:
        """Points per unit of damage over the whole curve."""
        return max(float(self.drops[-1] - self.drops[0]), 1e-9) / max(float(self.knots[-1] - self.knots[0]), 1e-12)


def _ratio(ce_shift: Array, damage: Array) -> float:
    return float(ce_shift @ damage) / max(float(damage @ damage), 1e-12)


def _soften(knots: Array, steps: Array) -> Array:
    """Steps become slopes: a plateau is replaced by the line between the middles of its neighbours, [n]."""
    edges = np.flatnonzero(np.diff(steps) > 0.0)
    if not len(edges):
        return steps
    starts = np.concatenate([[0], edges + 1])
    ends = np.concatenate([edges, [len(steps) - 1]])
    middles = np.array([0.5 * (knots[s] + knots[e]) for s, e in zip(starts, ends, strict=True)])
    softened: Array = np.interp(knots, middles, steps[starts])
    return softened
