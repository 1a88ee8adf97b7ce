"""What a run can be asked for: least energy or least drop, and limits beside accuracy, said by how much they are missed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Case, hwc

Validate = Callable[[str, Any], None]


def arguments(case: Case, folder: Path) -> list[object]:
    return ["compress", case.model, "--data", case.data, "-o", folder / "tiny.hwc.onnx"]


def compress(case: Case, folder: Path, *options: object) -> tuple[int, dict[str, Any], str]:
    result = hwc(*arguments(case, folder), "--max-drop", "60", "--gate", "point", "--json", *options)
    assert result.exit_code in (0, 3), result.stderr
    return result.exit_code, json.loads(result.stdout), result.stderr


def test_least_drop_at_an_energy_is_written_with_its_interval_and_no_limit(case: Case, tmp_path: Path, schema: Validate) -> None:
    result = hwc(*arguments(case, tmp_path), "--objective", "drop", "--max-energy", "60%", "--trials", 8)
    assert result.exit_code == 0, result.stderr
    assert "goal met: least drop, at most energy 60% of INT8" in result.stdout
    assert "no limit on the drop" in result.stderr
    found = json.loads((tmp_path / "tiny.hwc" / "result.json").read_text())
    schema("result", found)
    assert found["objective"] == "drop" and found["limits"] == {"energy": 0.6} and found["metric"]["limit_points"] is None
    assert found["energy_pj"]["compressed"] <= 0.6 * found["energy_pj"]["baseline_int8"]
    low, high = found["metric"]["drop_ci95"]
    assert low <= found["metric"]["drop_points"] <= high and len(found["looks"]) == 1


def test_least_drop_with_a_limit_on_the_drop_is_judged_by_it(case: Case, tmp_path: Path) -> None:
    options = ("--objective", "drop", "--max-energy", "60%", "--trials", 8, "--max-drop", "0.0001", "--gate", "upper")
    result = hwc(*arguments(case, tmp_path), *options)
    assert result.exit_code == 3 and "goal NOT met: least drop, limit 0.00 points" in result.stdout


def test_least_drop_needs_an_energy(case: Case, tmp_path: Path) -> None:
    result = hwc(*arguments(case, tmp_path), "--objective", "drop")
    assert result.exit_code == 2 and "--max-energy 40%" in result.stderr


def test_limits_that_can_be_kept_are_kept_together(case: Case, tmp_path: Path, schema: Validate) -> None:
    limits = ("--max-memory", "1.5KB", "--max-latency", "500ns", "--max-bytes", "4KB", "--max-energy", "80%")
    code, found, _ = compress(case, tmp_path, *limits, "--trials", 10)
    schema("result", found)
    assert code == 0 and found["goal_met"]
    assert found["limits"] == pytest.approx({"energy": 0.8, "latency": 5e-7, "bytes": 4000, "memory": 1500})
    assert found["memory_bytes"]["compressed"] <= 1500 < found["memory_bytes"]["baseline_int8"]
    assert found["accelerator_bytes"]["compressed"] < found["memory_bytes"]["compressed"]
    assert found["latency_s"]["compressed"] <= 5e-7 and found["output"]["file_bytes"] <= 4000


def test_limits_out_of_reach_give_the_nearest_plan_and_say_by_how_much(case: Case, tmp_path: Path) -> None:
    code, found, said = compress(case, tmp_path, "--max-memory", "100B", "--max-latency", "1ns", "--trials", 10)
    assert code == 3 and found["output"]["kind"] == "compressed"
    taken = found["memory_bytes"]["compressed"]
    assert f"{taken:,.0f} bytes of the accelerator's memory, the limit is 100: {taken / 100 - 1:.1%} too much" in said
    assert "latency is" in said and "no plan of the search keeps all limits" in said
    rows = [row.split(",") for row in (tmp_path / "tiny.hwc" / "pareto.csv").read_text().splitlines()[1:]]
    assert rows and all(row[2] == "false" for row in rows)


def test_drop_out_of_reach_says_by_how_much(case: Case, tmp_path: Path) -> None:
    result = hwc(*arguments(case, tmp_path), "--max-drop", "0", "--gate", "upper", "--trials", 2)
    assert result.exit_code == 3 and "points, " in result.stderr and "above the limit): the original is written unchanged" in result.stderr
