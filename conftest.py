"""Stops with one clear line when the package is not installed, instead of a hundred import errors."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest


def _installed() -> bool:
    try:
        return find_spec("hwc_onnx.cli") is not None and find_spec("hwc_onnx.accel_profiles") is not None
    except ModuleNotFoundError:
        return False


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to run against a checkout that shadows, or lacks, the installed package."""
    if not _installed():
        raise pytest.UsageError(
            "hwc_onnx is not installed here (hwc_onnx.cli not found): run `make install`, then `.venv/bin/pytest`"
        )
    # commands of the tests start without remembered mappings, and leave none in the user's cache
    os.environ["HWC_ONNX_CACHE"] = ""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` rewrites the golden files of tests/golden, to be reviewed as a diff."""
    parser.addoption("--update-golden", action="store_true", default=False, help="rewrite tests/golden/*.json")
