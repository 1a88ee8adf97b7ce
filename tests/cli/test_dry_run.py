"""`compress --dry-run`: what it prints, that it writes nothing, and that it refuses what the run would refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.job.rewards import rewards, unsearched_patterns
from hwc_onnx.options import Options
from hwc_onnx.workspace import open_float_model
from tests.cli.running import Case, Run, hwc

Validate = Callable[[str, Any], None]


def test_dry_run_says_where_options_come_from_and_writes_nothing(
    case: Case, schema: Validate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HWC_ONNX_COMPRESS_SEED", "3")
    (tmp_path / "f.yaml").write_text(f"max-drop: 2\ndata: {case.data}\n")
    before = sorted(tmp_path.rglob("*"))
    result = hwc("compress", case.model, "--config", "f.yaml", "--trials", 7, "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    schema("dry-run", found)
    options = found["options"]
    assert [options[key]["from"] for key in ("trials", "seed", "max-drop", "gate") if key in options] == [
        "command line", "environment", "f.yaml",
    ]  # fmt: skip
    assert options["lanes"] == {"value": 1, "from": "default"}
    assert found["limits"]["drop"] == 2.0 and found["search"]["seed"] == 3 and found["run_state"] == "new"
    assert found["model"]["layers"] == 3 and found["metric"]["original"] == 1.0
    estimate = found["estimate"]
    assert estimate["total_s"] == pytest.approx(sum(estimate["seconds"].values()))
    each = estimate["basis"]["candidate_evaluation_s"] / estimate["basis"]["samples"]
    assert estimate["seconds"]["search"] == pytest.approx(7 * (estimate["basis"]["building_s"] + each * found["data"]["search"]))
    assert sorted(tmp_path.rglob("*")) == before
    shown = hwc("compress", case.model, "--data", case.data, "--dry-run")
    assert shown.exit_code == 0 and "nothing is written" in shown.stdout and "Estimated time" in shown.stdout
    assert all(len(line) <= 80 or str(case.folder) in line for line in shown.stdout.splitlines())


def test_dry_run_knows_the_run_folder(case: Case, compressed: Run) -> None:
    resolved = compressed.run_dir / "config.resolved.yaml"
    same = hwc("compress", "--config", resolved, "--dry-run", "--json")
    assert json.loads(same.stdout)["run_state"] == "continues" and json.loads(same.stdout)["estimate"] is None
    fresh = hwc("compress", "--config", resolved, "--fresh", "--dry-run", "--json")
    assert json.loads(fresh.stdout)["run_state"] == "moves the old run aside"
    other = hwc("compress", "--config", resolved, "--lanes", 2, "--dry-run")
    assert other.exit_code == 2 and "lanes was 1, now 2" in other.stderr
    missing = hwc("compress", case.model, "--run-dir", case.folder / "none", "--resume", "--dry-run")
    assert missing.exit_code == 2 and "nothing to resume" in missing.stderr


def test_dry_run_refuses_a_model_at_chance(case: Case, tmp_path: Path) -> None:
    arrays = dict(np.load(case.data))
    np.savez(tmp_path / "wrong.npz", x=arrays["x"], y=np.random.default_rng(0).permutation(arrays["y"]))
    result = hwc("compress", case.model, "--data", tmp_path / "wrong.npz", "--dry-run")
    assert result.exit_code == 4 and "check normalisation" in result.stderr and result.stdout == ""


def bounds(case: Case, accelerator: str, **options: Any) -> Any:
    graph = open_float_model(case.model).graph
    return rewards(graph, Options(**options), CostModel(load_profile(accelerator)))


def test_an_accelerator_of_8_bits_without_skipping_is_said_to_reward_none_of_these_freedoms(case: Case) -> None:
    found = bounds(case, "eyeriss-v1", algorithms=("magnitude",))
    assert found.together == pytest.approx(0.0, abs=1e-9)
    text = found.warning("eyeriss-v1")
    assert text is not None and "rewards none of what is searched" in text and "at most 0.0%" in text


def test_bounds_hold_for_every_plan_within_them_and_are_not_warned_of_where_they_are_large(case: Case) -> None:
    from hwc_onnx.plan import with_plan
    from hwc_onnx.uniform import parse_spec, uniform

    found = bounds(case, "edge-flex")
    assert found.warning("edge-flex") is None and set(found.single) == {"weight_bits", "activation_bits", "zeros", "channels"}
    graph, model = open_float_model(case.model).graph, CostModel(load_profile("edge-flex"))
    base = model.cost_total(with_plan(graph, uniform(graph, parse_spec("w8a8"))))
    for spec, name in (("w2a8", "weight_bits"), ("w4a8", "weight_bits"), ("w8a4", "activation_bits"), ("w8a8,coarse=l1:0.5", "channels")):
        saved = 1 - model.cost_total(with_plan(graph, uniform(graph, parse_spec(spec)))) / base
        assert saved <= found.single[name] + 1e-12 and saved <= found.together


def test_a_pattern_that_the_accelerator_skips_and_the_search_leaves_out_is_said() -> None:
    listing = load_profile("edge-flex")
    sparsity = listing.sparsity.model_copy(update={"patterns": ("2:4", "1x4")})
    listing = listing.model_copy(update={"sparsity": sparsity})
    said = unsearched_patterns(listing, Options())
    assert said is not None and "1x4" in said and said.count("block4") == 1 and "nm24" in said.split("--algorithms")[1]
    assert unsearched_patterns(listing, Options(algorithms=("obs", "nm24", "block4"))) is None
    assert unsearched_patterns(listing, Options(granularity=("coarse",))) is None
    assert unsearched_patterns(load_profile("edge-flex"), Options()) is None
    alone = unsearched_patterns(listing, Options(algorithms=("obs", "block4")))
    assert alone is not None and "2:4" in alone and alone.endswith("--algorithms obs,block4,nm24 searches it too")


def test_compress_warns_before_its_search(case: Case, tmp_path: Path) -> None:
    result = hwc(
        "compress", case.model, "--data", case.data, "--accel", "eyeriss-v1", "--algorithms", "magnitude", "--trials", 1,
        "--max-drop", 60, "-o", tmp_path / "a.onnx",
    )  # fmt: skip
    assert "rewards none of what is searched" in result.stderr
    assert result.stderr.index("rewards none") < result.stderr.index("database:")


def test_dry_run_of_a_comparison_multiplies_one_search_and_writes_nothing(
    case: Case, schema: Validate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call = ("compare", case.model, "--data", case.data, "--sampler", "knapsack", "--sampler", "random", "--seeds", 3, "--trials", 30)
    result = hwc(*call, "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    schema("compare-dry-run", found)
    assert found["comparison"]["searches"] == 6 and found["comparison"]["finished"] == 0 and found["run_state"] == "new"
    estimate = found["estimate"]
    basis, seconds = estimate["basis"], estimate["seconds"]
    each = basis["building_s"] + basis["candidate_evaluation_s"] / basis["samples"] * found["data"]["search"]
    assert seconds["search"] == pytest.approx(6 * 30 * each)
    assert seconds["database"] == pytest.approx(3 * basis["layer_s"] / basis["layer_share"])
    assert estimate["total_s"] == pytest.approx(sum(seconds.values()))
    assert list(tmp_path.iterdir()) == []
    shown = hwc(*call, "--jobs", 2, "--dry-run")
    assert "6 of 30 evaluation-equivalents each; seeds at a time: 2" in shown.stdout and "Estimated time" in shown.stdout
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_a_comparison_counts_what_is_finished(case: Case, tmp_path: Path) -> None:
    call = ("compare", case.model, "--data", case.data, "--sampler", "random", "--trials", 25, "--run-dir", tmp_path / "c")
    assert hwc(*call, "--seeds", 1).exit_code == 0
    done = json.loads(hwc(*call, "--seeds", 1, "--dry-run", "--json").stdout)
    assert done["comparison"]["finished"] == 1 and done["estimate"] is None and done["run_state"] == "continues"
    more = json.loads(hwc(*call, "--seeds", 2, "--dry-run", "--json").stdout)
    assert (more["comparison"]["finished"], more["comparison"]["searches"]) == (1, 2) and more["estimate"] is not None
    again = json.loads(hwc(*call, "--seeds", 1, "--fresh", "--dry-run", "--json").stdout)
    assert again["comparison"]["finished"] == 0 and again["run_state"] == "moves the old run aside"
    other = hwc(*call, "--seeds", 1, "--max-drop", 3, "--dry-run")
    assert other.exit_code == 2 and "max_drop was 1.0, now 3.0" in other.stderr and "--from-run" not in other.stderr
