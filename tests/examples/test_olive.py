"""examples/olive_pass.py: its pass with stand-ins for what it takes from Olive, and a whole workflow where Olive is installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.cli.tiny_case import SIDE, write_tiny_case

PROGRAM = Path(__file__).parents[2] / "examples" / "olive_pass.py"
INSTALLED = importlib.util.find_spec("olive") is not None
needs_olive = pytest.mark.skipif(not INSTALLED, reason="olive-ai is not installed (300 MB with what it needs beside the extra dev)")


class OlivePassError(Exception):
    pass


@dataclass
class ONNXModelHandler:
    model_path: str
    onnx_file_name: str | None = None
    inference_settings: Any = None
    model_attributes: Any = None


def resolve_onnx_path(folder: str, name: str) -> str:
    Path(folder).mkdir(parents=True, exist_ok=True)  # as Olive's does
    return str(Path(folder) / name)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example, importing stand-ins for the names that it takes from Olive."""
    names: dict[str, dict[str, Any]] = {
        "olive": {},
        "olive.exception": {"OlivePassError": OlivePassError},
        "olive.hardware": {"AcceleratorSpec": object},
        "olive.model": {"ONNXModelHandler": ONNXModelHandler},
        "olive.model.utils": {"resolve_onnx_path": resolve_onnx_path},
        "olive.package_config": {"OlivePackageConfig": object},
        "olive.passes": {"Pass": object},
        "olive.passes.pass_config": {"BasePassConfig": object, "PassConfigParam": SimpleNamespace},
    }
    for name, content in names.items():
        stand_in = ModuleType(name)
        stand_in.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, stand_in)
    spec = importlib.util.spec_from_file_location("olive_pass_under_test", PROGRAM)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def settings(module: ModuleType, **given: Any) -> SimpleNamespace:
    """The pass's configuration: its defaults, and what is given."""
    defaults = module.HwcCompress._default_config(None)
    return SimpleNamespace(**{name: given.get(name, getattr(parameter, "default_value", None)) for name, parameter in defaults.items()})


def opens(file: Path) -> None:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros((1, 1, SIDE, SIDE), np.float32)})[0].shape == (1, 4)


def test_pass_hands_on_a_compressed_model_with_its_figures(module: ModuleType, tmp_path: Path) -> None:
    model, data = write_tiny_case(tmp_path)
    config = settings(module, data=str(data), trials=2, max_drop=60.0)
    given = ONNXModelHandler(str(model), model_attributes={"kept": 1})
    handed = module.HwcCompress()._run_for_config(given, config, str(tmp_path / "run" / "models"))
    folder = Path(handed.model_path)
    assert {file.name for file in folder.iterdir()} == {"tiny.onnx", "report.html", "result.json", "plan.json"}
    assert handed.onnx_file_name == "tiny.onnx" and handed.model_attributes["kept"] == 1
    assert handed.model_attributes["hwc_onnx"]["goal_met"] and handed.model_attributes["hwc_onnx"]["reduction_vs_int8"] > 0
    assert (folder / "tiny.onnx").stat().st_size < model.stat().st_size
    opens(folder / "tiny.onnx")


def test_pass_fails_where_the_goal_is_missed_unless_it_is_to_be_kept(module: ModuleType, tmp_path: Path) -> None:
    model, data = write_tiny_case(tmp_path)
    missed = {"data": str(data), "trials": 2, "max_drop": 60.0, "options": {"max_energy": 0.01}}
    output = str(tmp_path / "run" / "models")
    with pytest.raises(OlivePassError, match=r"goal was missed.*report\.html"):
        module.HwcCompress()._run_for_config(ONNXModelHandler(str(model)), settings(module, **missed), output)
    kept = module.HwcCompress()._run_for_config(ONNXModelHandler(str(model)), settings(module, **missed, keep_missed=True), output)
    assert kept.model_attributes["hwc_onnx"]["goal_met"] is False


def run(folder: Path, environment: dict[str, str], *command: object) -> subprocess.CompletedProcess[str]:
    given = {**environment, "OLIVE_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(PROGRAM.parent)}
    return subprocess.run([str(word) for word in command], cwd=folder, env=given, capture_output=True, text=True, check=False)


@pytest.mark.slow
@needs_olive
def test_olive_runs_the_workflow_from_python_and_from_its_command(tmp_path: Path, environment: dict[str, str]) -> None:
    write_tiny_case(tmp_path)
    done = run(tmp_path, environment, sys.executable, PROGRAM, "--model", "tiny.onnx", "--data", "tiny.npz", "--trials", 2, "--max-drop", 60)
    assert done.returncode == 0, done.stderr
    assert "% less energy than INT8, drop " in done.stdout
    folder = tmp_path / "example_olive"
    output = folder / "output"
    assert (output / "report.html").is_file()
    opens(output / "model.onnx")
    assert json.loads((output / "model_config.json").read_text())["config"]["model_attributes"]["hwc_onnx"]["goal_met"]

    shutil.rmtree(output)
    shutil.rmtree(folder / "cache")
    workflow = json.loads((folder / "olive_workflow.json").read_text())
    workflow["passes"]["name"] = {"type": "AddOliveMetadata", "graph_name": "after_hwc"}  # one of Olive's own, after ours
    (folder / "olive_workflow.json").write_text(json.dumps(workflow))
    command = [sys.executable, "-m", "olive", "run", "--config", "olive_workflow.json", "--package-config", "olive_package.json"]
    again = run(folder, environment, *command)
    assert again.returncode == 0, again.stderr
    opens(output / "model.onnx")
    assert onnx.load(output / "model.onnx").graph.name == "after_hwc"


@pytest.mark.slow
@needs_olive
def test_olive_has_no_model_where_the_goal_is_missed(tmp_path: Path, environment: dict[str, str]) -> None:
    write_tiny_case(tmp_path)
    done = run(
        tmp_path, environment, sys.executable, PROGRAM,
        "--model", "tiny.onnx", "--data", "tiny.npz", "--trials", 2, "--max-drop", 60, "--max-energy", 0.01,
    )  # fmt: skip
    assert done.returncode == 3 and "no output model" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "example_olive" / "output" / "model.onnx").exists()
