"""Real comparisons on a tiny model: fair rows, every study by itself, and nothing lost or changed by a kill."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import hwc_onnx
from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.splits import make_splits
from hwc_onnx.api import Comparison
from hwc_onnx.comparison import seed_run
from hwc_onnx.comparison.curves import area
from hwc_onnx.errors import DataError, UsageError
from hwc_onnx.events import Phase, Step
from hwc_onnx.search.objective import Objective
from tests.cli.tiny_case import run, tiny_case

MODEL, SAMPLES = tiny_case(np.random.default_rng(0))
TRIALS = 12
BOTH = ("knapsack", "random")


def compare(folder: Path, *samplers: str, **options: Any) -> Comparison:
    chosen = {"seeds": 2, "trials": TRIALS, "max_drop": 20.0} | options
    return hwc_onnx.compare(MODEL, data=SAMPLES, samplers=samplers or BOTH, run_dir=folder, **chosen)


def timeless(rows: list[dict[str, Any]]) -> str:
    """The bytes of the rows without what a clock says."""
    return json.dumps([{name: value for name, value in row.items() if name != "seconds"} for row in rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison") / "run"


@pytest.fixture(scope="module")
def whole(folder: Path) -> Comparison:
    """Two samplers from both starts over two seeds, in one go."""
    return compare(folder, starts=("seeds", "cold"))


def test_each_sampler_start_and_seed_has_one_row_within_the_budget(whole: Comparison) -> None:
    jsonschema.validate(whole.to_json(), json.loads(files("hwc_onnx").joinpath("compare.schema.json").read_text()))
    named = [(row["seed"], row["start"], row["sampler"]) for row in whole.rows]
    assert named == [(seed, start, name) for seed in (0, 1) for start in ("seeds", "cold") for name in BOTH]
    for row in whole.rows:
        assert row["evaluations"] <= row["equivalents"] <= TRIALS
        assert row["equivalents"] == pytest.approx(max(row["evaluations"], row["image_forwards"] / 540))
        assert row["equivalents"] > TRIALS - 3
        assert row["curve"][-1][1] == row["best_reduction_vs_int8"]
        assert row["area"] == pytest.approx(area(row["curve"], TRIALS))
    assert max(row["best_reduction_vs_int8"] for row in whole.rows) > 0.3


def test_preparation_is_paid_before_the_first_plan(whole: Comparison) -> None:
    # 300 calibration samples, the original's run on 540, and 192 for each of 3 layers and once without; then the baseline
    assert [row["curve"][0][0] for row in whole.rows] == pytest.approx([(300 + 540 + 192 * 4 + 540) / 540] * 8)


def test_cold_start_differs_only_after_the_baseline(whole: Comparison) -> None:
    by_start = {start: [row for row in whole.rows if row["start"] == start] for start in ("seeds", "cold")}
    for warm, cold in zip(by_start["seeds"], by_start["cold"], strict=True):
        assert warm["curve"][0] == cold["curve"][0]
    assert timeless(by_start["seeds"]) != timeless(by_start["cold"]).replace('"cold"', '"seeds"')


def test_seeds_have_data_splits_of_their_own(whole: Comparison) -> None:
    plans = [Path(whole.payload["run_dir"]) / f"seed-{seed}" / "knapsack.seeds" / "plan.json" for seed in (0, 1)]
    records = [hwc_onnx.CompressionPlan.load(path).calibration for path in plans]
    assert [record.split_seed for record in records if record is not None] == [0, 1]


def test_kept_plan_is_the_last_that_passes_on_the_holdout_of_its_split(whole: Comparison) -> None:
    row = next(row for row in whole.rows if row["delivered_reduction_vs_int8"] > 0.3)
    study = Path(whole.payload["run_dir"]) / f"seed-{row['seed']}" / f"{row['sampler']}.{row['start']}"
    applied = hwc_onnx.apply_plan(MODEL, plan=study / "plan.json", data=SAMPLES)
    holdout = make_splits(load_data(SAMPLES, input_specs(MODEL)), row["seed"]).holdout
    found = run(applied.proto, np.asarray(holdout.inputs["x"], np.float32)).argmax(axis=1)
    assert row["delivered_drop_points"] == pytest.approx(100.0 * np.mean(found != holdout.labels), abs=0.6)
    saved = 1.0 - applied.cost.total / applied.baseline.total
    assert saved == pytest.approx(row["delivered_reduction_vs_int8"], abs=0.02)


def test_what_passes_keeps_the_limit_whatever_the_best_plan_on_the_search_samples_does(whole: Comparison) -> None:
    for row in whole.rows:
        assert row["delivered_drop_points"] is None or row["delivered_drop_points"] <= row["limit_points"]
        assert row["holdout_kept"] == (row["holdout_drop_points"] <= row["limit_points"])


def test_no_study_sees_the_trials_of_another(whole: Comparison, tmp_path: Path) -> None:
    alone = compare(tmp_path / "alone", "random", seeds=1)
    together = [row for row in whole.rows if (row["sampler"], row["start"], row["seed"]) == ("random", "seeds", 0)]
    assert timeless(alone.rows) == timeless(together)


def test_finished_comparison_is_read_back_and_grows(
    whole: Comparison, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(seed_run, "run_search", None)  # nothing is left to search
        assert compare(folder, starts=("seeds", "cold")).rows == whole.rows
        assert compare(folder, "random", seeds=1).rows == [whole.rows[1]]
    more = compare(folder, "random", "tpe-univariate", seeds=1)
    assert [row["sampler"] for row in more.rows] == ["random", "tpe-univariate"] and more.rows[0] == whole.rows[1]


def test_damaged_row_is_made_again_from_its_study(whole: Comparison, folder: Path) -> None:
    (folder / "seed-0" / "random.cold" / "row.json").write_text('{"sampler": "ran')
    again = compare(folder, "random", starts=("cold",), seeds=1)
    assert timeless(again.rows) == timeless([whole.rows[3]])


class Killed(BaseException):
    """What no code catches."""


def test_comparison_killed_again_and_again_ends_with_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"seeds": 1, "trials": 24}
    expected = compare(tmp_path / "whole", "composite", **options)
    measured, left = Objective._measured, 0

    def dying(self: Objective, *arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return measured(self, *arguments)

    monkeypatch.setattr(Objective, "_measured", dying)
    kills, rows = 0, None
    while rows is None and kills < 20:
        left = 3
        try:
            rows = compare(tmp_path / "killed", "composite", **options).rows
        except Killed:
            kills += 1
    assert rows is not None and kills >= 6
    assert timeless(rows) == timeless(expected.rows)


def test_processes_give_the_same_rows(whole: Comparison, tmp_path: Path) -> None:
    told: list[object] = []
    beside = compare(tmp_path / "beside", starts=("cold",), jobs=2, on_event=told.append)
    assert timeless(beside.rows) == timeless([row for row in whole.rows if row["start"] == "cold"])
    assert told[0] == Phase("compare", "4 searches of 2 seeds in 2 processes")
    assert told[-1] == Step(4, 4, "searches done")


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"max_drop": 10.0}, "max_drop"), ({"trials": 13}, "budget"), ({"weight_bits": (4, 8)}, "weight_bits")],
)
def test_folder_of_other_inputs_is_refused(
    whole: Comparison, folder: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(UsageError, match=f"other inputs: {named} was"):
        compare(folder, **changes)


def test_folder_of_other_samples_is_refused(whole: Comparison, folder: Path) -> None:
    other = {"x": SAMPLES["x"][::-1].copy(), "y": SAMPLES["y"][::-1].copy()}
    with pytest.raises(UsageError, match="other inputs: the data is another"):
        hwc_onnx.compare(MODEL, data=other, samplers=BOTH, run_dir=folder, seeds=2, trials=TRIALS, max_drop=20.0)


def test_folder_in_use_is_refused(whole: Comparison, folder: Path) -> None:
    lock = folder / ".lock"
    lock.write_text(json.dumps({"pid": os.getppid(), "host": os.uname().nodename}))
    try:
        with pytest.raises(UsageError, match=f"in use by process {os.getppid()}"):
            compare(folder)
    finally:
        lock.unlink()


def test_fresh_moves_the_old_folder_aside(tmp_path: Path) -> None:
    (tmp_path / "run" / "seed-0").mkdir(parents=True)
    with pytest.raises(DataError):
        hwc_onnx.compare(MODEL, data={"x": SAMPLES["x"][:80]}, run_dir=tmp_path / "run", trials=TRIALS, fresh=True)
    assert sorted(path.name[:4] for path in tmp_path.iterdir()) == ["run", "run."]
    assert not (tmp_path / "run" / "seed-0" / "knapsack.seeds").exists()


def test_budget_that_preparation_uses_up_is_refused_before_the_search(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"preparation takes 3\.0 .* give 10 or more"):
        compare(tmp_path / "run", trials=9)
    assert compare(tmp_path / "least", "random", trials=10, seeds=1).rows[0]["evaluations"] >= 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samplers": ["tpe", "tpe"]}, "'tpe' is named twice"),
        ({"samplers": ["tpr"]}, r"unknown sampler 'tpr' \(did you mean 'tpe'"),
        ({"samplers": []}, "name at least one"),
        ({"starts": ["warm"]}, "unknown start 'warm'.*choose from seeds, cold"),
        ({"seeds": 0}, "at least 1 seed"),
        ({"trials": 6}, "6 is used up by the 6 plans .*give 7 or more"),
        ({"trials": 1, "starts": ["cold"]}, "the INT8 baseline .*give 2 or more"),
        ({"jobs": 0}, "at least 1 process"),
        ({"split_seed": 3}, "split_seed cannot be set"),
        ({"colour": "red"}, "colour"),
        ({"data": lambda: None, "jobs": 2}, "module:function, or use --jobs 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, DataError), match=words):
        hwc_onnx.compare(MODEL, **({"data": SAMPLES, "run_dir": tmp_path / "run"} | options))
