"""The layer's quadratic problem against least squares and against the samples."""

from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.recovery.quadratic import (
    least_squares_target,
    output_error,
    output_power,
    quadratic_of,
    ridge_of,
    upper_factor_of_inverse,
)
from tests.recovery import problems
from tests.recovery.problems import case, moments


@pytest.mark.parametrize("width", [1, 4, 9])
def test_factor_is_upper_and_squares_to_the_inverse(width: int) -> None:
    matrix = problems.quadratic(case(1, groups=3, width=width)).matrix
    factor = upper_factor_of_inverse(matrix)
    np.testing.assert_array_equal(factor, np.triu(factor))
    np.testing.assert_allclose(factor.transpose(0, 2, 1) @ factor, np.linalg.inv(matrix), rtol=1e-7, atol=1e-9)
    # the square of a diagonal entry is what eliminating all earlier columns leaves of the inverse
    for j in range(width):
        left = np.linalg.inv(matrix[:, j:, j:])[:, 0, 0]
        np.testing.assert_allclose(factor[:, j, j] ** 2, left, rtol=1e-7)


@pytest.mark.parametrize("noise", [0.0, 0.4])
@pytest.mark.parametrize("ridge", [0.0, 0.05])
def test_target_is_least_squares_on_kept_inputs_with_noise_and_ridge_as_further_samples(
    noise: float, ridge: float
) -> None:
    one = case(4, groups=2, width=6)
    keep = np.array([0, 2, 5])
    moment = moments(one.x).second_moment(False)
    found, matrix = least_squares_target(one.weight, moment, keep, noise, share=ridge)
    count = one.x.shape[1]
    shares = ridge_of(moment[:, keep[:, None], keep], ridge).reshape(-1)
    for g, share in enumerate(shares):
        inputs = np.vstack([one.x[g][:, keep], np.sqrt(count * noise) * np.eye(3), np.sqrt(count * share) * np.eye(3)])
        for r in range(5):
            old = one.weight[g, r]
            outputs = np.concatenate([one.x[g] @ old, np.zeros(3), np.sqrt(count * share) * old[keep]])
            best = np.linalg.lstsq(inputs, outputs, rcond=None)[0]
            np.testing.assert_allclose(found[g, r], best, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(matrix[g], inputs.T @ inputs / count, rtol=1e-8, atol=1e-10)
    dropped = one.weight[:, :, keep]
    assert not np.allclose(found, dropped, rtol=0.05)


def test_target_without_removal_or_noise_is_the_weight() -> None:
    one = case(5)
    target, _ = least_squares_target(one.weight, moments(one.x).second_moment(True))
    np.testing.assert_array_equal(target, one.weight)


def test_target_leans_towards_the_prior_where_inputs_say_nothing() -> None:
    one = case(6, width=4)
    x = one.x.copy()
    x[:, :, 3] = 0.0
    prior = np.full_like(one.weight, 9.0)
    target, _ = least_squares_target(one.weight, moments(x).second_moment(False), None, 0.0, prior, share=1e-9)
    np.testing.assert_allclose(target[:, :, 3], 9.0)
    np.testing.assert_allclose(target[:, :, :3], one.weight[:, :, :3], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("centred", [False, True])
def test_error_is_the_mean_square_on_the_samples(centred: bool) -> None:
    one = case(7, groups=2)
    values = np.round(one.weight)
    x = one.x - one.x.mean(axis=1, keepdims=True) if centred else one.x
    expected = problems.output_error(one, values, x)
    np.testing.assert_allclose(output_error(one.weight, values, moments(one.x), centred), expected)
    other = output_error(one.weight, values, moments(one.x), not centred)
    assert not np.allclose(other, expected, rtol=1e-2)
    problem = quadratic_of(one.weight, moments(one.x), centred)
    ridge = ridge_of(moments(one.x).second_moment(centred))[:, :, 0]
    plain = problem.error(values) - ridge * ((one.weight - values) ** 2).sum(axis=2)
    np.testing.assert_allclose(plain, expected)


def test_error_of_removed_columns_and_noisy_inputs_is_what_drawing_them_gives() -> None:
    one = case(8, width=5, samples=40)
    keep, noise = np.array([1, 3, 4]), 0.3
    values = one.weight[:, :, keep] * 1.1
    found = output_error(one.weight, values, moments(one.x), False, keep, noise)
    rng = np.random.default_rng(0)
    total = np.zeros_like(found)
    for _ in range(400):
        noisy = one.x[:, :, keep] + rng.normal(0, noise**0.5, (1, 40, 3))
        outputs = one.x @ one.weight.transpose(0, 2, 1) - noisy @ values.transpose(0, 2, 1)
        total += (outputs**2).mean(axis=1)
    np.testing.assert_allclose(found, total / 400, rtol=0.05)


def test_power_is_the_variance_of_the_outputs() -> None:
    one = case(9, groups=2)
    outputs = one.x @ one.weight.transpose(0, 2, 1)
    np.testing.assert_allclose(output_power(one.weight, moments(one.x)), outputs.var(axis=1))


def test_inputs_that_hardly_vary_about_a_large_mean_still_have_a_factor() -> None:
    """Their covariance, a difference of nearly equal numbers, is not positive; Cholesky alone refuses it."""
    rng = np.random.default_rng(0)
    x = 1e7 + rng.normal(0, 1e-3, (1, 40, 6))
    found = moments(x)
    ridge = ridge_of(found.second_moment(True)) * np.eye(6)
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(found.second_moment(True) + ridge)
    problem = quadratic_of(rng.normal(size=(1, 3, 6)), found, centred=True)
    assert np.isfinite(problem.factor).all() and (np.linalg.eigvalsh(problem.matrix) > 0).all()
