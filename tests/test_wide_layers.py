"""Layers of many outputs or inputs: what is kept of them grows with their weights, not with the square of a side."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import onnx
import pytest

from hwc_onnx import posing
from hwc_onnx.database import LayerDatabase
from hwc_onnx.rebuild import rebuild
from hwc_onnx.recovery import channels
from hwc_onnx.recovery.statistics import Moments
from hwc_onnx.uniform import parse_spec, uniform
from tests import tiny_models
from tests.pruning.prepared import prepare
from tests.tiny_models import Builder

OUTPUTS = 3000
SQUARE = 8 * OUTPUTS**2


def many_outputs(relu: bool) -> onnx.ModelProto:
    b = Builder(["batch", 6])
    product = b.node("Gemm", "x", b.weight(6, OUTPUTS), b.vector(OUTPUTS))
    return b.finish(b.node("Relu", product) if relu else b.node("Neg", product))


def peak_of_rebuild(relu: bool) -> int:
    """Bytes."""
    made = prepare(lambda: many_outputs(relu), images=64)
    plan = uniform(made.graph, parse_spec("w4a8"))
    made.database.stitch(plan)
    tracemalloc.start()
    rebuild(made.proto, made.graph, plan, made.database, made.samples, threads=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_outputs_are_not_squared_without_need() -> None:
    assert peak_of_rebuild(relu=False) < SQUARE / 2


def test_outputs_behind_an_activation_function_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_of_rebuild(relu=True) > SQUARE, "the test cannot fail"
    monkeypatch.setattr(posing, "WIDEST", OUTPUTS)
    assert peak_of_rebuild(relu=True) < SQUARE / 2


def unmeasured(recovery: str) -> tuple[LayerDatabase, LayerDatabase]:
    """A database whose layers were not measured, with layers that count as narrow."""
    made = prepare(tiny_models.ALL["residual"], recovery=recovery)
    calibration = replace(made.database.calibration, layers={})
    return made.database, LayerDatabase(made.proto, made.graph, calibration, recovery=recovery)  # type: ignore[arg-type]


@pytest.mark.parametrize("recovery", ["full", "ranges", "none"])
@pytest.mark.parametrize("algorithm", ["gram", "fold", "reconstruct", "l1"])
def test_no_white_moments_are_made_for_wide_layers(
    algorithm: str, recovery: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, database = unmeasured(recovery)
    monkeypatch.setattr(channels, "WIDEST", 1)
    monkeypatch.setattr(Moments, "identity", _refused)
    plan = uniform(database.graph, parse_spec(f"w4a8,coarse={algorithm}:0.5"))
    stitched = database.stitch(plan)
    expected = measured.stitch(plan)
    assert stitched.keep and {root: len(kept) for root, kept in stitched.keep.items()} == {
        root: len(kept) for root, kept in expected.keep.items()
    }
    for key, weight in stitched.weights.items():
        assert weight.codes.shape == expected.weights[key].codes.shape
        assert np.abs(weight.codes).max() <= 8


def test_narrow_layers_without_data_have_white_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above would find."""
    _, database = unmeasured("full")
    monkeypatch.setattr(Moments, "identity", _refused)
    with pytest.raises(AssertionError, match="as wide as"):
        database.stitch(uniform(database.graph, parse_spec("w4a8,coarse=gram:0.5")))


def _refused(groups: int, width: int) -> Moments:
    raise AssertionError(f"a matrix as wide as {width}")
