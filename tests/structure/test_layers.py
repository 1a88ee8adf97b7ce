"""Modules import downwards only: the rank table of docs/architecture.md against every import in the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = re.compile(r"^\| (\d+) \| ([^|]+) \|", re.MULTILINE)
HEAVY_HOMES = {"onnx_graphsurgeon": {"normalize", "rewrite"}, "torch": {"search"}}


def rank_table() -> dict[str, int]:
    text = (ROOT / "docs" / "architecture.md").read_text()
    block = text.split("<!-- ranks:begin -->")[1].split("<!-- ranks:end -->")[0]
    return {name: int(rank) for rank, names in TABLE.findall(block) for name in re.findall(r"`(\w+)`", names)}


RANKS = rank_table()


def sources() -> Iterator[tuple[str, Path]]:
    """(module name as imported, file) of the whole library."""
    for folder, package in ((ROOT / "hwc_onnx", "hwc_onnx"), (ROOT / "cli", "hwc_onnx.cli")):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join((package, *parts)), path


def home(module: str) -> str:
    """The unit of the rank table that a module of hwc_onnx belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(module: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of each import, also inside functions."""
    package = module.rsplit(".", 1)[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base]).rstrip(".")
            if base == "hwc_onnx":
                for alias in node.names:
                    yield node.lineno, f"hwc_onnx.{alias.name}"
            else:
                yield node.lineno, base


def violations(module: str, text: str) -> list[str]:
    found = []
    here = home(module)
    for line, target in imports(module, ast.parse(text)):
        top = target.split(".")[0]
        if top in HEAVY_HOMES and here not in HEAVY_HOMES[top]:
            found.append(f"{module}:{line} imports {top}, allowed in {sorted(HEAVY_HOMES[top])} only")
        if top == "hwc_onnx" and target != "hwc_onnx":
            there = home(target)
            if there != here and RANKS[there] >= max(RANKS[here], 1):
                found.append(f"{module}:{line} (rank {RANKS[here]}) imports {target} (rank {RANKS[there]})")
    return found


def test_rank_table_names_each_module_on_disk_once() -> None:
    assert {home(module) for module, _ in sources()} - set(RANKS) == set()


@pytest.mark.parametrize(("module", "path"), [pytest.param(*item, id=item[0]) for item in sources()])
def test_module_imports_lower_ranks_only(module: str, path: Path) -> None:
    assert violations(module, path.read_text()) == []


def test_upward_import_is_noticed() -> None:
    assert violations("hwc_onnx.graph.parse", "def f():\n    from hwc_onnx.search.study import run_search\n")
    assert violations("hwc_onnx.graph.parse", "from ..cost import model\n")
    assert violations("hwc_onnx.cost.model", "import torch\n")
    assert not violations("hwc_onnx.cost.model", "from .types import ModelCost\nfrom hwc_onnx.graph import parse\n")


def test_cli_module_is_never_imported_by_its_folder_name() -> None:
    for module, path in sources():
        for line, target in imports(module, ast.parse(path.read_text())):
            assert target.split(".")[0] not in ("cli", "accel_profiles", "tests"), f"{module}:{line}"
