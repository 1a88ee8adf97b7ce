"""```python blocks of pages without commands on the samples: they run on stand-ins, page by page, each in the names of those before."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

import hwc_onnx
from hwc_onnx import api
from tests.cli.running import hwc
from tests.cli.tiny_case import write_tiny_case
from tests.structure.shown import MARKDOWN, ROOT, blocks, name_of
from tests.structure.test_pages import RUN

FEWER = {"trials": 2, "calibration_samples": 64, "search_samples": 128}
LOOSER = {"max_drop": 3.0}
"""The few samples of the small case cannot tell a drop of one point."""


def programs(page: Path) -> list[str]:
    return [block.text for block in blocks(page) if block.kind == "python"]


HERE = [page for page in MARKDOWN if page not in RUN and programs(page)]


@pytest.mark.parametrize("page", HERE, ids=name_of)
def test_programs_of_a_page_run_in_the_order_shown(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_case(tmp_path)
    for made, wanted in (("tiny.onnx", "model.onnx"), ("tiny.npz", "val.npz")):
        (tmp_path / made).rename(tmp_path / wanted)
    shutil.copy(ROOT / "sample_models" / "resnet20.onnx", tmp_path / "resnet20.hwc.onnx")
    monkeypatch.chdir(tmp_path)
    whole = api.compress

    def compress(*arguments: Any, **named: Any) -> Any:
        return whole(*arguments, **(named | FEWER))

    opened = hwc_onnx.open_problem

    def open_problem(*arguments: Any, **named: Any) -> Any:
        return opened(*arguments, **(named | LOOSER))

    monkeypatch.setattr(api, "compress", compress)
    monkeypatch.setattr(hwc_onnx, "open_problem", open_problem)
    names: dict[str, Any] = {}
    for program in programs(page):
        exec(compile(program, page.name, "exec"), names)  # what the page shows
        if "export" in names:
            exported(names["export"], tmp_path / "exported.onnx")


def exported(export: Any, path: Path) -> None:
    """docs/paper.md: what its program writes is a model that the command line reads."""
    import torch

    export(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(3600, 10)), path)
    assert onnx.load(path).graph.input[0].name == "x"
    assert hwc("inspect", path).exit_code == 0


def test_every_program_of_the_documentation_is_run() -> None:
    shown = {name_of(page) for page in MARKDOWN if programs(page)}
    assert shown == {name_of(page) for page in [*HERE, *RUN]} & shown and "README.md" in shown
    for page in MARKDOWN:
        for program in programs(page):
            compile(program, page.name, "exec")
            assert not re.match(r"# \w+\.py\n", program) or page in RUN or "def export" in program, f"{page.name}: used by no command"
