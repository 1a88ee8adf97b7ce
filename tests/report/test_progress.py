"""Progress: whole lines when nobody watches, one for each improvement; nothing with quiet."""

from __future__ import annotations

import io
import json
import math
from importlib.resources import files

import jsonschema
import pytest

from hwc_onnx.events import Note, Phase, Step, TrialDone
from hwc_onnx.report import progress as progress_module
from hwc_onnx.report.progress import Progress
from hwc_onnx.report.progress_json import JsonProgress


def shown(*, quiet: bool = False) -> list[str]:
    stream = io.StringIO()
    with Progress(stream, quiet=quiet) as progress:
        progress(Phase("calibrate", "1024 samples"))
        progress(Step(3, 20, "conv1"))
        progress(TrialDone(1, 200, 0.55, 0.3, True, 0.55, 12.0, "seed", 200_000))
        progress(TrialDone(2, 200, 0.60, 0.1, False, 0.55, 13.0, "rollout"))
        progress(TrialDone(3, 200, 0.40, 0.8, True, 0.40, 75.0, "policy"))
        progress(Note("labels found: metric top1"))
        progress(Note("synthetic inputs", warning=True))
    return stream.getvalue().splitlines()


def test_progress_without_terminal_writes_improvements_only() -> None:
    lines = shown()
    assert lines[0] == "calibrate: 1024 samples"
    assert "of INT8 energy" in lines[1]
    assert [line.split()[0] for line in lines[2:4]] == ["1/200", "3/200"]
    assert "55.0%" in lines[2] and "+0.30" in lines[2] and "200 KB" in lines[2] and "seed" in lines[2]
    # 63 s for two trials after the first: 197 more take 103 min at that pace
    assert "1 min 15 s" in lines[3] and "1 h 43 min" in lines[3] and lines[2].split()[-2] == "-"
    assert lines[4:] == ["note: labels found: metric top1", "warning: synthetic inputs"]
    assert all(len(line) <= 80 for line in lines)


def test_progress_says_how_a_count_that_it_began_to_tell_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def lines(quiet_seconds: float) -> list[str]:
        for name in ("QUIET_SECONDS", "TRIAL_SECONDS"):
            monkeypatch.setattr(progress_module, name, quiet_seconds)
        stream = io.StringIO()
        with Progress(stream) as progress:
            progress(Phase("calibrate"))
            progress(Step(10, 10, ""))
            progress(Phase("database"))
            for done in (4, 20):
                progress(Step(done, 20, "layers"))
            progress(TrialDone(2, 9, 0.60, 0.1, False, 0.55, 13.0, "rollout"))
        return stream.getvalue().splitlines()[1:]

    assert lines(0.0) == ["calibrate 10 of 10", "database", "database 4 of 20 layers", "database 20 of 20 layers", "trial 2 of 9, best 55.0% of INT8's energy, 13 s"]
    assert lines(60.0) == ["database"]


def test_progress_quiet_writes_nothing() -> None:
    assert shown(quiet=True) == []


def test_progress_interrupted_says_how_to_continue() -> None:
    stream = io.StringIO()
    with Progress(stream) as progress:
        progress.interrupted("hwc-onnx compress model.onnx --data 'my data.npz'")
    assert "hwc-onnx compress model.onnx --data 'my data.npz'" in stream.getvalue()
    assert "best.onnx" in stream.getvalue()


def test_json_progress_is_one_object_for_each_event() -> None:
    stream = io.StringIO()
    with JsonProgress(stream) as progress:
        progress(Phase("calibrate", "1024 samples"))
        progress(Step(3, 20, "conv1"))
        progress(TrialDone(1, 5, 0.55, 0.3, False, math.inf, 12.0, "seed"))
        progress(TrialDone(3, 5, 0.40, math.nan, True, 0.40, 16.0, "policy", 1000))
        progress(Note("labels found", warning=True))
        progress.interrupted("hwc-onnx compress model.onnx")
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    schema = json.loads(files("hwc_onnx").joinpath("progress.schema.json").read_text())
    for event in events:
        jsonschema.validate(event, schema)
    assert [event["event"] for event in events] == ["phase", "step", "trial", "trial", "note", "interrupted"]
    assert events[2]["best_energy"] is None and events[2]["seconds_left"] is None
    assert events[3]["drop_points"] is None and events[3]["seconds_left"] == 4.0
    quiet = io.StringIO()
    JsonProgress(quiet, quiet=True)(Note("labels found"))
    assert quiet.getvalue() == ""
