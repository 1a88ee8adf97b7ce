"""Each command on a tiny model: what it prints, its JSON against the schema, the files it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from tests.cli.running import Case, Run, compress_arguments, hwc

Validate = Callable[[str, Any], None]


def payload(*arguments: object, code: int = 0) -> Any:
    result = hwc(*arguments, "--json")
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout)


def test_inspect_names_layers_groups_and_the_locked_output(case: Case, schema: Validate) -> None:
    found = payload("inspect", case.model)
    schema("inspect", found)
    assert [layer["op_type"] for layer in found["layers"]] == ["Conv", "Conv", "Gemm"]
    assert found["macs"] == 8 * 9 * 64 + 8 * 8 * 9 * 16 + 128 * 4
    assert [bool(group["locked_because"]) for group in found["groups"]] == [False, False, True]
    shown = hwc("inspect", case.model)
    assert "locked:" in shown.stdout and "logits" in shown.stdout


def test_profile_total_is_the_sum_of_its_nodes(case: Case, schema: Validate) -> None:
    found = payload("profile", case.model)
    schema("profile", found)
    totals = found["totals"]["energy_pj"]
    assert sum(node["energy_pj"]["total"] for node in found["nodes"]) == pytest.approx(totals["total"], rel=1e-12)
    assert sum(value for name, value in totals.items() if name != "total") == pytest.approx(totals["total"], rel=1e-12)
    assert found["float"]["energy_pj"] > found["baseline_int8"]["energy_pj"] > 0


def test_profile_several_accelerators_stand_side_by_side(case: Case, schema: Validate) -> None:
    names = ("edge-flex", "edge-tpu-64x64")
    options = [word for name in names for word in ("--accel", name)]
    found = payload("profile", case.model, *options)
    schema("profile", found)
    assert [item["accelerator"] for item in found] == list(names)
    shown = hwc("profile", case.model, *options, "--top", 1).stdout
    assert all(name in shown for name in names)


def test_profile_explain_shows_accesses(case: Case) -> None:
    result = hwc("profile", case.model, "--explain", "c1")
    assert result.exit_code == 0, result.stderr
    assert "Accesses in words" in result.stdout and "Energy = count x factor x bits x constant" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_profile_figure_writes_a_page_and_refuses_a_place_it_cannot_write(case: Case, tmp_path: Path) -> None:
    page = tmp_path / "energy.html"
    result = hwc("profile", case.model, "--accel", "edge-flex", "--accel", "edge-tpu-64x64", "--figure", page)
    assert result.exit_code == 0, result.stderr
    text = page.read_text(encoding="utf-8")
    assert f"Energy of {Path(case.model).name}" in text and "edge-tpu-64x64" in text and "Plotly.newPlot" in text
    for place in (tmp_path / "missing" / "energy.html", tmp_path / "energy.pdf"):
        refused = hwc("profile", case.model, "--figure", place)
        assert refused.exit_code == 2 and refused.stdout == "" and "--figure" in refused.stderr


def test_profile_explain_unknown_node_exits_with_2(case: Case) -> None:
    result = hwc("profile", case.model, "--explain", "c9")
    assert result.exit_code == 2 and "no node 'c9'" in result.stderr


def test_profile_top_and_explain_choose_the_nodes_of_the_json_too(case: Case, schema: Validate) -> None:
    options = ("--accel", "edge-flex", "--accel", "edge-tpu-64x64")
    whole = payload("profile", case.model, *options)
    costs = {node["key"]: node["energy_pj"]["total"] for node in whole[0]["nodes"]}
    found = payload("profile", case.model, *options, "--top", 2)
    schema("profile", found)
    for item, full in zip(found, whole, strict=True):
        assert [node["key"] for node in item["nodes"]] == sorted(costs, key=costs.__getitem__, reverse=True)[:2]
        assert item["totals"] == full["totals"]
    explained = payload("profile", case.model, "--explain", "c2")
    schema("profile", explained)
    (node,) = explained["nodes"]
    assert sum(term["energy_pj"] for term in node.pop("terms")) == pytest.approx(node["energy_pj"]["total"], rel=1e-12)
    assert node == next(node for node in whole[0]["nodes"] if node["key"] == "c2")
    wrong = hwc("profile", case.model, "--explain", "logit", "--json")
    assert wrong.exit_code == 2 and wrong.stdout == "" and "did you mean 'logits'" in wrong.stderr


def test_profile_of_a_plan_equals_profile_of_its_file(compressed: Run, case: Case, schema: Validate) -> None:
    planned = payload("profile", case.model, "--plan", compressed.run_dir / "plan.json")
    schema("profile", planned)
    assert planned["activation_densities"] == "plan"
    written = payload("profile", compressed.output)
    assert planned["totals"]["energy_pj"]["total"] == pytest.approx(written["totals"]["energy_pj"]["total"], rel=1e-9)


def test_evaluate_alone_and_against(compressed: Run, case: Case, schema: Validate) -> None:
    alone = payload("evaluate", case.model, "--data", case.data)
    schema("evaluate", alone)
    assert alone["value"] == 1.0 and alone["reference"] is None
    paired = payload("evaluate", compressed.output, "--data", case.data, "--against", case.model)
    schema("evaluate", paired)
    assert paired["reference"] == 1.0
    assert paired["drop_points"] == pytest.approx(100 * (1 - paired["value"]))
    assert paired["ci95"][0] <= paired["drop_points"] <= paired["ci95"][1]


def test_apply_uniform_writes_a_file_and_its_plan(case: Case, tmp_path: Path, schema: Validate) -> None:
    output, plan = tmp_path / "w4.onnx", tmp_path / "plan.json"
    found = payload(
        "apply",
        case.model,
        "--uniform",
        "w4a8,fine=magnitude:0.5",
        "--data",
        case.data,
        "-o",
        output,
        "--save-plan",
        plan,
    )
    schema("apply", found)
    schema("plan", json.loads(plan.read_text()))
    assert found["output"]["file_bytes"] == output.stat().st_size < Path(case.model).stat().st_size
    assert all(layer["achieved"]["weight_density"] <= 0.51 for layer in found["layers"])
    assert found["reduction_vs_int8"] > 0


def test_apply_plan_twice_gives_the_same_bytes(compressed: Run, case: Case, tmp_path: Path) -> None:
    plan = compressed.run_dir / "plan.json"
    for name in ("a.onnx", "b.onnx"):
        payload("apply", case.model, "--plan", plan, "--data", case.data, "-o", tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_apply_portable_limits_the_weights_and_a_plan_keeps_it(case: Case, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    common = ("--data", case.data, "--recovery", "ranges", "-o", tmp_path / "out.onnx")

    def largest(*options: object) -> int:
        payload("apply", case.model, *options, *common)
        stored = [numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "out.onnx").graph.initializer]
        return max(int(np.abs(values.astype(np.int32)).max()) for values in stored if values.dtype == np.int8 and values.ndim > 1)

    assert largest("--uniform", "w8a8", "--portable", "--save-plan", plan) == 63
    assert largest("--plan", plan) == 63
    assert largest("--plan", plan, "--no-portable") > 63


def test_apply_coarse_says_what_was_locked(case: Case, tmp_path: Path) -> None:
    result = hwc(
        "apply", case.model, "--uniform", "w8a8,coarse=l1:0.5", "--data", case.data, "-o", tmp_path / "small.onnx"
    )
    assert result.exit_code == 0, result.stderr
    assert any("logits" in note for note in result.stdout.split("note:")[1:])


def test_apply_limits_reach_the_plan_and_hold(case: Case, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    arguments = [
        "apply", case.model, "--uniform", "w4a8,coarse=l1:0.9", "--data", case.data, "-o", tmp_path / "small.onnx",
        "--save-plan", plan, "--exclude", "Gemm", "--lanes", 2, "--min-channels", "Conv=3", "--ratio-bounds", "c2=0-0.25",
        "--keep-heads", "--first-last", "free",
    ]  # fmt: skip
    found = payload(*arguments)
    written = json.loads(plan.read_text())
    assert written["constraints"] == {"min_channels": {"Conv": 3}, "ratios": {"c2": [0.0, 0.25]}, "keep_heads": True}
    assert (written["exclude"], written["lanes"], written["first_last"]) == (["Gemm"], 2, "free")
    kept = {key: item["kept_channels"] for key, item in written["achieved"].items()}
    assert (kept["c1"], kept["c2"]) == (4, 6)
    assert written["layers"]["logits"]["weight_bits"] == 8
    assert any("c2" in note and "0.25 instead of 0.9" in note for note in found["notes"])
    again = payload("apply", case.model, "--plan", plan, "--data", case.data, "-o", tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "small.onnx").read_bytes()
    assert again["reduction_vs_int8"] == found["reduction_vs_int8"]


def test_apply_refuses_limits_beside_a_plan_and_plans_outside_their_bounds(
    compressed: Run, case: Case, tmp_path: Path
) -> None:
    plan = compressed.run_dir / "plan.json"
    result = hwc("apply", case.model, "--plan", plan, "--lanes", 8, "--min-channels", 4)
    assert result.exit_code == 2 and "--lanes, --min-channels: for --uniform" in result.stderr
    result = hwc("apply", case.model, "--uniform", "w8a8", "--ratio-bounds", "0.2-0.9", "--ratio-bounds", "0-0.5")
    assert result.exit_code == 2 and "given twice" in result.stderr
    edited = json.loads(plan.read_text())
    edited["constraints"]["ratios"] = {"c1": [0.9, 0.95]}
    (tmp_path / "plan.json").write_text(json.dumps(edited))
    for command in (["apply", "-o", tmp_path / "x.onnx"], ["profile"]):
        result = hwc(command[0], case.model, "--plan", tmp_path / "plan.json", *command[1:])
        assert result.exit_code == 4 and "'c1'" in result.stderr and "0.9 to 0.95" in result.stderr


def test_compress_keeps_its_limits(case: Case, tmp_path: Path) -> None:
    arguments = compress_arguments(case, tmp_path)
    limits = ["--ratio-bounds", "c2=0.4-0.6", "--min-channels", 4, "--lanes", 2]
    result = hwc(*arguments, *limits)
    assert result.exit_code in (0, 3), result.stderr
    written = json.loads((tmp_path / "tiny.hwc" / "plan.json").read_text())
    assert written["constraints"]["ratios"] == {"c2": [0.4, 0.6]}
    assert 0.4 <= written["layers"]["c2"]["ratio"] <= 0.6 and written["layers"]["c2"]["algorithm"] != "none"
    other = hwc(*arguments, *limits[2:], "--ratio-bounds", "c2=0-0.6")
    assert other.exit_code == 2 and "ratio_bounds" in other.stderr


def test_verify_passes_on_our_file_and_its_json_fits(compressed: Run, case: Case, schema: Validate) -> None:
    found = payload("verify", compressed.output, "--against", case.model)
    schema("verify", found)
    assert found["passed"] and len(found["levels"]) == 4


def test_verify_tells_the_agreement_on_samples_and_not_on_noise(compressed: Run, case: Case) -> None:
    arguments = ("verify", compressed.output, "--against", case.model)
    alone, measured = hwc(*arguments).stdout, hwc(*arguments, "--data", case.data, "--preset", "unit").stdout
    assert "--data measures the agreement" in alone and "relative difference of" not in alone
    assert "agreement with the original on" in measured and "--data measures" not in measured


def test_commands_take_the_options_of_their_calls(compressed: Run, case: Case, tmp_path: Path) -> None:
    assert payload("evaluate", case.model, "--data", case.data, "--task", "classification")["value"] == 1.0
    plan = tmp_path / "plan.json"
    payload("apply", case.model, "--uniform", "w8a8", "--data", case.data, "--task", "classification", "--split-seed", 3,
            "-o", tmp_path / "out.onnx", "--save-plan", plan)  # fmt: skip
    assert json.loads(plan.read_text())["calibration"]["split_seed"] == 3


def test_verify_of_a_damaged_file_exits_with_5(compressed: Run, case: Case, tmp_path: Path) -> None:
    proto = onnx.load(str(compressed.output))
    proto.graph.output[0].name = "other"
    for node in proto.graph.node:
        for position, name in enumerate(node.output):
            if name == "logits":
                node.output[position] = "other"
    onnx.save(proto, tmp_path / "damaged.onnx")
    result = hwc("verify", tmp_path / "damaged.onnx", "--against", case.model)
    assert result.exit_code == 5
    assert "FAILED" in result.stdout and "output" in result.stdout


def test_compress_result_fits_its_schema_and_its_file(compressed: Run, case: Case, schema: Validate) -> None:
    found = json.loads(compressed.result.stdout)
    schema("result", found)
    stored = json.loads((compressed.run_dir / "result.json").read_text())
    assert stored == found
    assert found["output"]["file_bytes"] == compressed.output.stat().st_size
    assert found["goal_met"] and found["data"] == "real"
    assert found["energy_pj"]["compressed"] <= found["energy_pj"]["baseline_int8"] < found["energy_pj"]["float"]
    schema("plan", json.loads((compressed.run_dir / "plan.json").read_text()))


def test_compress_file_runs_with_onnxruntime_alone(compressed: Run, case: Case) -> None:
    session = onnxruntime.InferenceSession(str(compressed.output), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.load(case.data, allow_pickle=False)["x"][:5]})[0].shape == (5, 4)


def test_compress_progress_goes_to_stderr(compressed: Run) -> None:
    assert "search" in compressed.result.stderr
    json.loads(compressed.result.stdout)


def test_with_json_progress_is_lines_of_json(compressed: Run, case: Case, schema: Validate) -> None:
    lines = compressed.result.stderr.splitlines()
    assert len(lines) > 5
    for line in lines:
        schema("progress", json.loads(line))
    trials = [event for event in map(json.loads, lines) if event["event"] == "trial"]
    assert [event["evaluations"] for event in trials] == sorted(event["evaluations"] for event in trials)
    assert trials[-1]["seconds_left"] is not None


def test_compress_again_prints_the_same_result(compressed: Run, case: Case) -> None:
    before = compressed.output.read_bytes()
    again = hwc(*compress_arguments(case, compressed.output.parent), "--quiet")
    assert again.exit_code == 0 and again.stderr == ""
    first, second = json.loads(compressed.result.stdout), json.loads(again.stdout)
    assert (second["metric"], second["energy_pj"]) == (first["metric"], first["energy_pj"])
    assert compressed.output.read_bytes() == before


def test_compress_other_options_in_the_same_folder_are_refused(compressed: Run, case: Case) -> None:
    before = {path.name: path.read_bytes() for path in compressed.run_dir.iterdir() if path.is_file()}
    result = hwc(*compress_arguments(case, compressed.output.parent), "--seed", 7)
    assert result.exit_code == 2
    assert "seed" in result.stderr and "--fresh" in result.stderr
    assert {path.name: path.read_bytes() for path in compressed.run_dir.iterdir() if path.is_file()} == before


def test_compress_table_ends_with_where_the_files_are(case: Case, compressed: Run) -> None:
    arguments = [word for word in compress_arguments(case, compressed.output.parent) if word != "--json"]
    result = hwc(*arguments)
    assert result.exit_code == 0, result.stderr
    for words in ("Accuracy", "Energy per inference", "goal met", "written:", "run folder:"):
        assert words in result.stdout


def test_faithful_begins_with_the_baseline_alone_and_uses_the_published_algorithms(case: Case, tmp_path: Path) -> None:
    result = hwc(*compress_arguments(case, tmp_path), "--faithful", "--trials", 12)
    assert result.exit_code in (0, 3), result.output
    search = json.loads(result.stdout)["search"]
    assert search["sampler"] == "faithful"
    journal = (tmp_path / "tiny.hwc" / "study.journal").read_text().splitlines()
    trials = [entry["user_attrs"] for entry in map(json.loads, journal) if "plan" in entry.get("user_attrs", {})]
    origins = [trial["origin"] for trial in trials]
    assert origins.count("seed") == 1
    assert origins.count("policy") >= 8
    used = {layer["algorithm"] for trial in trials for layer in trial["plan"]["layers"].values()}
    assert used <= {"none", "l1", "l2", "bernoulli", "reconstruct", "magnitude", "sensitivity", "wanda"}
