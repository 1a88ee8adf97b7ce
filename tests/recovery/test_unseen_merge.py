"""Channels are merged where nothing can be refitted: layers without statistics, also with recovery full and sequential."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from hwc_onnx import api
from hwc_onnx.database import LayerDatabase
from tests.tiny_models import Builder


def duplicated() -> onnx.ModelProto:
    """Two convolutions in three dimensions; the first makes each of its channels twice, so merging them loses nothing."""
    b = Builder(["batch", 2, 3, 5, 5], 1)
    half, bias = b.rng.normal(0, 0.3, (4, 2, 3, 3, 3)), b.rng.normal(0, 0.3, 4)
    first = b.const(np.concatenate([half, half]))
    hidden = b.node("Relu", b.node("Conv", "x", first, b.const(np.tile(bias, 2)), pads=[1] * 6))
    last = b.node("Conv", hidden, b.const(b.rng.normal(0, 0.2, (6, 8, 3, 3, 3))), b.vector(6), pads=[1] * 6)
    pooled = b.node("GlobalAveragePool", b.node("Relu", last))
    return b.finish(b.node("Flatten", pooled, axis=1), ["batch", 6])


def lost(recovery: str) -> float:
    """Points of cosine lost with half of the channels merged away and everything in 16 bits."""
    model = duplicated()
    x = np.random.default_rng(2).standard_normal((320, 2, 3, 5, 5)).astype(np.float32)
    plan = api.uniform_plan(model, "w16a16,coarse=fold:0.5")
    made = api.apply_plan(model, plan=plan, data={"x": x}, metric="cosine", recovery=recovery, repairs=())
    assert made.evaluation is not None
    assert any(one.kept_channels == 4 for one in made.plan.achieved.values())
    return made.evaluation.drop_points


@pytest.mark.parametrize("recovery", ["ranges", "full", "sequential"])
def test_merging_equal_channels_loses_nothing(recovery: str) -> None:
    assert lost(recovery) == pytest.approx(0.0, abs=1e-3)


def test_dropping_them_without_merging_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken twin: readers do not add up what they read of merged channels."""
    right = LayerDatabase.setting

    def broken(self: LayerDatabase, *arguments: Any) -> Any:
        return replace(right(self, *arguments), into=None)

    monkeypatch.setattr(LayerDatabase, "setting", broken)
    assert lost("full") > 0.1
