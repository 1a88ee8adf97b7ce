"""Runs that cannot go as asked: metrics that fail, labels that say nothing, nothing to choose, one evaluation, two owners."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import TensorProto, helper, numpy_helper

from tests.cli.running import Case, hwc

ROOT = Path(__file__).parents[2]


def compress(case: Case, folder: Path, *options: object, model: object = None, data: object = None) -> Result:
    arguments = ["compress", model or case.model, "--data", data or case.data, "-o", folder / "out.onnx", "--run-dir", folder / "run"]
    return hwc(*arguments, "--max-drop", 60, "--gate", "point", *options)


def record(folder: Path) -> dict[str, object]:
    return json.loads((folder / "run" / "result.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nans", "returned NaN or infinity for 11 of 540 samples, the first being 0"),
        ("raises", "raised KeyError: 'no such column'"),
        ("short", "returned shape [539] for 540 samples"),
    ],
)
def test_metric_that_fails_on_the_original_is_refused_with_its_reason(name: str, words: str, case: Case, tmp_path: Path) -> None:
    result = compress(case, tmp_path, "--metric", f"tests.cli.bad_metrics:{name}")
    assert result.exit_code == 4 and f"on the original model, metric tests.cli.bad_metrics:{name}: {words}" in result.stderr


@pytest.mark.parametrize("name", ["picky", "gaps"])
def test_metric_that_fails_on_candidates_fails_these_trials_alone(name: str, case: Case, tmp_path: Path) -> None:
    result = compress(case, tmp_path, "--metric", f"tests.cli.bad_metrics:{name}", "--trials", 6, "--sampler", "knapsack")
    assert result.exit_code in (0, 3), result.stderr
    assert record(tmp_path)["search"]["evaluations"] == 6
    journal = (tmp_path / "run" / "study.journal").read_text()
    assert ("raised ValueError: too few right answers" if name == "picky" else "returned NaN or infinity") in journal


def test_metric_that_fails_on_ten_candidates_in_a_row_ends_the_search_and_says_why(case: Case, tmp_path: Path) -> None:
    options = ("--metric", "tests.cli.bad_metrics:picky", "--trials", 40, "--sampler", "random", "--weight-bits", "2-3")
    result = compress(case, tmp_path, *options)
    assert result.exit_code == 1 and "the last 10 candidates all failed" in result.stderr and "too few right answers" in result.stderr
    assert "bug" not in result.stderr and (tmp_path / "run" / "best.onnx").is_file()


def test_labels_that_are_all_the_same_are_refused(case: Case, tmp_path: Path) -> None:
    arrays = dict(np.load(case.data, allow_pickle=False))
    arrays["y"] = np.full_like(arrays["y"], 2)
    np.savez(tmp_path / "same.npz", **arrays)
    result = compress(case, tmp_path, data=tmp_path / "same.npz")
    assert result.exit_code == 4 and "all 540 labels of the search samples are 2" in result.stderr


@pytest.mark.parametrize("sampler", ["composite", "tpe"])
def test_nothing_to_choose_measures_int8_and_says_so(sampler: str, case: Case, tmp_path: Path) -> None:
    """Every channel group is locked by the fewest channels, and there is one width for everything."""
    fixed = ("--granularity", "coarse", "--min-channels", 8, "--weight-bits", 8, "--activation-bits", 8)
    result = compress(case, tmp_path, *fixed, "--trials", 5, "--sampler", sampler)
    assert result.exit_code == 0 and "there is nothing to choose" in result.stderr
    found = record(tmp_path)
    assert found["output"]["kind"] == "baseline_int8" and found["search"]["evaluations"] == 1
    assert found["search"]["stopped_by"] == "converged" and found["reduction_vs_int8"] == 0.0


@pytest.mark.parametrize(
    ("option", "name"),
    [("metric", "top2"), ("task", "guessing"), ("preset", "units"), ("sampler", "tpee"), ("accel", "edge-fle"), ("algorithms", "magnitud"), ("dialect", "orf")],
)
def test_wrong_names_are_refused_before_an_earlier_run_of_other_inputs(option: str, name: str, case: Case, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.resolved.yaml").write_text("run: {metric: top5}\n")
    (tmp_path / "run" / "best.onnx").touch()
    for more in ((), ("--dry-run",)):
        result = compress(case, tmp_path, f"--{option}", name, *more)
        assert result.exit_code in (2, 4) and "did you mean" in result.stderr and "other inputs" not in result.stderr, result.stderr
    assert "holds a run with other inputs" in compress(case, tmp_path).stderr
    if option in ("sampler", "dialect"):  # of which compare has others, or none
        return
    result = hwc("compare", case.model, "--data", case.data, "--run-dir", tmp_path / "run", f"--{option}", name)
    assert "did you mean" in result.stderr and "other inputs" not in result.stderr, result.stderr


def test_one_evaluation_is_the_int8_baseline(case: Case, tmp_path: Path) -> None:
    result = compress(case, tmp_path, "--trials", 1)
    assert result.exit_code == 0 and record(tmp_path)["search"]["evaluations"] == 1
    assert record(tmp_path)["output"]["kind"] == "baseline_int8"


@pytest.mark.parametrize("sampler", ["composite", "greedy"])
def test_network_of_one_layer_is_compressed(sampler: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((4, 64)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["logits"], transB=1)]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])]
    made = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])]
    graph = helper.make_graph(nodes, "one", ends, made, [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), tmp_path / "one.onnx")
    x = rng.standard_normal((1200, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "one.npz", x=x, y=(x.reshape(1200, 64) @ weight.T).argmax(axis=1))
    case = Case(tmp_path, str(tmp_path / "one.onnx"), str(tmp_path / "one.npz"))
    result = compress(case, tmp_path, "--trials", 8, "--sampler", sampler)
    assert result.exit_code == 0 and record(tmp_path)["reduction_vs_int8"] > 0.3, result.stderr


def test_study_of_another_search_in_the_folder_is_refused_by_its_digest(case: Case, tmp_path: Path) -> None:
    assert compress(case, tmp_path, "--trials", 2, "--weight-bits", "4-8").exit_code == 0
    kept = tmp_path / "kept.journal"
    shutil.move(tmp_path / "run" / "study.journal", kept)
    shutil.rmtree(tmp_path / "run")
    assert compress(case, tmp_path, "--trials", 2).exit_code == 0
    shutil.copy(kept, tmp_path / "run" / "study.journal")
    result = compress(case, tmp_path, "--trials", 3)
    assert result.exit_code == 2 and "the stored study has digests" in result.stderr and "--fresh" in result.stderr
    assert (tmp_path / "run" / "study.journal").read_bytes() == kept.read_bytes()


def test_second_process_in_a_run_folder_is_refused_with_the_first_named(case: Case, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hwc_onnx", "compress", case.model, "--data", case.data, "--trials", "60", "--quiet"]
    options = ["-o", str(tmp_path / "out.onnx"), "--run-dir", str(tmp_path / "run"), "--max-drop", "60", "--gate", "point"]
    with subprocess.Popen([*command, *options], cwd=ROOT) as first:
        until = time.monotonic() + 60.0
        while not (tmp_path / "run" / ".lock").is_file() and time.monotonic() < until:
            time.sleep(0.02)
        result = compress(case, tmp_path, "--trials", 60)
        while not (tmp_path / "run" / "study.journal").is_file() and time.monotonic() < until:
            time.sleep(0.02)
        first.kill()
    assert result.exit_code == 2 and f"in use by process {first.pid} on host" in result.stderr
    assert compress(case, tmp_path, "--trials", 60, "--weight-bits", 8).exit_code == 2  # the dead one's lock is broken, its inputs stay
