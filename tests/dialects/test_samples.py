"""A network with names as exporters give them, in the dialects whose weights are not plain DequantizeLinear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hwc_onnx

MODEL = Path(__file__).parents[2] / "sample_models" / "resnet20.onnx"


@pytest.mark.parametrize("dialect", ["ort", "qcdq"])
def test_written_files_pass_their_own_verification(dialect: str, tmp_path: Path) -> None:
    with np.load(MODEL.parent / "fashion_mnist.npz", allow_pickle=False) as archive:
        data = {name: archive[name][:300] for name in ("x", "y")} | {name: archive[name] for name in ("mean", "std")}
    plan = hwc_onnx.uniform_plan(MODEL, "w3a8")
    hwc_onnx.apply_plan(MODEL, plan=plan, data=data, recovery="none", dialect=dialect).save(tmp_path / "out.onnx")
    report = hwc_onnx.verify(tmp_path / "out.onnx", against=MODEL)
    assert report.passed, [check for check in report.checks if not check.passed]
