"""One layer's repaired rows: what is reported is what the samples show, and each repair pays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwc_onnx.pruning.base import FineAlgorithm
from hwc_onnx.pruning.table import FINE, algorithm
from hwc_onnx.recovery.layer import LayerRecovery
from hwc_onnx.recovery.rounding import Variant
from hwc_onnx.recovery.scales import ranges_of
from hwc_onnx.recovery.setting import RepairedRows, Setting
from tests.recovery.problems import F64, Case, case, layout_for, moments


def worker(one: Case, recovery: str = "full", takes_bias: bool = True, **facts: object) -> LayerRecovery:
    groups, rows, width = one.weight.shape
    bias = np.arange(groups * rows, dtype=float) if takes_bias else None
    layout = layout_for(groups, rows, width // 4, 4)
    return LayerRecovery(layout, one.weight, bias, one.statistics, takes_bias, recovery, **facts)


def values(rows: RepairedRows) -> F64:
    return rows.codes.astype(float) * (1.0 if rows.scale is None else rows.scale.astype(float)[:, :, None])


def outputs(weight: F64, bias: np.ndarray | None, x: F64) -> F64:
    """[G, n, R]."""
    made = x @ weight.transpose(0, 2, 1)
    return made if bias is None else made + bias.reshape(weight.shape[0], 1, -1)


def mask(name: str) -> FineAlgorithm:
    found = algorithm(name)
    assert isinstance(found, FineAlgorithm)
    return found


SETTINGS = [
    Setting(2),
    Setting(4),
    Setting(8),
    Setting(16, mask("obs"), 0.5),
    Setting(3, mask("obs"), 0.5),
    Setting(4, mask("nm24")),
    Setting(4, mask("wanda"), 0.6),
    Setting(4, columns=np.array([0, 1, 2, 3, 8, 9, 10, 11])),
    Setting(16, columns=np.array([0, 1, 2, 3, 8, 9, 10, 11])),
]


@pytest.mark.parametrize("takes_bias", [True, False])
@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_reported_errors_are_those_of_the_outputs_on_the_samples(number: int, takes_bias: bool) -> None:
    one, setting = case(number, groups=2, rows=4, width=12, samples=200), SETTINGS[number]
    made = worker(one, takes_bias=takes_bias).build(setting)
    columns = slice(None) if setting.columns is None else setting.columns
    old_bias = np.arange(8.0) if takes_bias else None
    difference = outputs(one.weight, old_bias, one.x) - outputs(values(made), made.bias, one.x[:, :, columns])
    variance = outputs(one.weight, None, one.x).var(axis=1).sum()
    assert made.error_fit == pytest.approx((difference**2).mean(axis=1).sum() / variance, rel=1e-4)
    kept = one.held[:, :, columns]
    difference = outputs(one.weight, None, one.held) - outputs(values(made), None, kept)
    spread = difference.var(axis=1) if takes_bias else (difference**2).mean(axis=1)
    variance = outputs(one.weight, None, one.held).var(axis=1).sum()
    assert made.error_heldout == pytest.approx(spread.sum() / variance, rel=1e-4)
    halved = difference / 2
    assert made.error_heldout != pytest.approx((halved**2).mean(axis=1).sum() / variance, rel=1e-2)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("share", [None, "obs", "magnitude"])
def test_full_recovery_is_best_and_a_searched_scale_beats_the_largest_weight(bits: int, share: str | None) -> None:
    chosen = None if share is None else mask(share)
    setting = Setting(bits, chosen, 0.5 if chosen else 0.0)
    totals = dict.fromkeys(("none", "ranges", "full"), 0.0)
    for seed in range(4):
        one = case(seed, rows=16, width=24, samples=400)
        for recovery in totals:
            made = worker(one, recovery).build(setting)
            centred = outputs(one.weight - values(made), None, one.held).var(axis=1).sum()
            totals[recovery] += float(centred)
    assert totals["full"] < min(totals["ranges"], totals["none"])
    if share is None:
        assert totals["ranges"] < totals["none"]


@pytest.mark.parametrize("name", FINE)
@pytest.mark.parametrize("bits", [2, 5, 16])
def test_zeros_of_the_mask_survive_every_repair(name: str, bits: int) -> None:
    one = case(3, rows=6, width=32, samples=100)
    recovery = worker(one)
    keep = recovery.build(Setting(16, mask(name), 0.5)).codes != 0
    assert (~keep).sum() == keep.size / 2
    made = recovery.build(Setting(bits, mask(name), 0.5, noise=0.5))
    assert not made.codes[~keep].any()


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("bits", range(2, 9))
def test_codes_of_each_row_fit_one_range_of_the_width(bits: int, portable: bool) -> None:
    one = case(4, rows=12, width=16)
    made = worker(one, portable=portable).build(Setting(bits))
    assert made.codes.dtype == np.int8 and made.scale is not None and (made.scale > 0).all()
    for row in made.codes[0]:
        assert any(low <= row.min() and row.max() <= high for low, high in ranges_of(bits, portable))


def test_settings_made_together_equal_those_made_alone() -> None:
    one = case(5, rows=6, width=12)
    together = worker(one).build_many(SETTINGS)
    for setting, found in zip(SETTINGS, together, strict=True):
        alone = worker(one).build(setting)
        np.testing.assert_array_equal(found.codes, alone.codes)
        np.testing.assert_array_equal(found.bias, alone.bias)
        assert (found.error_fit, found.error_heldout) == (alone.error_fit, alone.error_heldout)


@pytest.mark.parametrize("bits", [2, 4, 16])
def test_rows_made_for_noisy_inputs_are_no_worse_under_the_noise(bits: int) -> None:
    one = case(6, rows=8, width=12, samples=200)
    recovery = worker(one)
    plain, noisy = (values(recovery.build(Setting(bits, mask("obs"), 0.3, noise))) for noise in (0.0, 2.0))

    def error(rows: F64) -> float:
        return float(outputs(one.weight - rows, None, one.held).var(axis=1).sum() + 2.0 * (rows**2).sum())

    assert error(noisy) < error(plain)


def test_a_rival_stays_row_by_row_where_it_does_better_on_held_out_samples() -> None:
    one = case(7, rows=6, width=12)
    recovery = worker(one)
    own = recovery.build(Setting(4))
    fine = recovery.build(Setting(8))
    assert own.scale is not None and fine.scale is not None
    codes, scale = own.codes.copy(), own.scale.astype(float).copy()
    codes[0, :3] = fine.codes[0, :3]
    scale[0, :3] = fine.scale[0, :3]
    codes[0, 3:] = -codes[0, 3:]
    mixed = recovery.build(Setting(4), Variant(codes.astype(np.int8), scale))
    np.testing.assert_array_equal(mixed.codes[0, :3], fine.codes[0, :3])
    np.testing.assert_array_equal(mixed.codes[0, 3:], own.codes[0, 3:])
    assert mixed.error_heldout < own.error_heldout


def test_scales_are_tied_across_the_groups_of_a_transposed_convolution() -> None:
    one = case(8, groups=2, rows=3, width=8)
    layout = replace(layout_for(2, 3, 2, 4), transposed=True, shape=(4, 3, 1, 4), output_axis=1)
    for recovery in ("full", "none"):
        made = LayerRecovery(layout, one.weight, None, one.statistics, True, recovery).build(Setting(4))
        assert made.scale is not None
        np.testing.assert_array_equal(made.scale[0], made.scale[1])
        assert layout.flat(made.scale).shape == (3,)


def test_paired_moments_fit_rows_to_the_outputs_of_other_inputs() -> None:
    """Targets from x, inputs x': zero rows on the second half, as the rebuild uses it."""
    one = case(9, rows=4, width=6, samples=300)
    rng = np.random.default_rng(1)
    shifted = one.x @ (np.eye(6) + 0.3 * rng.normal(size=(6, 6)))
    both = np.concatenate([one.x, shifted], axis=2)
    statistics = type(one.statistics)(moments(both), moments(both))
    wide = np.concatenate([one.weight, np.zeros_like(one.weight)], axis=2)
    recovery = LayerRecovery(layout_for(1, 4, 6), wide, np.zeros(4), statistics, True, prior=one.weight)
    made = recovery.build(Setting(16, columns=np.arange(6, 12)))
    inputs = np.hstack([shifted[0], np.ones((300, 1))])
    best = np.linalg.lstsq(inputs, one.x[0] @ one.weight[0].T, rcond=None)[0]
    least = ((one.x[0] @ one.weight[0].T - inputs @ best) ** 2).mean()
    found = ((one.x[0] @ one.weight[0].T - shifted[0] @ made.codes[0].T - made.bias) ** 2).mean()
    kept = ((one.x[0] @ one.weight[0].T - shifted[0] @ one.weight[0].T) ** 2).mean()
    assert least <= found + 1e-6
    assert found - least < 0.05 * (kept - least)
