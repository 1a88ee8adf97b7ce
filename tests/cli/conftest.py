"""A tiny model and its samples, written once for all tests of this folder, and one finished `compress` run."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from tests.cli.running import Case, Run, compress_arguments, hwc
from tests.cli.tiny_case import write_tiny_case


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The tiny model and samples."""
    folder = tmp_path_factory.mktemp("tiny")
    model, data = write_tiny_case(folder)
    return Case(folder, str(model), str(data))


@pytest.fixture(scope="session")
def compressed(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One finished run, shared: tests only read it."""
    folder = tmp_path_factory.mktemp("compressed")
    result = hwc(*compress_arguments(case, folder))
    assert result.exit_code == 0, result.stderr
    return Run(result, folder / "tiny.hwc.onnx", folder / "tiny.hwc")


@pytest.fixture(scope="session")
def schema() -> Callable[[str, Any], None]:
    """Validate a payload against a schema of the package."""

    def validate(name: str, payload: Any) -> None:
        jsonschema.validate(payload, json.loads(files("hwc_onnx").joinpath(f"{name}.schema.json").read_text()))

    return validate
