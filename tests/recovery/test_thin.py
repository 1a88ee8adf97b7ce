"""A layer with fewer samples than inputs is repaired only where that helps on samples it was not fitted to."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from hwc_onnx import api
from hwc_onnx.recovery.layer import LayerRecovery
from hwc_onnx.recovery.rounding import Variant
from hwc_onnx.recovery.setting import Setting
from tests.tiny_models import Builder


def wide() -> onnx.ModelProto:
    """600 white inputs, of which nothing can be learned from some fifty samples, then two small layers."""
    b = Builder(["batch", 600], 4)
    hidden = b.node("Relu", b.gemm("x", 600, 300, out="wide"))
    return b.finish(b.gemm(hidden, 300, 8), ["batch", 8])


def damage(recovery: str, seed: int) -> float:
    rng = np.random.default_rng(seed)
    x, held = (rng.standard_normal((count, 600)).astype(np.float32) for count in (256, 1000))
    plan = api.uniform_plan(wide(), "w8a8,fine=obs:0.5")
    found = api.apply_plan(wide(), plan=plan, data={"x": x, "x_holdout": held}, metric="cosine", recovery=recovery)
    assert found.evaluation is not None
    return found.evaluation.damage


def test_leaving_rows_unrepaired_helps_where_the_samples_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, full = (np.array([damage(recovery, seed) for seed in range(3)]) for recovery in ("ranges", "full"))

    def repaired(self: LayerRecovery, setting: Setting) -> Variant:
        return self._variants([setting])[self._key(setting)][0]

    monkeypatch.setattr(LayerRecovery, "_plain", repaired)  # broken twin: no variant without repair
    twin = np.array([damage("full", seed) for seed in range(3)])
    assert np.median(full / plain) < 1.05
    assert np.median(twin / plain) > 1.05
