"""setup.cfg, constraints.txt and the folders on disk say the same."""

from __future__ import annotations

import configparser
import importlib.util
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def words(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def project(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match.group(0)).lower()


def requirements() -> list[str]:
    parser = setup()
    return words(parser["options"]["install_requires"]) + [
        line for extra in parser["options.extras_require"].values() for line in words(extra)
    ]


def pins() -> dict[str, str]:
    lines = words((ROOT / "constraints.txt").read_text())
    return {project(line): line.split("==")[1] for line in lines}


def packages_on_disk() -> set[str]:
    library = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "hwc_onnx").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    return library | {"hwc_onnx.cli", "hwc_onnx.accel_profiles"}


def test_setup_lists_each_package_on_disk() -> None:
    assert set(words(setup()["options"]["packages"])) == packages_on_disk()


def test_each_package_has_an_init_file() -> None:
    mapped = {"hwc_onnx.cli": "cli", "hwc_onnx.accel_profiles": "accel_profiles"}
    for name in packages_on_disk():
        folder = ROOT / mapped.get(name, name.replace(".", "/"))
        assert (folder / "__init__.py").is_file(), f"{folder} needs an __init__.py, or an editable install loses it"


@pytest.mark.parametrize("requirement", requirements())
def test_dependency_is_pinned_at_the_installed_version(requirement: str) -> None:
    name = project(requirement)
    assert name in pins(), f"add {name} to constraints.txt"
    try:
        installed = version(name).split("+")[0]
    except PackageNotFoundError:
        pytest.skip(f"{name} belongs to an extra that is not installed")
    assert pins()[name] == installed


def test_each_pin_is_a_dependency() -> None:
    assert set(pins()) - {project(requirement) for requirement in requirements()} - {"setuptools"} == set()


def test_no_top_level_cli_is_importable_from_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT])
    monkeypatch.delitem(sys.modules, "cli", raising=False)
    assert importlib.util.find_spec("accel_profiles") is None


def test_schemas_and_profiles_are_package_data() -> None:
    data = setup()["options.package_data"]
    assert "*.schema.json" in data["hwc_onnx"]
    assert "*.yaml" in data["hwc_onnx.accel_profiles"]


def test_version_is_written_once() -> None:
    import hwc_onnx

    assert hwc_onnx.__version__ == setup()["metadata"]["version"]
    heads = re.findall(r"^## ([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads and heads[0] == setup()["metadata"]["version"]
