"""Whether one strategy is better than another on the same seeds: Wilcoxon's signed-rank test, one-sided and paired.

Source: Wilcoxon, Biometrics Bulletin 1 (1945), 80-83; Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

SAME = 1e-9
"""Savings that differ by less are equal: what is left of arithmetic."""


def signed_rank_p(first: Sequence[float], second: Sequence[float], side: Literal["greater", "less"] = "greater") -> float:
    """p of "`first` is not greater (or less) than `second`", from pairs of the same seed.

    Equal pairs are left out, as Wilcoxon did; where all are equal, p is 1. Few pairs are tested exactly; no p is below
    `smallest_p`.
    """
    from scipy.stats import wilcoxon

    differences = np.subtract(first, second)
    differences = np.round(differences[np.abs(differences) > SAME] / SAME) * SAME
    if not len(differences):
        return 1.0
    found = float(wilcoxon(differences, alternative=side).pvalue)
    return min(max(found, smallest_p(len(differences))), 1.0)


def smallest_p(pairs: int) -> float:
    """The smallest p that so many pairs allow: all of them agree, which chance brings about once in 2^pairs."""
    return 2.0**-pairs


def holm(values: Sequence[float]) -> list[float]:
    """The p values corrected for being several, in the order given."""
    order = np.argsort(values, kind="stable")
    corrected, largest = [0.0] * len(values), 0.0
    for rank, position in enumerate(order):
        largest = max(largest, min((len(values) - rank) * values[position], 1.0))
        corrected[position] = largest
    return corrected
