"""Other limits for a finished search: its trials are judged anew, nothing is measured but the holdout."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import hwc_onnx
from hwc_onnx.errors import UsageError
from hwc_onnx.events import TrialDone
from hwc_onnx.result import Result
from tests.cli.tiny_case import tiny_case

MODEL, SAMPLES = tiny_case(np.random.default_rng(0))


def compress(output: Path, **options: object) -> tuple[Result, int]:
    heard: list[object] = []
    chosen = {"trials": 10, "gate": "point", "sampler": "knapsack"} | options
    result = hwc_onnx.compress(MODEL, data=SAMPLES, output=output, on_event=heard.append, **chosen)
    return result, sum(isinstance(event, TrialDone) for event in heard)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a search whose limit is so wide that nothing is stopped for its drop."""
    folder = tmp_path_factory.mktemp("searched")
    result, _ = compress(folder / "wide.onnx", max_drop=60.0)
    return Path(result.to_json()["run_dir"])


def outcomes(folder: Path) -> list[dict[str, object]]:
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    return [trial.user_attrs["outcome"] for trial in optuna.load_study(study_name=None, storage=storage).trials]


def kept(folder: Path, limit: float) -> list[float]:
    """Energies of complete trials whose drop plus a standard error keeps a limit."""
    complete = [o for o in outcomes(folder) if o["complete"]]
    return [o["energy"] for o in complete if o["drop_points"] + o["standard_error"] <= limit]


def test_the_best_trial_under_another_limit_is_written_without_an_evaluation(searched: Path, tmp_path: Path) -> None:
    complete = sorted((o for o in outcomes(searched) if o["complete"]), key=lambda o: o["energy"])
    limit = complete[1]["drop_points"] + complete[1]["standard_error"] + 5.0
    before = (searched / "study.journal").read_bytes()
    result, trials = compress(tmp_path / "other.onnx", max_drop=limit, from_run=searched)
    found = result.to_json()
    assert trials == 0 and found["search"]["evaluations"] == 0 and found["search"]["stopped_by"] == "resolved"
    assert result.pareto and min(energy for energy, _ in result.pareto) >= min(kept(searched, limit))
    assert found["run_dir"] == str(tmp_path / "other.hwc") and (tmp_path / "other.onnx").is_file()
    assert found["metric"]["limit_points"] == limit and "0 new evaluations" in " ".join(found["notes"])
    assert (searched / "study.journal").read_bytes() == before
    again, _ = compress(tmp_path / "other.onnx", max_drop=limit, from_run=searched)
    assert again.to_json() == found  # a finished run prints its result again, and opens nothing


def test_tighter_limits_give_other_plans_and_each_opening_is_counted(searched: Path, tmp_path: Path) -> None:
    """Broken twin of the first test: were the limits not asked about again, all would be the plan of the wide limit."""
    wide = json.loads((searched / "result.json").read_text())
    first, _ = compress(tmp_path / "a.onnx", max_drop=0.9, from_run=searched)
    second, _ = compress(tmp_path / "b.onnx", max_drop=60.0, max_memory=wide["memory_bytes"]["compressed"] - 1, from_run=searched)
    openings = [result.to_json()["holdout_openings"] for result in (first, second)]
    assert wide["holdout_openings"] == 1 and openings[1] == openings[0] + 1 >= 3
    assert len((searched / "holdout_openings.txt").read_text().splitlines()) == openings[1] - 1
    assert f"opened {openings[1]} times" in " ".join(second.to_json()["notes"])
    for result in (first, second):
        assert result.to_json()["energy_pj"]["compressed"] > wide["energy_pj"]["compressed"]


def test_least_drop_is_found_among_the_trials_of_a_search_for_least_energy(searched: Path, tmp_path: Path) -> None:
    result, trials = compress(tmp_path / "drop.onnx", objective="drop", max_energy=0.6, from_run=searched)
    complete = [o for o in outcomes(searched) if o["complete"] and o["energy"] <= 0.6]
    least = min(complete, key=lambda o: o["guarded_points"] + o["standard_error"])
    found = result.to_json()
    assert trials == 0 and found["goal_met"]
    assert found["metric"]["search_drop_points"] == least["drop_points"]


def test_trials_that_were_stopped_early_are_told(tmp_path: Path) -> None:
    narrow, _ = compress(tmp_path / "narrow.onnx", max_drop=2.0, trials=12)
    folder = Path(narrow.to_json()["run_dir"])
    stopped = [o for o in outcomes(folder) if not o["complete"]]
    assert stopped
    wide, _ = compress(tmp_path / "wide.onnx", max_drop=30.0, from_run=folder)
    assert f"{len(stopped)} of them were stopped early and cannot be judged" in " ".join(wide.to_json()["notes"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lanes": 2}, "of other inputs: lanes was 1, now 2"),
        ({"calibration_samples": 100}, "of other inputs"),
        ({"from_run": "nowhere"}, "config.resolved.yaml: cannot be read"),
    ],
)
def test_a_run_of_something_else_is_refused(options: dict[str, object], words: str, searched: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        compress(tmp_path / "x.onnx", **({"max_drop": 5.0, "from_run": searched} | options))
    assert not (tmp_path / "x.onnx").exists()


def test_the_folder_and_the_file_of_the_search_are_not_written_over(searched: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="own folder"):
        compress(tmp_path / "x.onnx", from_run=searched, run_dir=searched)
    with pytest.raises(UsageError, match="name it with -o"):
        hwc_onnx.compress(MODEL, data=SAMPLES, from_run=searched)


def test_a_resolved_run_holds_no_search_of_its_own(searched: Path, tmp_path: Path) -> None:
    compress(tmp_path / "a.onnx", max_drop=20.0, from_run=searched)
    with pytest.raises(UsageError, match="not the folder of a search"):
        compress(tmp_path / "b.onnx", max_drop=10.0, from_run=tmp_path / "a.hwc")


def test_a_search_that_still_runs_is_not_judged(searched: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("config.resolved.yaml", "study.journal"):
        (tmp_path / "run" / name).write_bytes((searched / name).read_bytes())
    (tmp_path / "run" / ".lock").write_text(json.dumps({"pid": 1, "host": platform.node()}))
    with pytest.raises(UsageError, match="in use by process 1"):
        compress(tmp_path / "x.onnx", max_drop=5.0, from_run=tmp_path / "run")
