"""Commands on the page are those of the run: they work in a copy of its folder, and say no more than the user did."""

from __future__ import annotations

import contextlib
import html
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
import yaml

import hwc_onnx
from hwc_onnx.cli.main import cli
from hwc_onnx.report.page import page
from hwc_onnx.report.page_commands import (
    DEFAULTS,
    apply_command,
    compare_command,
    explain_command,
    sensitivity_command,
    shown,
    why_command,
)
from hwc_onnx.report.run_record import RunRecord
from tests import tiny_models
from tests.cli.running import hwc

PROFILE = Path(__file__).parents[2] / "accel_profiles" / "edge-flex.yaml"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a run was started, with nothing named in full and hardly an option at its default."""
    folder = tmp_path_factory.mktemp("started-here")
    with contextlib.chdir(folder):
        model = tiny_models.chain()
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
        onnx.save(model, "my model.onnx")
        Path("data of mine").mkdir()
        pixels = np.random.default_rng(1).integers(0, 256, size=(400, 3, 8, 8)).astype(np.uint8)
        np.savez("data of mine/x.npz", x=pixels)
        profile = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
        Path("chip.yaml").write_text(yaml.safe_dump({**profile, "name": "my-chip"}), encoding="utf-8")
        hwc_onnx.compress(
            "my model.onnx", data="data of mine/x.npz", accelerator="chip.yaml", metric="cosine", task="regression", preset="unit,mean=0.4",
            input_shapes={"x": (1, 3, 8, 8)}, split_seed=3, max_drop=3.0, trials=8, weight_bits=(3, 8), exclude=("Gemm",),
        )  # fmt: skip
    return folder


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of that folder, entered."""
    shutil.copytree(home, tmp_path / "copy")
    with contextlib.chdir(tmp_path / "copy"):
        yield tmp_path / "copy"


def printed(folder: Path, command: str) -> list[str]:
    """The commands of this name on the page, as a reader would copy them."""
    text = (folder / "my model.hwc" / "report.html").read_text(encoding="utf-8")
    found = [html.unescape(line) for block in re.findall(r"<pre[^>]*>(.*?)</pre>", text, re.DOTALL) for line in block.splitlines()]
    return [line for line in found if line.startswith(f"hwc-onnx {command} ")]


def run(line: str) -> str:
    """What a command prints."""
    words = shlex.split(line)
    result = hwc(*words[1 : words.index(">") if ">" in words else None])
    assert result.exit_code == 0, f"{line}\n{result.stderr}"
    if ">" in words:
        Path(words[-1]).write_text(result.stdout, encoding="utf-8")
    return result.stdout


def test_apply_as_printed_makes_the_file_of_the_plan(copy: Path) -> None:
    (line,) = printed(copy, "apply")
    found = json.loads(run(f"{line} --json"))
    name = shlex.split(line)[-1]
    assert Path(name).is_file() and name.startswith("my model.")
    assert found["metric"]["name"] == "cosine" and found["accelerator"] == "my-chip"
    words = shlex.split(line)
    for option in ("--preset", "--task", "--input-shape", "--split-seed", "--metric", "--accel", "--data"):
        assert option in words
    assert "data of mine/x.npz" in words and "SOURCE" not in words


def test_why_as_printed_puts_causes_and_remedies_on_the_page(copy: Path) -> None:
    (line,) = printed(copy, "why")
    run(line)
    kept = json.loads((copy / "my model.hwc" / "why.json").read_text(encoding="utf-8"))
    assert kept["metric"] == "cosine"
    (again,) = printed(copy, "report")
    before = page(replace(RunRecord.load(copy / "my model.hwc"), folder=copy / "nowhere"))
    run(again)
    text = (copy / "my model.hwc" / "report.html").read_text(encoding="utf-8")
    assert "Causes and remedies" in text and "Causes and remedies" not in before
    assert '<td class="words said">' in text  # a sentence takes lines, not the width of the page
    for layer in kept["layers"]:
        cause = "" if layer["cause"] is None else html.escape(layer["cause"]["text"])
        remedy = next((one["change"] for one in layer["remedies"] if one["name"] == layer["best"]), "")
        remedy = remedy.replace(f'layers."{layer["key"]}".', "")  # the row names the layer
        assert cause in text and html.escape(remedy) in text and f'<th scope="row">{html.escape(layer["key"])}</th>' in text


def test_where_a_link_points_is_not_told(copy: Path) -> None:
    (copy / "secret" / "customer").mkdir(parents=True)
    (copy / "data").symlink_to(copy / "secret" / "customer")
    assert shown(RunRecord.load(Path("my model.hwc")), Path("data/val.npz")) == "data/val.npz"


