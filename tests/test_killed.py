"""kill -9 at random points of a whole run, started again each time: the same plans and the same file, to the last byte."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.compressing_child import compress

ROOT = Path(__file__).parents[1]
TRIALS, KILLS = 12, 2


def start(folder: Path, objective: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.compressing_child", str(folder), str(TRIALS), objective]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def kill_at_random(folder: Path, objective: str, rng: np.random.Generator) -> int:
    """Start the run and kill it after a few trials and a part of one; how many trials were told."""
    with start(folder, objective) as child:
        assert child.stdout is not None
        told = [line for _, line in zip(range(int(rng.integers(1, 5))), child.stdout, strict=False)]
        time.sleep(0.3 * float(rng.random()))
        child.kill()
    return len(told)


def trials(folder: Path) -> list[dict[str, Any]]:
    """Plan, origin and measurement of each trial, without the clock."""
    (run,) = folder.glob("*.hwc")
    storage = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    found = []
    for trial in optuna.load_study(study_name=None, storage=storage).trials:
        outcome = {name: value for name, value in trial.user_attrs["outcome"].items() if name != "seconds"}
        same = {name: trial.user_attrs.get(name) for name in ("plan", "origin", "learning")}
        found.append({**same, "outcome": outcome})
    return found


@pytest.mark.parametrize("objective", ["energy", "drop"])
def test_killed_run_ends_with_the_bytes_of_one_left_alone(objective: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    compress(whole, TRIALS, objective)
    rng = np.random.default_rng(5)
    assert sum(kill_at_random(killed, objective, rng) for _ in range(KILLS)) >= KILLS
    assert not (killed / "out.onnx").exists() and next(killed.glob("*.hwc/best.onnx")).stat().st_size > 0
    with start(killed, objective) as last:
        assert last.wait() == 0
    assert json.dumps(trials(killed)) == json.dumps(trials(whole))
    for name in ("out.onnx", "*.hwc/plan.json"):
        left, right = (next(folder.glob(name)).read_bytes() for folder in (whole, killed))
        assert left == right
