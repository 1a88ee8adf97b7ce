"""Rows fitted behind an activation function: the bound holds, no row gets worse, dead outputs are left free."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.recovery.activated import Activated, better_rows, fitted, start_of, statistics
from hwc_onnx.recovery.kept_patches import KeptPatches, Patches
from hwc_onnx.recovery.setting import RepairedRows
from hwc_onnx.recovery.statistics import Room
from tests.recovery.problems import F64


def data(seed: int, groups: int = 2, rows: int = 3, width: int = 6, high: float = np.inf, added: bool = True) -> Activated:
    """Correlated inputs, original rows with a bias, a shortcut."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(groups, width, width)) + np.eye(width)
    inputs = (rng.normal(size=(groups, 400, width)) @ mix + 0.3).astype(np.float32)
    wanted = inputs @ rng.normal(size=(groups, width, rows)).astype(np.float32)
    stream = rng.normal(size=wanted.shape).astype(np.float32) if added else None
    return Activated(inputs, wanted, stream, rng.normal(size=(groups, rows)).astype(np.float32), 0.0, high)


def masked_start(found: Activated, seed: int) -> tuple[F64, F64, np.ndarray]:
    """Least squares of the outputs themselves on half of the inputs."""
    groups, _, width = found.inputs.shape
    keep = np.random.default_rng(seed).random((groups, found.wanted.shape[2], width)) < 0.6
    values = np.zeros(keep.shape)
    for group, row in np.ndindex(keep.shape[:2]):
        kept = np.flatnonzero(keep[group, row])
        values[group, row, kept] = np.linalg.lstsq(found.inputs[group][:, kept], found.wanted[group, :, row], rcond=None)[0]
    return values, np.asarray(found.bias, dtype=np.float64), keep


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([2.0, np.inf]), st.booleans())
def test_targets_bound_the_error_behind_the_function(seed: int, high: float, added: bool) -> None:
    found = data(seed, high=high, added=added)
    values, bias, _ = masked_start(found, seed)
    other = values + np.random.default_rng(seed + 1).normal(size=values.shape) * 0.2
    targets = found.targets(values, bias) + found.bias[:, None] + (0 if found.added is None else found.added)

    def bound(rows: F64) -> F64:
        return np.asarray(((targets - found.outputs(rows, bias)) ** 2).mean(axis=1, dtype=np.float64))

    assert (bound(other) >= found.errors(other, bias) * (1 - 1e-5) - 1e-6).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([2.0, np.inf]), st.booleans(), st.booleans())
def test_fitted_rows_err_less_and_keep_the_mask(seed: int, high: float, added: bool, centred: bool) -> None:
    found = data(seed, high=high, added=added)
    values, bias, keep = masked_start(found, seed)
    after, shift = fitted(found, values, bias, keep, centred)
    assert not after[~keep].any()
    assert (found.errors(after, shift) <= found.errors(values, bias) * (1 + 1e-6)).all()
    assert found.errors(after, shift).sum() < found.errors(values, bias).sum()
    if not centred:
        np.testing.assert_array_equal(shift, bias)


def test_rounds_mend_what_least_squares_of_the_outputs_leaves() -> None:
    """In the median of twenty problems a tenth of the error."""
    ratios = []
    for seed in range(20):
        found = data(seed)
        values, bias, keep = masked_start(found, seed)
        ratios.append(found.errors(*fitted(found, values, bias, keep, True)).sum() / found.errors(values, bias).sum())
    assert np.median(ratios) < 0.9


def test_an_output_that_is_always_cut_off_is_left_alone() -> None:
    """The original never passes: rows that stay below zero are as good as the original's."""
    found = data(3, added=False)
    found = Activated(found.inputs, found.wanted - 1000.0, None, found.bias, 0.0, np.inf)
    values, bias = np.zeros((2, 3, 6)), np.full((2, 3), -1.0)
    assert not found.errors(values, bias).any()
    after, _ = fitted(found, values, bias, None, True)
    np.testing.assert_allclose(after, 0.0, atol=1e-4)


def test_without_the_function_the_same_rows_are_far_off() -> None:
    """Broken twin: bounds that cut nothing off."""
    found = data(3, added=False)
    free = Activated(found.inputs, found.wanted - 1000.0, None, found.bias, -np.inf, np.inf)
    assert (free.errors(np.zeros((2, 3, 6)), np.full((2, 3), -1.0)) > 1e5).all()


def test_moments_of_targets_pose_the_same_problem() -> None:
    """The error of rows by moments is that by patches."""
    found = data(5)
    values, bias, _ = masked_start(found, 5)
    moments = statistics(found, found, values, bias, Room(0)).fit
    count = found.wanted.shape[2]
    rows = np.concatenate([np.broadcast_to(np.eye(count), (2, count, count)), -values], axis=2)
    direct = ((found.targets(values, bias) - found.inputs @ values.transpose(0, 2, 1)) ** 2).mean(axis=1)
    by_moments = np.einsum("grd,gde,gre->gr", rows, moments.second_moment(False), rows)
    np.testing.assert_allclose(by_moments, direct, rtol=1e-3)


@pytest.mark.parametrize("tied", [False, True])
def test_rows_are_taken_where_they_err_less(tied: bool) -> None:
    found = data(7, groups=1)
    codes = np.rint(masked_start(found, 7)[0] * 10).astype(np.int8)
    scale = np.full((1, 3), 0.1, dtype=np.float32)
    old = RepairedRows(codes, scale, found.bias.reshape(-1), 0.0, 0.0)
    wrong = codes.copy()
    wrong[0, 1] += 20
    new = RepairedRows(wrong, scale, found.bias.reshape(-1) + 0.0, 0.0, 0.0)
    for first, second in ((old, new), (new, old)):
        np.testing.assert_array_equal(better_rows(first, second, found, tied).codes, codes)


def test_patches_are_kept_up_to_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows, bias = rng.normal(size=(1, 2, 4)), rng.normal(size=2)
    kept = KeptPatches(rows, bias, (0.0, np.inf))
    parts = [Patches(*(rng.normal(size=(1, 5, width)).astype(np.float32) for width in (4, 2, 2, 3))) for _ in range(4)]
    kept.add((parts[0], parts[1]))
    kept.add((parts[2], parts[3]))
    found = kept.found()
    assert found is not None
    fit, heldout = found
    np.testing.assert_allclose(fit.wanted[:, 5:], parts[2].original @ rows.transpose(0, 2, 1) + parts[2].missing, rtol=1e-5)
    assert heldout.inputs.shape == (1, 10, 3) and fit.added is not None
    np.testing.assert_allclose(start_of(RepairedRows(np.ones((1, 2, 3), np.int8), np.ones((1, 2), np.float32), None, 0, 0), fit)[0], 1)
    monkeypatch.setattr("hwc_onnx.recovery.kept_patches.KEPT_BYTES", 100)
    small = KeptPatches(rows, bias, (0.0, np.inf))
    small.add((parts[0], parts[1]))
    assert small.found() is None
