"""`sensitivity` and `why`: what they print, their JSON against the schemas, the files they write, and what they refuse."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Case, hwc

Validate = Callable[[str, Any], None]
FEW = ("--samples", 64)


@pytest.fixture(scope="module")
def sensitive(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    figure = tmp_path_factory.mktemp("heat") / "heat.svg"
    result = hwc("sensitivity", case.model, "--data", case.data, *FEW, "--figure", figure, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), figure


@pytest.fixture(scope="module")
def explained(case: Case) -> Any:
    result = hwc("why", case.model, "--data", case.data, *FEW, "--uniform", "w4a6", "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_sensitivity_json_fits_its_schema_and_covers_layers_and_settings(sensitive: Any, schema: Validate) -> None:
    payload, _ = sensitive
    schema("sensitivity", payload)
    assert payload["data"] == "real" and payload["metric"] == "top1" and payload["damage_kind"] == "kl"
    assert {layer["key"] for layer in payload["layers"]} == {"c1", "c2", "logits"}
    names = [setting["name"] for setting in payload["settings"]]
    assert names == ["w8", "w6", "w4", "w3", "w2", "a8", "a6", "a4", "50%", "2:4", "ch30"]
    assert all(set(layer["cells"]) == set(names) for layer in payload["layers"])


def test_an_accelerator_that_skips_blocks_has_a_column_for_them(case: Case, tmp_path: Path) -> None:
    shipped = files("hwc_onnx.accel_profiles").joinpath("edge-flex.yaml").read_text()
    assert "\nsparsity:\n" in shipped and "patterns:" not in shipped
    (tmp_path / "chip.yaml").write_text(shipped.replace("\nsparsity:\n", "\nsparsity:\n  patterns: ['1x4']\n"))
    result = hwc("sensitivity", case.model, "--data", case.data, *FEW, "--accel", tmp_path / "chip.yaml", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert all(len(line.rstrip()) <= 80 for line in result.stdout.splitlines())
    assert " 1x4 " in result.stdout and result.stdout.count("Damage x 1000") == 2
    assert "half of the blocks of four input channels zero" in result.stdout


def test_sensitivity_table_fits_80_columns_and_names_every_layer(case: Case) -> None:
    shown = hwc("sensitivity", case.model, "--data", case.data, *FEW, "--quiet")
    assert shown.exit_code == 0 and shown.stderr == ""
    assert all(len(line.rstrip()) <= 80 for line in shown.stdout.splitlines())
    assert "everything\n  else stays in float" in shown.stdout or "everything else stays in float" in shown.stdout
    assert all(word in shown.stdout for word in ("c1", "c2", "logits", "Damage x 1000", "Drop in points", "all/sum"))


def test_heat_map_has_a_cell_for_each_number_and_needs_nothing_else(sensitive: Any) -> None:
    payload, figure = sensitive
    root = ElementTree.fromstring(figure.read_text(encoding="utf-8"))
    space = "{http://www.w3.org/2000/svg}"
    cells = [title.text or "" for title in root.iterfind(f"{space}g/{space}title")]
    measured = sum(cell is not None for layer in payload["layers"] for cell in layer["cells"].values())
    assert len(cells) == measured + 2 * len(payload["settings"])
    assert sum(text.startswith("c1, weights at 8 bits: damage") for text in cells) == 1
    bars = [rect for rect in root.iter(f"{space}rect") if rect.get("class") == "bar"]
    assert len(bars) == len(payload["layers"])
    text = figure.read_text(encoding="utf-8")
    assert "prefers-color-scheme:dark" in text and "<script" not in text and "href" not in text


def test_why_json_fits_its_schema_and_names_a_cause_and_a_remedy_for_each_layer(explained: Any, schema: Validate) -> None:
    schema("why", explained)
    assert explained["plan"] == "uniform w4a6" and explained["layer_count"] == 3
    for layer in explained["layers"]:
        assert layer["cause"] is not None and layer["best"] in {trial["name"] for trial in layer["remedies"]}
    assert explained["mended"]["damage"] <= explained["whole"]["damage"]


def test_why_table_fits_80_columns_and_prints_causes_with_changes(case: Case, tmp_path: Path) -> None:
    plan = tmp_path / "better.json"
    arguments = ("why", case.model, "--data", case.data, *FEW, "--uniform", "w3a8", "--top", 1, "--save-plan", plan)
    shown = hwc(*arguments, "--quiet")
    assert shown.exit_code == 0, shown.stderr
    assert all(len(line.rstrip()) <= 80 for line in shown.stdout.splitlines())
    assert "Layers that lose most (1 of 3)" in shown.stdout
    assert all(word in shown.stdout for word in ("cause:", "best (*):", "weight_bits: 3 -> ", "The whole plan"))
    applied = hwc("apply", case.model, "--plan", plan, "--data", case.data, "-o", tmp_path / "better.onnx")
    assert applied.exit_code == 0, applied.stderr
    again = hwc("why", case.model, "--plan", plan, "--data", case.data, *FEW, "--top", 1, "--json")
    assert again.exit_code == 0 and json.loads(again.stdout)["plan"] == str(plan)


def test_without_data_both_commands_say_that_inputs_are_synthetic(case: Case) -> None:
    narrow = ("--widths", "4", "--activation-widths", "4")
    for arguments in (("sensitivity", case.model, *narrow), ("why", case.model, "--top", 1)):
        result = hwc(*arguments, *FEW)
        assert result.exit_code == 0, result.stderr
        assert "synthetic" in result.stdout and "no data given" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("sensitivity", "--widths", "9"), 2, "such as 8,4,2"),
        (("sensitivity", "--widths", "4,"), 2, "such as 8,4,2"),
        (("sensitivity", "--figure", "heat.png"), 2, "ends in .svg"),
        (("sensitivity", "--include", "c9"), 2, "matches no layer"),
        (("sensitivity", "--accel", "edge-fex"), 4, "edge-flex"),
        (("sensitivity", "--data", "missing.npz"), 4, "missing.npz"),
        (("sensitivity", "--metric", "top2"), 2, "top2"),
        (("why", "--uniform", "w9a8"), 2, "allowed are 2 to 8"),
        (("why", "--uniform", "w4a8", "--plan", "p.json"), 2, "either --plan FILE or --uniform SPEC"),
        (("why", "--plan", "missing.json"), 4, "missing.json"),
        (("why", "--uniform", "w16a16"), 2, "compresses no layer"),
        (("why", "--top", "0"), 2, "--top"),
        (("why", "--save-plan", "missing/plan.json"), 2, "missing"),
    ],
)
def test_bad_input_is_refused_with_what_is_allowed(
    case: Case, arguments: tuple[str, ...], code: int, words: str
) -> None:
    command, *options = arguments
    data = () if "--data" in options else ("--data", case.data)
    result = hwc(command, case.model, *data, *options)
    assert result.exit_code == code, result.stderr
    assert words in result.stderr and result.stdout == "" and "Traceback" not in result.stderr


def test_a_quantized_model_is_refused_as_by_compress(case: Case, tmp_path: Path) -> None:
    made = hwc("apply", case.model, "--uniform", "w8a8", "--data", case.data, "-o", tmp_path / "q.onnx")
    assert made.exit_code == 0
    for command in ("sensitivity", "why"):
        result = hwc(command, tmp_path / "q.onnx", "--data", case.data)
        assert result.exit_code == 4 and "already quantized" in result.stderr
