"""The recipe of examples/pipelines/Makefile.inc, run by make."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.tiny_case import write_tiny_case

RECIPE = Path(__file__).parents[2] / "examples" / "pipelines" / "Makefile.inc"


def make(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_tiny_case(tmp_path)
    (tmp_path / "Makefile").write_text(
        f"HWC_DATA := tiny.npz\nHWC_OPTIONS := --accel edge-flex --algorithms 'l1,magnitude' --quiet\ninclude {RECIPE}\n"
    )
    return tmp_path


def test_model_is_compressed_checked_and_left_alone_until_it_changes(project: Path, environment: dict[str, str]) -> None:
    first = make(project, environment, "tiny.hwc.checked")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "all checks passed" in first.stdout
    assert (project / "tiny.hwc.onnx").is_file()
    runs = list((project / "build" / "hwc").glob("tiny-*"))
    assert len(runs) == 1 and (runs[0] / "report.html").is_file()
    again = make(project, environment, "tiny.hwc.checked")
    assert again.returncode == 0 and "up to date" in again.stdout
    (project / "tiny.onnx").touch()
    planned = make(project, environment, "--dry-run", "tiny.hwc.checked")
    assert "compress tiny.onnx" in planned.stdout


def test_missed_goal_fails_every_time_and_makes_no_target(project: Path, environment: dict[str, str]) -> None:
    missing = "HWC_OPTIONS=--accel edge-flex --max-energy 1% --quiet"
    for _ in range(2):
        done = make(project, environment, "tiny.hwc.onnx", missing)
        assert done.returncode == 2 and "Error 3" in done.stderr, done.stdout + done.stderr
        assert "the goal was missed; see tiny.missed.onnx and build/hwc/tiny-" in done.stderr
        assert (project / "tiny.missed.onnx").is_file() and not (project / "tiny.hwc.onnx").exists()
    assert len(list((project / "build" / "hwc").glob("tiny-*"))) == 1
