"""`compress --dry-run`: what it prints, that it writes nothing, and that it refuses what the run would refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hwc_onnx import api, plan_comparison
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.errors import UsageError
from hwc_onnx.graph.file_parts import file_parts
from hwc_onnx.job.beforehand import expectations, node_bytes
from hwc_onnx.job.rewards import rewards, unsearched_patterns
from hwc_onnx.options import Options
from hwc_onnx.workspace import open_float_model
from tests.cli.running import Case, Run, hwc

SAMPLES = Path(__file__).parents[2] / "sample_models"
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


def least_energy(case: Case, **options: Any) -> float:
    return float(bounds(case, "edge-flex", **options).least)


def warned(case: Case, **options: Any) -> str:
    opened = open_float_model(case.model)
    resolved = Options(**options)
    opened = opened.under(resolved.constraints)
    found = rewards(opened.graph, resolved, CostModel(load_profile("edge-flex")))
    return " ".join(expectations(opened.proto, opened.graph, resolved, found, "edge-flex"))


def test_energy_limit_beyond_the_bound_is_warned_about_and_one_within_is_not(case: Case) -> None:
    least = least_energy(case)
    assert 0.0 < least < 0.5
    assert "--max-energy" in warned(case, max_energy=0.99 * least) and f"{100 * least:.3g}% of the INT8 energy" in warned(case, max_energy=0.99 * least)
    assert "--max-energy" not in warned(case, max_energy=1.01 * least)
    narrow = {"weight_bits": (8, 8), "activation_bits": (8, 8), "granularity": ("fine",)}
    assert least_energy(case, **narrow) > 1.01 * least and "--max-energy" in warned(case, max_energy=1.01 * least, **narrow)
    # a ratio that the user sets may go beyond what the bound assumes, so nothing is claimed
    assert "--max-energy" not in warned(case, max_energy=0.99 * least, ratio_bounds=(0.0, 0.9))


def test_what_the_search_finds_at_its_extremes_costs_no_less_than_the_bound(case: Case, tmp_path: Path) -> None:
    given = ("--trials", 30, "--sampler", "random", "--max-drop", 1000, "--gate", "point")
    result = hwc("compress", case.model, "--data", case.data, *given, "-o", tmp_path / "a.onnx", "--json")
    assert result.exit_code == 0, result.stderr
    saved = json.loads(result.stdout)["reduction_vs_int8"]
    assert 0.5 < saved < 1.0 - least_energy(case)


def test_file_limit_below_the_nodes_is_warned_about_and_no_file_is_smaller(case: Case, tmp_path: Path) -> None:
    least = node_bytes(open_float_model(case.model).proto)
    assert f"nodes of this model take {least:,} bytes" in warned(case, max_bytes=least - 1)
    assert "--max-bytes" not in warned(case, max_bytes=least)
    result = hwc("apply", case.model, "--uniform", "w2a8,coarse=l1:0.5", "-o", tmp_path / "small.onnx", "--quiet")
    assert result.exit_code == 0, result.stderr
    parts = file_parts(onnx.load(tmp_path / "small.onnx"), (tmp_path / "small.onnx").stat().st_size)
    assert least < parts["graph"]


@pytest.mark.parametrize("name", ["vgg_small", "vit_tiny"])
def test_nodes_of_a_float_model_take_less_than_the_graph_of_its_narrow_file(name: str, tmp_path: Path) -> None:
    model = SAMPLES / f"{name}.onnx"
    applied = api.apply_plan(model, plan=api.uniform_plan(model, "w2a8"), data="synthetic:256", recovery="none")
    written = applied.save(tmp_path / "small.onnx")
    parts = file_parts(onnx.load(written.path), written.file_bytes)
    assert 0.3 * parts["graph"] < node_bytes(open_float_model(model).proto) < parts["graph"]


@pytest.mark.parametrize(("sampler", "trials", "said"), [("composite", 6, "6 fixed plans"), ("faithful", 1, "the INT8 baseline")])
def test_budget_that_the_first_plans_use_up_is_noted(case: Case, sampler: str, trials: int, said: str) -> None:
    assert f"begins with {said}" in warned(case, sampler=sampler, trials=trials)
    assert f"give {trials + 1} or more" in warned(case, sampler=sampler, trials=trials)
    assert "--trials" not in warned(case, sampler=sampler, trials=trials + 1)


def test_warnings_reach_the_dry_run_and_the_search_and_limits_have_units(case: Case, tmp_path: Path) -> None:
    given = ("--data", case.data, "--max-energy", "0.01%", "--max-latency", "5ms", "--max-bytes", 50, "--max-memory", "2MB", "--trials", 2)
    shown = hwc("compress", case.model, *given, "-o", tmp_path / "a.onnx", "--dry-run")
    assert shown.exit_code == 0, shown.stderr
    plain = " ".join(shown.stdout.split())
    assert "limits: drop 1.00 points, energy 0.01% of INT8, latency 5 ms, file 50 B, memory 2 MB" in plain
    assert all(f"warning: --{name}" in plain for name in ("max-energy", "max-bytes", "trials"))
    threads = json.loads(hwc("compress", case.model, *given, "-o", tmp_path / "a.onnx", "--dry-run", "--json").stdout)["estimate"]["threads"]
    assert f"Estimated time, {threads} thread{'s' if threads > 1 else ''} " in plain
    run = hwc("compress", case.model, *given, "-o", tmp_path / "a.onnx")
    assert run.exit_code == 3, run.stderr
    for name in ("max-energy", "max-bytes", "trials"):
        assert f"--{name}" in run.stderr and run.stderr.index(f"--{name}") < run.stderr.index("database:")


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
    side = json.loads(hwc(*call, "--jobs", 2, "--dry-run", "--json").stdout)["estimate"]
    each = side["basis"]["building_s"] + side["basis"]["candidate_evaluation_s"] / side["basis"]["samples"] * found["data"]["search"]
    assert side["threads"] == 1 and side["seconds"]["search"] == pytest.approx(6 * 30 * each * estimate["threads"] / 2)
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
    (tmp_path / "c" / "seed-0" / "random.seeds" / "row.json").write_text("{")
    damaged = json.loads(hwc(*call, "--seeds", 1, "--dry-run", "--json").stdout)
    assert damaged["comparison"]["finished"] == 0
    arrays = dict(np.load(case.data))
    np.savez(tmp_path / "other.npz", **{name: values[::-1] for name, values in arrays.items()})
    elsewhere = [tmp_path / "other.npz" if part == case.data else part for part in call]
    for more in ([], ["--dry-run"]):
        moved = hwc(*elsewhere, "--seeds", 1, *more)
        assert moved.exit_code == 2 and "the data is another" in moved.stderr
    with pytest.raises(UsageError, match="at least 1 process"):
        plan_comparison(case.model, data=case.data, jobs=0)
    other = hwc(*call, "--seeds", 1, "--max-drop", 3, "--dry-run")
    assert other.exit_code == 2 and "max_drop was 1.0, now 3.0" in other.stderr and "--from-run" not in other.stderr
