"""Intervals for a paired difference: how far the measured drop can be from the true one.

All functions take and return plain units (shares for proportions); scaling to points is the caller's. A difference is
original minus compressed, so positive is worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def normal_quantile(probability: float) -> float:
    """The standard normal's quantile."""
    return NormalDist().inv_cdf(probability)


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of one proportion, from `successes` of `n`.

    Source: Wilson, JASA 22 (1927), 209-212.
    """
    z2 = normal_quantile(0.5 + confidence / 2) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def tango_z(harmed: int, mended: int, n: int, difference: float) -> float:
    """Score statistic for "the true difference of two paired proportions is `difference`".

    Of `n` pairs, `harmed` are right in the original only and `mended` in the compressed model only. The variance is
    taken where the likelihood is largest under that hypothesis. Falls as `difference` grows.

    Source: Tango, Statistics in Medicine 17 (1998), 891-908, section 3.
    """
    linear = -(harmed + mended) + (2 * n - harmed + mended) * difference
    constant = -mended * difference * (1 - difference)
    root = math.sqrt(max(0.0, linear * linear - 8 * n * constant))
    # two forms of the same root, so that close numbers are never subtracted
    only_mended = (root - linear) / (4 * n) if linear <= 0 else -2 * constant / (root + linear)
    variance = n * (2 * only_mended + difference * (1 - difference))
    distance = harmed - mended - n * difference
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def tango_bounds(harmed: int, mended: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided score interval of the difference of two paired proportions, (low, high) within [-1, 1].

    Each bound is the difference whose statistic `tango_z` is the normal quantile; `high` alone is a one-sided bound of
    level 1 - (1 - confidence) / 2.
    """
    z = normal_quantile(0.5 + confidence / 2)
    observed = (harmed - mended) / n

    def statistic(difference: float) -> float:
        return tango_z(harmed, mended, n, difference)

    low = _falling_root(statistic, z, -1.0, observed) if observed > -1 else -1.0
    high = _falling_root(statistic, -z, observed, 1.0) if observed < 1 else 1.0
    return low, high


def mean_bounds(differences: F64, confidence: float = 0.95) -> tuple[float, float]:
    """Student's two-sided interval of the mean of independent differences [N]."""
    from scipy.special import stdtrit

    n = len(differences)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * standard_error(differences) if n > 1 else math.inf
    centre = float(differences.mean())
    return centre - half, centre + half


def standard_error(differences: F64) -> float:
    """Standard error of the mean of independent differences [N]; 0 for fewer than two."""
    n = len(differences)
    return float(differences.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0


def bootstrap_upper(differences: F64, rng: np.random.Generator, confidence: float = 0.95, rounds: int = 2000) -> float:
    """One-sided upper bound of the mean by the studentised bootstrap.

    The quantile of (resampled mean - mean) / resampled standard error replaces Student's, so a skewed distribution
    does not bias the bound.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 12.5.
    """
    n = len(differences)
    centre, error = float(differences.mean()), standard_error(differences)
    if n < 2 or error == 0:
        return centre
    ratios = np.empty(rounds)
    step = max(1, (1 << 22) // n)
    for start in range(0, rounds, step):
        drawn = differences[rng.integers(0, n, (min(step, rounds - start), n))]
        errors = drawn.std(axis=1, ddof=1) / math.sqrt(n)
        shift = drawn.mean(axis=1) - centre
        # a resample without spread says nothing about the spread: count it as the far side
        ratios[start : start + len(drawn)] = np.where(
            errors > 0, shift / np.maximum(errors, 1e-300), np.where(shift == 0, 0.0, -np.inf)
        )
    quantile = float(np.quantile(ratios, 1 - confidence, method="lower"))
    return centre - quantile * error if math.isfinite(quantile) else rare_upper(differences, confidence)


def rare_upper(differences: F64, confidence: float = 0.95) -> float:
    """One-sided upper bound of the mean where so few differences are not zero that many resamples have no spread: as many
    losses as the upper bound of a Poisson count allows, each as large as the largest difference seen.

    Source: Garwood, Biometrika 28 (1936), 437-442.
    """
    from scipy.stats import chi2

    losses = differences[differences > 0]
    largest = float(losses.max()) if len(losses) else float(np.abs(differences).max())
    return 0.5 * float(chi2.ppf(confidence, 2 * (len(losses) + 1))) * largest / len(differences)


def is_binary(differences: F64) -> bool:
    """Whether every difference is -1, 0 or 1: a difference of two right-or-wrong answers."""
    return bool(np.isin(differences, (-1.0, 0.0, 1.0)).all())


def discordant(differences: F64) -> tuple[int, int, int]:
    """(harmed, mended, n) of differences in {-1, 0, 1}."""
    return int((differences == 1).sum()), int((differences == -1).sum()), len(differences)


def drop_bounds(differences: F64, confidence: float = 0.95, continuous: bool = False) -> tuple[float, float]:
    """Two-sided interval of the mean paired difference: Tango's for right-or-wrong answers, else (and where the metric is
    known to be `continuous`) Student's.
    """
    if not continuous and is_binary(differences):
        return tango_bounds(*discordant(differences), confidence)
    return mean_bounds(differences, confidence)


def drop_upper_bound(
    differences: F64, rng: np.random.Generator, confidence: float = 0.95, continuous: bool = False
) -> float:
    """One-sided upper bound of the mean paired difference: Tango's, else the studentised bootstrap's (as `drop_bounds`)."""
    if not continuous and is_binary(differences):
        return tango_bounds(*discordant(differences), 2 * confidence - 1)[1]
    return bootstrap_upper(differences, rng, confidence)


def _falling_root(function: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where a falling `function` crosses `target`, by bisection to the last bits."""
    for _ in range(60):
        middle = (low + high) / 2
        if function(middle) > target:
            low = middle
        else:
            high = middle
    return (low + high) / 2
