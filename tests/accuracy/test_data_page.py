"""docs/data.md lists what there is, with the numbers that are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwc_onnx.accuracy.metrics import METRICS
from hwc_onnx.accuracy.outputs import TASKS
from hwc_onnx.accuracy.presets import PRESETS

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PRESETS)
def test_data_page_preset_rows_have_the_presets_numbers(name):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    preset = PRESETS[name]
    mean = tuple(float(part) for part in cells[1].removesuffix("(BGR)").split(","))
    std = tuple(float(part) for part in cells[2].split(","))
    assert (mean, std, float(cells[3])) == (preset.mean, preset.std, preset.divide)
    assert ("(BGR)" in cells[1]) == (preset.channels == "bgr")
    assert ("squeezed" in cells[4]) == (preset.crop_share == 0)


@pytest.mark.parametrize("name", [*METRICS, *TASKS])
def test_data_page_names_every_metric_and_task(name):
    assert f"`{name}`" in PAGE
