"""`--config`, `--save-config` and the environment: what wins, what is refused, and that a replay does the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import jsonschema
import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from docs.config_schema import TARGET, configurable, schema
from hwc_onnx.cli.configuration import ONCE, key_of, options_of
from hwc_onnx.cli.main import cli
from hwc_onnx.cli.manual import commands
from hwc_onnx.configuration import KEYS, PATHS
from tests.cli.running import Case, Run, compress_arguments, hwc

COMMANDS = dict(configurable())


def shown(result: Any) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    payload: dict[str, Any] = json.loads(result.stdout)
    return payload


def test_each_command_that_works_on_a_model_takes_configurations() -> None:
    on_models = {
        path.removeprefix("hwc-onnx ")
        for path, command, _ in commands(cli, click.Context(cli, info_name="hwc-onnx"))
        if {"model", "compressed"} & {param.name for param in command.params if isinstance(param, click.Argument)}
    }
    assert {"compress", "fix", "verify", "data check"} <= on_models
    assert on_models | {"report"} <= set(COMMANDS)


def test_published_schema_is_made_from_the_commands() -> None:
    assert json.loads(TARGET.read_text()) == schema(), "run `make docs`"
    jsonschema.Draft202012Validator.check_schema(schema())


def test_schema_takes_a_saved_file_and_refuses_what_the_command_refuses() -> None:
    good = {"schema": 1, "command": "compress", "model": "m.onnx", "max-drop": 1.0, "exclude": ["head*"], "portable": True}
    jsonschema.validate(good, schema())
    for wrong in ({"trails": 5}, {"trials": "5"}, {"portable": 1}, {"gate": "lower"}, {"command": "evaluate"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(good | wrong, schema())


def test_arguments_of_compress_are_written_under_the_names_of_its_flags() -> None:
    names = {param.name: key for key, param in options_of(COMMANDS["compress"]).items()}
    for name, key in names.items():
        assert name is not None
        assert KEYS.get(name, name.replace("_", "-")) == key


def test_options_that_name_files_are_known_as_paths() -> None:
    for command in COMMANDS.values():
        for param in command.params:
            if isinstance(param, click.Option) and param.metavar and param.metavar.startswith(("FILE", "DIR", "FOLDER")):
                assert param.name in PATHS | {"policy"} | ONCE, f"{key_of(param)}: relative to the file or not?"


def test_flag_wins_over_environment_over_file_over_default(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def accelerator(*flags: str) -> str:
        return str(shown(hwc("profile", case.model, *flags, "--json"))["accelerator"])

    file = tmp_path / "p.yaml"
    file.write_text("accel: eyeriss-v1\n")
    assert accelerator() == "edge-flex"
    assert accelerator("--config", str(file)) == "eyeriss-v1"
    monkeypatch.setenv("HWC_ONNX_PROFILE_ACCEL", "edge-tpu-64x64")
    assert accelerator("--config", str(file)) == "edge-tpu-64x64"
    assert accelerator("--config", str(file), "--accel", "edge-flex-fixed8") == "edge-flex-fixed8"
    monkeypatch.delenv("HWC_ONNX_PROFILE_ACCEL")
    monkeypatch.setenv("HWC_ONNX_PROFILE_CONFIG", str(file))
    assert accelerator() == "eyeriss-v1"


def test_a_plan_on_the_command_line_replaces_a_uniform_setting_of_a_file_and_the_other_way_round(case: Case, tmp_path: Path) -> None:
    made, file, saved = tmp_path / "plan.json", tmp_path / "u.yaml", tmp_path / "saved.yaml"

    def written(name: str, *arguments: str) -> bytes:
        shown(hwc("apply", case.model, "--config", str(file), *arguments, "-o", str(tmp_path / name), "--json"))
        return (tmp_path / name).read_bytes()

    file.write_text("uniform: w4a8\nlanes: 4\nrecovery: none\n")
    first = written("first.onnx", "--save-plan", str(made))
    assert written("second.onnx", "--plan", str(made), "--save-config", str(saved)) == first
    content = yaml.safe_load(saved.read_text())
    assert Path(content["plan"]).name == "plan.json"
    assert not {"uniform", "lanes"} & set(content)
    file.write_text(f"plan: {made}\n")
    assert written("third.onnx", "--uniform", "w8a8", "--recovery", "none") != first
    refused = hwc("apply", case.model, "--config", str(file), "--plan", str(made), "--uniform", "w8a8")
    assert refused.exit_code == 2
    assert "either --plan FILE or --uniform SPEC" in refused.stderr


def test_extends_adds_to_a_base_and_null_takes_away(case: Case, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(f"data: {case.data}\nmodel: {case.model}\nmetric: nonsense\n")
    (tmp_path / "top.yaml").write_text("extends: base.yaml\ncommand: evaluate\nmetric: null\n")
    assert shown(hwc("evaluate", "--config", tmp_path / "top.yaml", "--json"))["metric"] == "top1"


@pytest.mark.parametrize(
    ("command", "text", "words"),
    [
        ("evaluate", "modle: m.onnx\n", "key 'modle' is no option of `evaluate` (did you mean 'model'?)"),
        ("compress", "max_drop: 1\n", "did you mean 'max-drop'?"),
        ("compress", "fresh: true\n", "key 'fresh' is about one call, give it as a flag"),
        ("compress", "trials: lots\n", "key 'trials': found 'lots'; expected a whole number from 1 up"),
        ("compress", "trials: true\n", "key 'trials': found True; expected a whole number"),
        ("compress", "portable: 1\n", "key 'portable': found 1; expected true or false"),
        ("compress", "gate: lower\n", "key 'gate': found 'lower'; expected one of upper, point"),
        ("compress", "max-drop: {a: 1}\n", "found a mapping of 1; expected what the flag takes"),
        ("compress", "model: m.onnx\nmax-drop: -3\n", "f.yaml: key 'max-drop': '-3' is not a drop"),
        ("compress", "model: m.onnx\nmax-energy: 7\n", "f.yaml: key 'max-energy': '7' is not a share"),
        ("compress", "command: apply\n", "was saved for `hwc-onnx apply`, not for `compress`"),
        ("compress", "seed: 1\n", "MODEL"),
    ],
)
def test_a_wrong_file_exits_with_2_and_says_where(tmp_path: Path, command: str, text: str, words: str) -> None:
    (tmp_path / "f.yaml").write_text(text)
    result = hwc(command, "--config", tmp_path / "f.yaml")
    assert result.exit_code == 2 and words in result.stderr and result.stdout == ""


def test_wrong_variables_are_named(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWC_ONNX_COMPRESS_TRIALS", "x")
    result = hwc("compress", case.model)
    assert result.exit_code == 2 and "HWC_ONNX_COMPRESS_TRIALS in the environment: 'x'" in result.stderr
    monkeypatch.delenv("HWC_ONNX_COMPRESS_TRIALS")
    monkeypatch.setenv("HWC_ONNX_COMPRESS_TRAILS", "5")
    result = hwc("compress", case.model)
    assert result.exit_code == 2 and "did you mean 'HWC_ONNX_COMPRESS_TRIALS'?" in result.stderr


def test_save_config_is_refused_where_it_cannot_be_written(case: Case, tmp_path: Path) -> None:
    result = hwc("evaluate", case.model, "--data", case.data, "--save-config", tmp_path / "none" / "a.yaml")
    assert result.exit_code == 2 and "--save-config" in result.stderr and result.stdout == ""


def rated(folder: Path) -> Path:
    """A model with inputs that never change: y = x W, with a rate, a gain and a flag."""
    inputs = [("x", TensorProto.FLOAT, ["n", 4]), ("rate", TensorProto.INT64, []), ("gain", TensorProto.FLOAT, []), ("loud", TensorProto.BOOL, [])]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Cast", ["rate"], ["r"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["r", "gain"], ["b"]),
        helper.make_node("Where", ["loud", "b", "gain"], ["c"]),
        helper.make_node("Mul", ["a", "c"], ["y"]),
    ]
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32), "w")
    graph = helper.make_graph(
        nodes, "rated", [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])], [weight],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "rated.onnx")
    return folder / "rated.onnx"


CALLS: dict[str, Callable[[Case, Path], list[object]]] = {
    "profile": lambda case, _: [case.model, "--accel", "edge-flex", "--accel", "eyeriss-v1", "--top", 2],
    "inspect": lambda case, _: [case.model, "--input-shape", "x:2x1x8x8"],
    "evaluate": lambda case, _: [case.model, "--data", case.data, "--against", case.model, "--metric", "agreement"],
    "apply": lambda case, folder: [
        case.model, "--uniform", "w8a4,coarse=l1:0.3", "--data", case.data, "--min-channels", "Conv=6", "--no-polish",
        "--ratio-bounds", "0-0.25", "-o", folder / "a.onnx",
    ],
    "sensitivity": lambda case, _: [case.model, "--data", case.data, "--widths", "8,4", "--samples", 64, "--exclude", "c1"],
    "why": lambda case, _: [case.model, "--data", case.data, "--uniform", "w4a8", "--top", 1, "--samples", 64],
    "verify": lambda case, _: [case.model, "--against", case.model, "--data", case.data],
    "fix": lambda case, folder: [
        rated(folder), "--input", "rate=16", "--input", "gain=0.5", "--input", "loud=true", "-o", folder / "f.onnx"
    ],
}  # fmt: skip


def without_seconds(payload: Any) -> Any:
    if isinstance(payload, list):
        return [without_seconds(part) for part in payload]
    if isinstance(payload, dict):
        return {key: without_seconds(value) for key, value in payload.items() if "seconds" not in key}
    return payload


@pytest.mark.parametrize("command", CALLS)
def test_a_saved_call_replays_with_the_same_result_from_elsewhere(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    file = tmp_path / "saved.yaml"
    first = hwc(command, *CALLS[command](case, tmp_path), "--json", "--save-config", file)
    assert first.exit_code in (0, 5), first.stderr
    saved = yaml.safe_load(file.read_text())
    jsonschema.validate(saved, schema())
    assert saved["command"] == command and not any(Path(str(value)).is_absolute() for value in saved.values())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    second = hwc(command, "--config", file, "--json")
    assert second.exit_code == first.exit_code, second.stderr
    paths = {"model", "against", "compressed", "path", "output"}

    def plain(text: str) -> Any:
        return json.loads(text, object_hook=lambda found: {k: v for k, v in found.items() if k not in paths})

    assert without_seconds(plain(second.stdout)) == without_seconds(plain(first.stdout))


def test_compress_replays_from_a_saved_call_and_from_its_run_folder(case: Case, compressed: Run, tmp_path: Path) -> None:
    def digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    file, resolved = tmp_path / "saved.yaml", compressed.run_dir / "config.resolved.yaml"
    output = tmp_path / "tiny.hwc.onnx"
    arguments = [word if word != compressed.output else output for word in compress_arguments(case, compressed.output.parent)]
    again = hwc(*arguments, "--output", output, "--save-config", file)
    assert again.exit_code == 0, again.stderr
    jsonschema.validate(yaml.safe_load(resolved.read_text()), schema())
    assert yaml.safe_load(file.read_text())["trials"] == yaml.safe_load(resolved.read_text())["trials"] == 4
    before = digest(output)
    assert before == digest(compressed.output)
    output.unlink()
    assert hwc("compress", "--config", file, "--fresh").exit_code == 0 and digest(output) == before
    other = tmp_path / "other.onnx"
    replayed = hwc("compress", "--config", resolved, "-o", other, "--run-dir", tmp_path / "other", "--json")
    assert replayed.exit_code == 0 and digest(other) == before
    finished = hwc("compress", "--config", tmp_path / "other" / "config.resolved.yaml")
    assert finished.exit_code == 0 and "finished; its result follows" in finished.stderr
