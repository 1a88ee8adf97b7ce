"""A study of one's own on a real network: prepared as `compress` does, searched by Optuna, written by `apply_plan`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest

import hwc_onnx
from hwc_onnx.errors import UsageError
from tests.cli.tiny_case import tiny_case

MODEL, SAMPLES = tiny_case(np.random.default_rng(0))


def test_own_study_ends_in_a_file_that_keeps_what_the_trial_measured(tmp_path: Path) -> None:
    options = {"data": SAMPLES, "max_drop": 3.0, "algorithms": ("l1", "magnitude"), "split_seed": 3}
    with hwc_onnx.open_problem(MODEL, run_dir=tmp_path / "own", **options) as problem:
        assert problem.judging is not None and problem.judging.samples > 0 and problem.judging.requested is None
        study = optuna.create_study(sampler=hwc_onnx.StrategySampler(problem, trials=12))
        study.optimize(hwc_onnx.PlanObjective(problem), n_trials=12)
    assert study.best_value < 1.0
    plan = hwc_onnx.CompressionPlan.model_validate(study.best_trial.user_attrs["plan"])
    applied = hwc_onnx.apply_plan(MODEL, plan=plan, data=SAMPLES)
    assert plan.calibration.split_seed == 3 and plan.calibration.digest == applied.plan.calibration.digest
    assert not any("other calibration samples" in note for note in applied.notes)
    share = applied.cost.total / applied.baseline.total
    assert share == pytest.approx(study.best_value, rel=0.02)


def test_own_study_refuses_options_that_are_the_study_s(tmp_path: Path) -> None:
    for name, value in (("trials", 10), ("sampler", "tpe"), ("objective", "drop"), ("seed", 1)):
        with pytest.raises(UsageError, match=f"open_problem: {name} cannot be set"), hwc_onnx.open_problem(
            MODEL, run_dir=tmp_path / "none", data=SAMPLES, **{name: value}
        ):
            pass
    with pytest.raises(UsageError, match="did you mean 'max_drop'"), hwc_onnx.open_problem(MODEL, data=SAMPLES, maxdrop=1.0):
        pass
    assert not (tmp_path / "none").exists()
