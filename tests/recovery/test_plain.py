"""Rounding some rows at a time gives what rounding all of them at once gives, in every layout."""

from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.graph.model_view import ModelView
from hwc_onnx.pruning.base import FineAlgorithm
from hwc_onnx.pruning.table import algorithm
from hwc_onnx.recovery import plain
from hwc_onnx.recovery.layer import LayerRecovery
from hwc_onnx.recovery.layout import layout_of
from hwc_onnx.recovery.setting import RepairedRows, Setting
from hwc_onnx.recovery.statistics import LayerStatistics, Moments
from tests.recovery.layers import KINDS, one_layer


def both(
    kind: str, recovery: str, bits: int, portable: bool, setting: Setting | None = None
) -> tuple[RepairedRows, RepairedRows]:
    """(all at once, in blocks of a few rows)."""
    proto, _, layer = one_layer(kind)
    weight = ModelView(proto).array(str(layer.weight)).copy()
    weight[(0,) * weight.ndim] *= 3
    layout = layout_of(layer)
    white = Moments.identity(layout.groups, layout.width)
    bias = np.arange(layout.outputs, dtype=np.float32)
    statistics = LayerStatistics(white, white)
    whole = LayerRecovery(layout, layout.to_rows(weight), bias, statistics, True, recovery, portable)  # type: ignore[arg-type]
    setting = Setting(bits, noise=0.01) if setting is None else setting
    made = whole.build(setting)
    return made, plain.rounded(weight, layout, setting, recovery, portable, bias)


@pytest.mark.parametrize("rows", [1, 3, 10**6])
@pytest.mark.parametrize(("recovery", "bits", "portable"), [("none", 8, False), ("none", 8, True), ("ranges", 3, False)])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_blocks_of_rows_give_the_same_codes(
    kind: str, recovery: str, bits: int, portable: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "ROW_BYTES", 8 * 9 * 4 * rows)
    expected, found = both(kind, recovery, bits, portable)
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.scale, expected.scale)
    np.testing.assert_array_equal(found.bias, expected.bias)
    assert found.codes.dtype == np.int8
    assert found.error_fit == pytest.approx(expected.error_fit, rel=1e-9)
    assert found.error_heldout == pytest.approx(expected.error_heldout, rel=1e-9)


def test_other_scales_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right, same = both("conv", "none", 8, False)
    np.testing.assert_array_equal(right.scale, same.scale)
    monkeypatch.setattr(plain, "storable", lambda scale, tied, power_of_two: scale * 1.01)
    _, wrong = both("conv", "none", 8, False)
    assert not np.array_equal(right.scale, wrong.scale)


def test_rows_of_zeros_get_the_median_scale_of_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "ROW_BYTES", 8)
    layout = layout_of(one_layer("conv")[2])
    weight = np.random.default_rng(0).standard_normal(layout.shape).astype(np.float32)
    weight[2] = 0
    found = plain.rounded(weight, layout, Setting(8), "none", False, None)
    assert found.scale is not None
    live = np.delete(np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127, 2)
    np.testing.assert_allclose(found.scale[0, 2], np.median(live), rtol=1e-6)
    assert not found.codes[0, 2].any()


def fine(name: str) -> FineAlgorithm:
    found = algorithm(name)
    assert isinstance(found, FineAlgorithm)
    return found


def real(rows: RepairedRows) -> np.ndarray:
    assert rows.scale is not None
    return rows.codes * rows.scale[:, :, None]


@pytest.mark.parametrize("how", ["cut", "rescaled", "folded", "refitted", "masked"])
@pytest.mark.parametrize("recovery", ["none", "ranges"])
def test_inputs_that_are_gone(how: str, recovery: str) -> None:
    layout = layout_of(one_layer("conv")[2])
    staying = np.array([0, 2, 3])
    columns = layout.columns(staying)
    into = np.arange(layout.width)
    into[layout.columns(np.array([1]))] = layout.columns(np.array([3]))
    setting = Setting(
        4,
        columns=columns,
        rescale=4 / 3 if how in ("rescaled", "refitted") else 1.0,
        into=into if how in ("folded", "masked") else None,
        refit=how == "refitted",
        mask=fine("magnitude") if how == "masked" else None,
        ratio=0.5 if how == "masked" else 0.0,
    )
    expected, found = both("conv", recovery, 4, False, setting)
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-6)
    assert found.error_heldout == pytest.approx(expected.error_heldout, rel=1e-6)
    other, _ = both("conv", recovery, 4, False, Setting(4, columns=columns))
    assert how in ("cut", "refitted") or not np.allclose(real(other), real(found)), "the setting changed nothing"
