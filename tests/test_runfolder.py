from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from hwc_onnx.errors import UsageError
from hwc_onnx.runfolder import RunFolder, RunState, read_record, state_of


def test_run_folder_with_same_inputs_continues(tmp_path):
    with RunFolder(tmp_path / "run", {"seed": 0, "trials": 10}) as first:
        first.write("plan.json", "{}")
    with RunFolder(tmp_path / "run", {"seed": 0, "trials": 20}) as second:
        assert (second.path / "plan.json").read_text() == "{}"


def test_run_folder_with_other_inputs_names_the_first_difference(tmp_path):
    with RunFolder(tmp_path / "run", {"seed": 0, "model": "a"}) as first:
        first.write("best.onnx", b"")
    with pytest.raises(UsageError, match="metric was not given, now 'top1', model was 'a', now 'b'"):
        RunFolder(tmp_path / "run", {"seed": 0, "model": "b", "metric": "top1"})
    assert not (tmp_path / "run" / ".lock").exists()


def test_run_folder_of_a_run_that_measured_nothing_takes_other_inputs(tmp_path):
    """Its metric failed on the original, say, and another one is given."""
    RunFolder(tmp_path / "run", {"seed": 0, "metric": "mine:broken"}).release()
    assert state_of(tmp_path / "run", {"seed": 0, "metric": "mine:mended"}) is RunState.CONTINUES
    with RunFolder(tmp_path / "run", {"seed": 0, "metric": "mine:mended"}) as second:
        assert read_record(second.path)["metric"] == "mine:mended"


def test_run_folder_fresh_moves_the_old_run_aside(tmp_path):
    with RunFolder(tmp_path / "run", {"seed": 0}) as first:
        first.write("kept.txt", "old")
    with RunFolder(tmp_path / "run", {"seed": 1}, fresh=True):
        assert not (tmp_path / "run" / "kept.txt").exists()
    assert [p.read_text() for p in tmp_path.glob("run.*/kept.txt")] == ["old"]


def test_run_folder_resume_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="nothing to resume"):
        RunFolder(tmp_path / "run", {"seed": 0}, resume=True)


def test_run_folder_of_a_live_process_is_refused_and_of_a_dead_one_taken(tmp_path):
    RunFolder(tmp_path / "run", {"seed": 0}).release()
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        owner = {"pid": sleeper.pid, "host": platform.node()}
        (tmp_path / "run" / ".lock").write_text(json.dumps(owner))
        with pytest.raises(UsageError, match=f"process {sleeper.pid}"):
            RunFolder(tmp_path / "run", {"seed": 0})
    finally:
        sleeper.kill()
        sleeper.wait()
    RunFolder(tmp_path / "run", {"seed": 0}).release()