@pytest.mark.parametrize("content", ["", "[]", "[" * 200_000, '{"schema": 7}', '{"schema": 1, "layers": [{"key": "a"}]}', '{"schema": 1, "layers": []}'])
def test_a_why_that_is_none_is_named_and_the_page_written(copy: Path, content: str) -> None:
    (copy / "my model.hwc" / "why.json").write_text(content, encoding="utf-8")
    text = page(RunRecord.load(Path("my model.hwc")))
    assert "why.json is not what hwc-onnx why --json prints" in text and "Causes and remedies" not in text


def test_a_why_of_another_plan_is_not_shown(copy: Path) -> None:
    (line,) = printed(copy, "why")
    run(line.replace("--plan 'my model.hwc/plan.json'", "--uniform w2a8"))
    place = copy / "my model.hwc" / "why.json"
    text = page(RunRecord.load(Path("my model.hwc")))
    # no layer that differs is listed
    place.write_text(json.dumps({**json.loads(place.read_text(encoding="utf-8")), "layers": []}), encoding="utf-8")
    assert "about another plan" in page(RunRecord.load(Path("my model.hwc")))
    assert "about another plan" in text and "Causes and remedies" not in text


@pytest.mark.parametrize("command", ["sensitivity", "profile"])
def test_other_commands_run_as_printed(copy: Path, command: str) -> None:
    (line,) = printed(copy, command)
    node = RunRecord.load(Path("my model.hwc")).after["nodes"][0]["key"]
    found = json.loads(run(f"{line.replace('NODE', shlex.quote(node))} --json"))
    assert found["accelerator"] == "my-chip"


def test_compare_as_printed_is_the_task_of_the_run(copy: Path) -> None:
    (line,) = printed(copy, "compare")
    command = cli.get_command(click.Context(cli), "compare")
    assert command is not None
    given = command.make_context("compare", shlex.split(line)[2:]).params
    assert (given["max_drop"], given["trials"], given["weight_bits"], given["exclude"]) == (3.0, 8, (3, 8), ("Gemm",))
    assert given["input_shapes"] == {"x": (1, 3, 8, 8)} and given["preset"] == "unit,mean=0.4"


def test_the_page_names_no_folder_that_the_user_did_not(home: Path) -> None:
    text = (home / "my model.hwc" / "report.html").read_text(encoding="utf-8")
    assert str(home) not in text and home.name not in text


def test_a_page_written_elsewhere_has_commands_for_there(copy: Path, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        words = shlex.split(apply_command(RunRecord.load(Path("copy/my model.hwc")), Path("copy/my model.hwc/pareto/0001.json")))
    assert words[2:5] == ["copy/my model.onnx", "--plan", "copy/my model.hwc/pareto/0001.json"]
    assert "copy/data of mine/x.npz" in words and "copy/chip.yaml" in words


def test_what_was_given_in_python_has_a_placeholder(run_folder: Path) -> None:
    record = RunRecord.load(run_folder)
    given = {name: value for name, value in record.given.items() if name not in ("data", "metric", "model")}
    result = {**record.result, "model": {**record.result["model"], "path": None}}
    python = replace(record, given=given, result=result, config={**record.config, "metric": "mine:score"})
    words = shlex.split(apply_command(python, run_folder / "plan.json"))
    assert words[2] == "MODEL.onnx" and words[words.index("--data") + 1] == "SOURCE"
    assert words[words.index("--metric") + 1] == "MODULE:FUNCTION"
    assert "given in Python in place of" in page(python) and "given in Python in place of" not in page(record)


def test_what_was_named_in_full_stays_in_full(run_folder: Path) -> None:
    words = shlex.split(apply_command(RunRecord.load(run_folder), run_folder / "plan.json"))
    assert words[2:5] == [str(run_folder.parent / "m.onnx"), "--plan", str(run_folder / "plan.json")]
    assert words[words.index("--data") + 1] == str(run_folder.parent / "x.npz")


def test_defaults_that_are_left_out_are_those_of_the_commands(run_folder: Path) -> None:
    record = RunRecord.load(run_folder)
    for name, line in (
        ("apply", apply_command(record, run_folder / "plan.json")),
        ("why", why_command(record)),
        ("sensitivity", sensitivity_command(record)),
        ("compare", compare_command(record)),
        ("profile", explain_command(record)),
    ):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert command.make_context(name, shlex.split(line)[2:])
        known = {param.opts[0].removeprefix("--"): param.default for param in command.params}
        for key in DEFAULTS.keys() & known.keys():
            default = known[key][0] if isinstance(known[key], tuple) else known[key]
            own = (name, key) in (("apply", "split-seed"), ("why", "split-seed"))  # the plan's, which is the run's
            assert own or str(default) == DEFAULTS[key], f"{name} --{key}"
