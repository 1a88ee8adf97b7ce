"""The hook of examples/pipelines/pre-commit-config.yaml: its entry as pre-commit calls it, and pre-commit itself where it is installed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.tiny_case import CLASSES

CONFIG = Path(__file__).parents[2] / "examples" / "pipelines" / "pre-commit-config.yaml"


@pytest.fixture(scope="module")
def hook() -> dict[str, Any]:
    (repository,) = yaml.safe_load(CONFIG.read_text())["repos"]
    assert repository["repo"] == "local"
    (found,) = repository["hooks"]
    return dict(found)


@pytest.fixture
def project(compressed: Path, tmp_path: Path) -> Path:
    """net a.hwc.onnx with its original, and b.hwc.onnx whose original was changed afterwards."""
    import onnx

    for name in ("a", "b"):
        shutil.copy(compressed, tmp_path / f"{name}.hwc.onnx")
        shutil.copy(compressed.with_name("tiny.onnx"), tmp_path / f"{name}.onnx")
    changed = onnx.load(tmp_path / "b.onnx")
    bias = next(tensor for tensor in changed.graph.initializer if tensor.name == "b3")
    bias.CopyFrom(onnx.helper.make_tensor("b3", onnx.TensorProto.FLOAT, [CLASSES], [1.0] * CLASSES))
    onnx.save(changed, tmp_path / "b.onnx")
    return tmp_path


def call(hook: dict[str, Any], folder: Path, environment: dict[str, str], *files: str) -> subprocess.CompletedProcess[str]:
    command = [*shlex.split(hook["entry"]), *files]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_hook_takes_compressed_models_only(hook: dict[str, Any]) -> None:
    assert re.search(hook["files"], "models/net.hwc.onnx")
    assert not re.search(hook["files"], "models/net.onnx")


def test_entry_passes_a_good_file(hook: dict[str, Any], project: Path, environment: dict[str, str]) -> None:
    done = call(hook, project, environment, "a.hwc.onnx")
    assert done.returncode == 0 and "a.hwc.onnx: all checks passed" in done.stdout, done.stdout + done.stderr


def test_entry_fails_where_any_file_does_and_checks_the_others(
    hook: dict[str, Any], project: Path, environment: dict[str, str]
) -> None:
    done = call(hook, project, environment, "b.hwc.onnx", "a.hwc.onnx")
    assert done.returncode == 5, done.stdout + done.stderr
    assert "a.hwc.onnx: all checks passed" in done.stdout and "made from this original  FAIL" in done.stdout


def test_entry_fails_where_the_original_is_missing(
    hook: dict[str, Any], project: Path, environment: dict[str, str]
) -> None:
    (project / "a.onnx").unlink()
    done = call(hook, project, environment, "a.hwc.onnx")
    assert done.returncode == 4 and "a.onnx" in done.stderr


def test_pre_commit_runs_the_hook(project: Path, environment: dict[str, str]) -> None:
    if shutil.which("pre-commit", path=environment["PATH"]) is None:
        pytest.skip("pre-commit is not installed")
    shutil.copy(CONFIG, project / ".pre-commit-config.yaml")
    environment = {**environment, "PRE_COMMIT_HOME": str(project / "cache")}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)

    run("git", "init", "-q")
    run("git", "add", "-f", ".pre-commit-config.yaml", "a.hwc.onnx", "a.onnx")
    good = run("pre-commit", "run")
    assert good.returncode == 0 and "Passed" in good.stdout, good.stdout + good.stderr
    run("git", "add", "-f", "b.hwc.onnx", "b.onnx")
    bad = run("pre-commit", "run")
    assert bad.returncode == 1 and "Failed" in bad.stdout, bad.stdout + bad.stderr
