"""What must not be in the repository: machine paths, unfinished markers, unsafe loading, extra top-level files."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {
    "hwc_onnx",
    "cli",
    "accel_profiles",
    "tests",
    "sample_models",
    "benchmarks",
    "examples",
    "docs",
    "setup.cfg",
    "Makefile",
    "pyproject.toml",
    "constraints.txt",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "THIRD_PARTY.md",
    ".ci",
    ".gitignore",
    "ruff.toml",
    "MANIFEST.in",
    "conftest.py",
    "mkdocs.yml",
}
TEXT = {".py", ".md", ".cfg", ".toml", ".txt", ".yaml", ".json", ".in", ""}
HOME_FOLDERS = re.compile(r"(?<![\w.])/(?:work|home/\w+|Users/\w+|root)/")
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX)\b|NotImplementedError")


def committed() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def test_top_level_holds_what_it_should_and_nothing_else() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in committed()} - TOP_LEVEL == set()


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group(0)}"
        for path in committed()
        if path.suffix in TEXT and path != Path(__file__)
        for match in HOME_FOLDERS.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_library_has_no_unfinished_parts() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group(0)}"
        for path in committed()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in ("hwc_onnx", "cli")
        for match in UNFINISHED.finditer(path.read_text())
    ]
    assert found == []


PARALLEL = {"Parallel", "delayed", "parallel_config", "get_reusable_executor"}
"""What of joblib starts processes; its `load` is banned."""


def test_library_loads_nothing_that_can_run_code() -> None:
    banned = {"pickle", "marshal", "shelve", "dill", "joblib"}
    for path in committed():
        if path.suffix != ".py" or path.relative_to(ROOT).parts[0] not in ("hwc_onnx", "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                assert not banned & {alias.name.split(".")[0] for alias in node.names}, where
            elif isinstance(node, ast.ImportFrom):
                processes = {alias.name for alias in node.names} <= PARALLEL
                assert (node.module or "").split(".")[0] not in banned - ({"joblib"} if processes else set()), where
            elif isinstance(node, ast.Call):
                assert _call_is_safe(node), where


def _call_is_safe(call: ast.Call) -> bool:
    text = ast.unparse(call)
    name = ast.unparse(call.func)
    if name in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load"):
        return False
    if name in ("np.load", "numpy.load"):
        return "allow_pickle=False" in text
    return name != "torch.load"


def test_unsafe_call_is_noticed() -> None:
    unsafe = ["eval('1')", "np.load(path)", "np.load(path, allow_pickle=True)", "yaml.load(text)", "torch.load(path)"]
    for text in unsafe:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call) and not _call_is_safe(call), text


def test_modules_say_their_idea_and_stay_small() -> None:
    for path in committed():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in ("hwc_onnx", "cli"):
            text = path.read_text()
            assert ast.get_docstring(ast.parse(text)), f"{path.relative_to(ROOT)} needs a module docstring"
            assert len(text.splitlines()) <= 400, f"{path.relative_to(ROOT)} has more than 400 lines"
