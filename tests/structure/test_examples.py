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


def test_each_program_is_listed_and_promised() -> None:
    programs = {path.name for path in EXAMPLES.glob("[0-9]*.py")}
    listed = set(re.findall(r"`(\d\d_\w+\.py)`", (EXAMPLES / "README.md").read_text()))
    assert programs == listed == set(PROMISES)


@pytest.mark.parametrize("name", PROMISES)
def test_example_runs(name: str, tmp_path: Path) -> None:
    write_tiny_case(tmp_path)
    options, promise = PROMISES[name]
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(promise, done.stdout), done.stdout
