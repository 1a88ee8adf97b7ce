from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

from hwc_onnx.accuracy import statistics as st


@pytest.mark.parametrize(
    ("table", "confidence", "published"),
    [
        # (harmed, mended, pairs): Tango 1998, Agresti and Min 2005, Fagerland, Lydersen and Laake 2014
        ((9, 3, 32), 0.95, (-0.027, 0.390)),
        ((0, 1, 44), 0.90, (-0.096, 0.037)),
        ((16, 8, 86), 0.95, (-0.020, 0.207)),
        ((1, 7, 21), 0.95, (-0.517, -0.026)),
    ],
)
def test_tango_bounds_published_examples_agree(table, confidence, published):
    assert st.tango_bounds(*table, confidence) == pytest.approx(published, abs=5.1e-4)


def restricted_score(harmed: int, mended: int, n: int, difference: float) -> float:
    """The score statistic with the nuisance found by maximising the likelihood numerically."""

    def cost(q: float) -> float:
        cells = ((q + difference, harmed), (q, mended), (1 - 2 * q - difference, n - harmed - mended))
        return -sum(count * math.log(max(p, 1e-300)) for p, count in cells if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    grid = np.linspace(low, high, 2001)
    best = int(np.argmin([cost(q) for q in grid]))
    span = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    q = optimize.minimize_scalar(cost, bounds=span, method="bounded", options={"xatol": 1e-13}).x
    return (harmed - mended - n * difference) / math.sqrt(n * (2 * q + difference - difference**2))


@pytest.mark.parametrize("table", [(9, 3, 32), (30, 20, 1000), (0, 4, 60), (12, 0, 300), (55, 41, 4000)])
@pytest.mark.parametrize("difference", [-0.05, 0.003, 0.01, 0.08])
def test_tango_z_numerical_likelihood_agrees(table, difference):
    assert st.tango_z(*table, difference) == pytest.approx(restricted_score(*table, difference), rel=1e-5, abs=1e-5)


def test_tango_z_unrestricted_variance_fails_the_oracle():
    """Broken twin: the variance at the estimate instead of under the hypothesis."""
    harmed, mended, n, difference = 9, 3, 32, 0.02
    estimate = (harmed - mended) / n
    wald = (estimate - difference) / math.sqrt(((harmed + mended) / n - estimate**2) / n)
    assert wald != pytest.approx(restricted_score(harmed, mended, n, difference), rel=1e-3)


@pytest.mark.parametrize("table", [(0, 0, 100), (100, 0, 100), (0, 100, 100), (1, 0, 1)])
def test_tango_bounds_extreme_tables_stay_in_range(table):
    low, high = st.tango_bounds(*table)
    assert -1 <= low <= (table[0] - table[1]) / table[2] <= high <= 1


def test_tango_bounds_no_disagreement_closed_form():
    z2 = st.normal_quantile(0.975) ** 2
    assert st.tango_bounds(0, 0, 500)[1] == pytest.approx(z2 / (500 + z2))


@pytest.mark.parametrize(("harm", "mend", "n"), [(0.03, 0.02, 1000), (0.012, 0.002, 1000), (0.1, 0.08, 400)])
def test_tango_upper_bound_coverage_is_near_nominal(harm, mend, n):
    rng = np.random.default_rng(0)
    draws = rng.multinomial(n, [harm, mend, 1 - harm - mend], 2000)
    # the bound covers the truth exactly when the statistic at the truth is not below the quantile
    covered = np.mean([st.tango_z(int(b), int(c), n, harm - mend) >= -st.normal_quantile(0.95) for b, c, _ in draws])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_point_estimate_as_bound_coverage_fails():
    """Broken twin: without an interval the truth is covered half of the time."""
    rng = np.random.default_rng(0)
    draws = rng.multinomial(1000, [0.03, 0.02, 0.95], 2000)
    assert np.mean((draws[:, 0] - draws[:, 1]) / 1000 >= 0.01) < 0.7


def test_drop_upper_bound_binary_equals_the_one_sided_tango_bound():
    differences = np.zeros(1000)
    differences[:30], differences[30:50] = 1, -1
    bound = st.drop_upper_bound(differences, np.random.default_rng(0))
    assert st.tango_z(30, 20, 1000, bound) == pytest.approx(-st.normal_quantile(0.95), abs=1e-6)
    assert bound < st.drop_bounds(differences)[1]


def test_wilson_interval_published_example():
    # Newcombe, Statistics in Medicine 17 (1998), 857-872, table I: 81 of 263
    assert st.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_mean_bounds_scipy_agrees():
    from scipy import stats

    values = np.random.default_rng(3).gamma(2.0, size=50)
    expected = stats.t.interval(0.95, 49, loc=values.mean(), scale=stats.sem(values))
    assert st.mean_bounds(values) == pytest.approx(expected)


def test_bootstrap_upper_skewed_differences_covers_better_than_student():
    # a long right tail is where Student's upper bound falls short
    rng = np.random.default_rng(1)
    truth = 1.0
    hits = np.zeros(2)
    for _ in range(300):
        sample = rng.exponential(size=64)
        student = st.mean_bounds(sample, 0.90)[1]
        hits += (st.bootstrap_upper(sample, rng, 0.95, 400) >= truth, student >= truth)
    assert hits[0] / 300 > 0.92
    assert hits[0] > hits[1]


def test_bootstrap_upper_same_generator_repeats():
    values = np.random.default_rng(3).normal(size=80)
    bounds = [st.bootstrap_upper(values, np.random.default_rng(9)) for _ in range(2)]
    assert bounds[0] == bounds[1]


def test_bootstrap_upper_constant_differences_is_the_constant():
    assert st.bootstrap_upper(np.full(64, 0.25), np.random.default_rng(0)) == 0.25


@pytest.mark.parametrize(("losses", "published"), [(0, 2.996), (1, 4.744), (2, 6.296), (5, 10.513)])
def test_rare_losses_are_bounded_like_poisson_counts(losses, published):
    differences = np.zeros(1000)
    differences[:losses] = 1.0
    if not losses:
        differences[0] = -1.0  # a gain, which is not counted
    assert 1000 * st.rare_upper(differences) == pytest.approx(published, abs=1e-3)


def test_one_loss_among_many_has_a_finite_bound_that_holds():
    rng = np.random.default_rng(0)
    seen = np.zeros(613)
    seen[7] = 2.5
    assert 2.5 / 613 < st.bootstrap_upper(seen, rng) < 0.03
    # losses of one size that are this rare: the mean lies below the bound in 95 % of the data sets that have any
    truth, covered, plain = 0.006, [], []
    for _ in range(300):
        drawn = (rng.random(613) < truth).astype(float)
        if 0 < drawn.sum() <= 2:
            covered.append(st.rare_upper(drawn) >= truth)
            plain.append(drawn.mean() + 1.645 * st.standard_error(drawn) >= truth)
    assert np.mean(covered) >= 0.95 > np.mean(plain)  # the twin: a normal bound
