"""A guard against fitting the search samples: how much of a plan's good luck is believed.

All plans are measured on the same search samples, and the search keeps whichever plan these samples happen to favour.
What a plan's damage and change of cross-entropy say about its drop is smooth and not a matter of a few samples; what it
measured below that is part merit, part luck. The share that is merit is measured: samples are divided into halves at
random in several ways, and where halves differ as much as plans do, nothing but luck is left. A plan is accepted on
its drop with luck taken off. Bad luck is not given back.

Before there is evidence everything is believed: few trials give little to choose from, so little luck is chosen.

Source: shrinkage of measured towards predicted values by their reliability, Efron and Morris, J. Am. Stat. Assoc. 70
(1975), 311-319; reliability from halves, Spearman and Brown, Br. J. Psychol. 3 (1910), 271-322.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.drop_map import DropMap
from hwc_onnx.search.problem import Outcome

Array = NDArray[np.float64]

FEW = 6
"""Complete outcomes that tell how drops follow from damages."""
SPLITS = 6
"""Ways to divide the samples into halves."""
FEWEST = 64
"""Samples that are worth dividing."""
TRUSTING = 10.0
"""Complete trials that the belief in a first measurement weighs (assumed)."""
NEARBY = 6.0
"""Plans that lost more than this many limits (and a point) say nothing about plans near the limit (assumed)."""
START_DAMAGE = 0.04
"""Damage assumed to cost one point of drop until trials say otherwise (assumed)."""


def contrasts(differences: Array, points_per_unit: float) -> tuple[float, ...]:
    """Half the difference in drop between two halves of the samples, for `SPLITS` ways to divide them, in points.

    Args:
        differences: paired differences of the samples in the order of the split, [n].
        points_per_unit: scale from the metric's unit to points.

    Halves are drawn at random, the same for every plan: samples come in an order in which classes take turns. Fewer than
    `FEWEST` samples give nothing.
    """
    if len(differences) < FEWEST:
        return ()
    even = len(differences) // 2 * 2
    rng = np.random.default_rng(even)
    halves = np.repeat([1.0, -1.0], even // 2)
    signs = np.stack([rng.permutation(halves) for _ in range(SPLITS)])
    found = signs @ differences[:even] / even * points_per_unit
    return tuple(float(value) for value in found)


class Guard:
    """The smooth prediction of drops and the share of luck that holds on other samples, learned from `outcomes`.

    Outcomes that are not complete count only as long as there are few others: their drops are those of fewer samples, but where the search
    begins far beyond the limit nothing else tells how far.
    """

    def __init__(self, outcomes: Sequence[Outcome], limit_points: float) -> None:
        self.drop_map = fit_drop_map(outcomes, limit_points)
        self.reliability = self._reliability(
            [o for o in outcomes if o.contrasts and np.isfinite(o.damage) and o.drop_points < NEARBY * limit_points + 1.0]
        )

    def accepted_drop(self, outcome: Outcome) -> float:
        """The drop in points with luck taken off: never below the measured one."""
        luck = outcome.drop_points - self._expected([outcome])[0]
        if not outcome.contrasts or luck >= 0.0:
            return outcome.drop_points
        return float(outcome.drop_points - (1.0 - self.reliability) * luck)

    def likely_drop(self, outcome: Outcome) -> float:
        """The drop in points expected on other samples: luck counts as far as it is merit, bad luck like good."""
        expected = float(self._expected([outcome])[0])
        return expected + self.reliability * (outcome.drop_points - expected)

    def _expected(self, outcomes: Sequence[Outcome]) -> Array:
        return self.drop_map.expected(
            np.array([outcome.damage for outcome in outcomes]), np.array([outcome.ce_shift for outcome in outcomes])
        )

    def _reliability(self, outcomes: list[Outcome]) -> float:
        """1 - (variance between halves) / (variance around the prediction), drawn to 1 as if by `TRUSTING` trials."""
        if len(outcomes) < 3:
            return 1.0
        luck = np.array([outcome.drop_points for outcome in outcomes]) - self._expected(outcomes)
        halves = np.array([outcome.contrasts for outcome in outcomes])
        # that one half suffers more as damage grows is common to all plans, as the drop map is
        trend = np.column_stack([np.ones(len(luck)), [outcome.damage for outcome in outcomes]])
        halves -= trend @ np.linalg.lstsq(trend, halves, rcond=None)[0]
        scatter, noise = float(np.mean(luck**2)), float(np.mean(halves**2))
        share = float(np.clip(1.0 - noise / scatter, 0.0, 1.0)) if scatter > 0.0 else 0.0
        n = len(outcomes)
        return (TRUSTING + n * share) / (TRUSTING + n)


def standard_error(outcomes: Sequence[Outcome], limit_points: float, guess: float) -> float:
    """Standard error of the drop near the limit, in points: of complete trials nearby, else `guess`; less than the limit."""
    near = _errors_nearby(outcomes, limit_points)
    return float(min(np.median(near) if near else guess, 0.9 * limit_points))


def typical_error(outcomes: Sequence[Outcome], limit_points: float) -> float:
    """Standard error of the drop in points: of complete trials near the limit, else of all that lost something; zero where there are none."""
    found = _errors_nearby(outcomes, limit_points) or [o.standard_error for o in outcomes if o.standard_error > 0.0]
    return float(np.median(found)) if found else 0.0


def _errors_nearby(outcomes: Sequence[Outcome], limit_points: float) -> list[float]:
    """Standard errors of trials near the limit, none where they are fewer than three."""
    near = [
        o.standard_error for o in outcomes if 0.3 * limit_points <= o.drop_points <= 2.5 * limit_points and o.standard_error > 0.0
    ]
    return near if len(near) >= 3 else []


def fit_drop_map(outcomes: Sequence[Outcome], limit_points: float) -> DropMap:
    """The drop map of complete outcomes, and of others while these are few."""
    complete = [outcome for outcome in outcomes if outcome.complete]
    if len(complete) >= FEW:
        outcomes = complete
    return DropMap.fit(
        np.array([max(outcome.damage, 1e-7) for outcome in outcomes]),
        np.array([outcome.ce_shift for outcome in outcomes]),
        np.array([outcome.drop_points for outcome in outcomes]),
        limit_points,
        START_DAMAGE * limit_points,
    )
