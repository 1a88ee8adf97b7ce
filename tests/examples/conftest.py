"""What the pipelines of examples/ are run on: the tiny model and samples, a file compressed from them, options that keep a run short."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.cli.running import hwc
from tests.cli.tiny_case import write_tiny_case

SHORT = {"TRIALS": "2", "MAX_DROP": "60", "GATE": "point", "CALIBRATION_SAMPLES": "64", "SEARCH_SAMPLES": "128"}


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """`hwc-onnx` on the PATH, and a `compress` that takes seconds whatever its file of options says."""
    options = {f"HWC_ONNX_COMPRESS_{name}": value for name, value in SHORT.items()}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, **options, "PATH": path, "HWC_ONNX_THREADS": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.hwc.onnx in a folder with tiny.onnx, shared: tests only read them."""
    folder = tmp_path_factory.mktemp("compressed")
    model, data = write_tiny_case(folder)
    file = folder / "tiny.hwc.onnx"
    done = hwc("apply", model, "--uniform", "w4a8", "--data", data, "--recovery", "none", "--output", file)
    assert done.exit_code == 0, done.stderr
    return file
