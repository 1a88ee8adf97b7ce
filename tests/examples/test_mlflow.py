"""examples/mlflow_tracking.py with a real MLflow store in SQLite, read back through MLflow's client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.cli.tiny_case import write_tiny_case

mlflow: Any = pytest.importorskip("mlflow", reason="mlflow-skinny belongs to the extra dev")

PROGRAM = Path(__file__).parents[2] / "examples" / "mlflow_tracking.py"


def log(folder: Path, environment: dict[str, str], *options: str) -> tuple[subprocess.CompletedProcess[str], Any, Any]:
    """Run the example; its output, a client on its store, and the run that it logged."""
    write_tiny_case(folder)
    done = subprocess.run(
        [sys.executable, PROGRAM, "--model", "tiny.onnx", "--data", "tiny.npz", "--trials", "3", *options],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("hwc-onnx")
    assert experiment is not None, done.stderr
    (run,) = client.search_runs([experiment.experiment_id])
    return done, client, run


def test_run_holds_options_improvements_figures_and_files(tmp_path: Path, environment: dict[str, str]) -> None:
    done, client, run = log(tmp_path, environment, "--max-drop", "60")
    assert done.returncode == 0, done.stderr
    assert run.info.run_id in done.stdout and run.info.status == "FINISHED" and run.info.run_name == "tiny"
    assert run.data.params == {
        "model": "tiny.onnx", "data": "tiny.npz", "accelerator": "edge-flex", "trials": "3", "max_drop": "60.0",
    }  # fmt: skip

    improvements = client.get_metric_history(run.info.run_id, "search/energy_vs_int8")
    energies = [metric.value for metric in sorted(improvements, key=lambda metric: metric.step)]
    assert energies and energies == sorted(energies, reverse=True) and all(0 < value <= 1 for value in energies)

    folder = Path(client.download_artifacts(run.info.run_id, "run", str(tmp_path)))
    result = json.loads((folder / "result.json").read_text())
    assert run.data.metrics["result/drop_points"] == pytest.approx(result["metric"]["drop_points"])
    assert run.data.metrics["result/reduction_vs_int8"] == pytest.approx(result["reduction_vs_int8"])
    assert run.data.metrics["result/goal_met"] == 1.0 and run.data.tags["hwc.output"] == "compressed"
    assert (folder / "report.html").read_bytes() == (tmp_path / "example_mlflow" / "run" / "report.html").read_bytes()
    assert len((folder / "study.journal").read_text().splitlines()) > 3
    file = client.download_artifacts(run.info.run_id, "model/tiny.hwc.onnx", str(tmp_path))
    onnx.checker.check_model(onnx.load(file))


@pytest.mark.slow
def test_run_that_misses_its_goal_is_marked_failed(tmp_path: Path, environment: dict[str, str]) -> None:
    done, client, run = log(tmp_path, environment, "--max-drop", "60", "--max-energy", "0.01")
    assert done.returncode == 3, done.stderr
    assert run.info.status == "FAILED" and run.data.metrics["result/goal_met"] == 0.0
    assert {file.path for file in client.list_artifacts(run.info.run_id, "run")} >= {"run/report.html", "run/result.json"}


def test_store_that_fails_costs_metrics_and_not_the_search(capsys: pytest.CaptureFixture[str]) -> None:
    import importlib.util

    from hwc_onnx.events import TrialDone

    spec = importlib.util.spec_from_file_location("mlflow_tracking", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def refused(*_: Any, **__: Any) -> None:
        raise ConnectionError("no server")

    listener, trial = module.MlflowRun(), TrialDone(1, 3, 0.5, 0.1, True, 0.5, 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.mlflow, "log_metrics", refused)
        listener(trial)
        listener(trial)
    assert listener.lost == 2 and capsys.readouterr().out.count("no server") == 1
