"""The calls of `import hwc_onnx` stay calls, whatever was imported or called before."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import hwc_onnx

FUNCTIONS = ("apply_plan", "compress", "evaluate", "inspect", "profile", "uniform_plan", "verify")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_stay_callable_once_every_module_is_imported(name: str) -> None:
    for module in pkgutil.walk_packages(hwc_onnx.__path__, "hwc_onnx."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert callable(getattr(hwc_onnx, name))


def test_public_names_are_all_there() -> None:
    assert set(FUNCTIONS) <= set(hwc_onnx.__all__)
    assert all(getattr(hwc_onnx, name) is not None for name in hwc_onnx.__all__)
