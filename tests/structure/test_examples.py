"""Each example runs and prints what its README line promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.tiny_case import write_tiny_case

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
TINY = ["--model", "tiny.onnx"]
PROMISES = {
    "01_compress.py": ([*TINY, "--data", "tiny.npz", "--trials", "3", "--max-drop", "5"], r"c1: .*\bW[2-8] A[4-8]\n(?s:.*)drop [+-]"),
    "02_own_accelerator.py": (TINY, r"total: [\d.]+ -> [\d.]+ uJ"),
    "03_own_metric_and_data.py": ([], r"mean_class_accuracy: 0\.9\d+ \(95% interval"),
    "04_uniform_sweep.py": (
        [*TINY, "--data", "tiny.npz", "--settings", "w8a8", "w4a8"],
        r"w4a8 .*% of INT8's energy, drop",
    ),
    "05_layer_energy.py": (
        ["--accelerators", "edge-flex", "--channels", "16"],
        r"edge-flex: [\d.]+ per MAC, (?s:.*)inside out: \d\.\d+ times",
    ),
}


ELSEWHERE = {
    "mlflow_tracking.py": "test_mlflow.py",
    "olive_pass.py": "test_olive.py",
    "optimum_model.py": "test_optimum.py",
    "pipelines/compress.yaml": "test_github_actions.py",
    "pipelines/github-actions.yaml": "test_github_actions.py",
    "pipelines/Dockerfile": "test_dockerfile.py",
    "pipelines/Makefile.inc": "test_make.py",
    "pipelines/pre-commit-config.yaml": "test_pre_commit.py",
}
"""Examples with a test of their own in tests/examples."""


def test_each_example_is_listed_and_tested() -> None:
    files = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    listed = set(re.findall(r"`([\w/-]+(?:\.\w+)?)`", (EXAMPLES / "README.md").read_text())) & files
    assert files - {"README.md"} == listed
    assert listed == {*PROMISES, *ELSEWHERE, "my_task.py"}
    for name, test in ELSEWHERE.items():
        assert name.split("/")[-1] in (ROOT / "tests" / "examples" / test).read_text(), name


@pytest.mark.parametrize("name", PROMISES)
def test_example_runs(name: str, tmp_path: Path) -> None:
    write_tiny_case(tmp_path)
    options, promise = PROMISES[name]
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(promise, done.stdout), done.stdout
