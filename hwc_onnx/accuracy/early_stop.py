"""Stop measuring a candidate as soon as the images seen so far already say that it breaks the limit.

After 256, 512, 1,024, ... images the hypothesis "the whole split would respect the limit" is tested. The levels of all
tests add up to `alpha`, so by the union bound a candidate that does respect the limit is stopped with probability at
most `alpha`, however the looks depend on each other. Images come in a random order, and the split is finite: a sample
of n from N has (1 - n/N) of the variance that a sample from an endless stream would have.

Decisions depend on counts only, never on time, so that a run can be repeated exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.statistics import discordant, is_binary, normal_quantile, tango_z

FIRST_LOOK = 256
ALPHA = 0.025


@dataclass(frozen=True)
class EarlyStop:
    """When to stop one candidate.

    `limit_points` is the largest allowed drop (infinite: never stop for it). `hopeless` says that the candidate's
    energy already rules it out: it is stopped at the first look, having taught what it can. `margin` is how many standard
    errors below the limit a drop over the whole split must stay to be of use (negative: above); the test is then of that.
    """

    limit_points: float = math.inf
    hopeless: bool = False
    margin: float = 0.0
    alpha: float = ALPHA
    first: int = FIRST_LOOK

    def looks(self, total: int) -> tuple[int, ...]:
        """Numbers of images after which to decide: `first`, doubled while below `total`."""
        counts = []
        count = self.first
        while count < total:
            counts.append(count)
            count *= 2
        return tuple(counts)

    def stops(self, differences: NDArray[np.float64], total: int, points_per_unit: float) -> bool:
        """Whether to stop after the images whose paired differences [n] (original minus compressed) are given.

        Args:
            differences: positive is worse, in the metric's own unit.
            total: images in the whole split.
            points_per_unit: scale from the metric's unit to points.
        """
        seen = len(differences)
        if seen not in self.looks(total):
            return False
        if self.hopeless:
            return True
        if not math.isfinite(self.limit_points):
            return False
        level = self.alpha * _spending(self.looks(total), self.looks(total).index(seen), total)
        if not is_binary(differences):
            level /= 2  # a long left tail is seldom in the sample that should warn of it
        acceptable = self.limit_points / points_per_unit - self.margin * float(differences.std()) / math.sqrt(total)
        z = excess_z(differences, acceptable) / math.sqrt(1 - seen / total)
        return z > normal_quantile(1 - level)


def excess_z(differences: NDArray[np.float64], limit: float) -> float:
    """How many standard errors the mean difference [n] is above `limit`, corrected for what makes small samples lie.

    Right-or-wrong answers: Tango's score statistic with half a count taken off (counts are a lattice). Others: Hall's
    monotone transformation of Student's ratio, because a skewed loss shifts that ratio.

    Source: Hall, J. R. Statist. Soc. B 54 (1992), 221-228.
    """
    n = len(differences)
    if is_binary(differences):
        corrected = limit + 0.5 / n
        return tango_z(*discordant(differences), corrected) if -1 < corrected < 1 else -math.inf
    spread = float(differences.std(ddof=1))
    excess = float(differences.mean()) - limit
    if spread == 0:
        return 0.0 if excess == 0 else math.copysign(math.inf, excess)
    ratio = excess / spread
    skewness = float(((differences - differences.mean()) ** 3).mean()) / spread**3
    transformed = ratio + skewness * ratio**2 / 3 + skewness**2 * ratio**3 / 27 + skewness / (6 * n)
    return transformed * math.sqrt(n)


def _spending(looks: tuple[int, ...], position: int, total: int) -> float:
    """Share of the error budget for one look: what Pocock-type spending ln(1 + (e - 1) t) adds since the look before.

    The budget is spent over the looks, scaled so that they use it up: the last image needs none.

    Source: Lan and DeMets, Biometrika 70 (1983), 659-663.
    """

    def spent(count: int) -> float:
        return math.log1p((math.e - 1) * count / total)

    before = spent(looks[position - 1]) if position else 0.0
    return (spent(looks[position]) - before) / spent(looks[-1])
