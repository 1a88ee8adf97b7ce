"""Log a compression to MLflow: options, a metric at each improvement, the figures of the result, the study, the report and the file.

pip install mlflow
python examples/mlflow_tracking.py --trials 20
mlflow ui --backend-store-uri sqlite:///mlflow.db
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import mlflow

import hwc_onnx
from hwc_onnx.events import Event, Note, TrialDone
from hwc_onnx.result import Result

SAMPLES = Path(__file__).parents[1] / "sample_models"
FILES = ("study.journal", "report.html", "result.json", "plan.json", "pareto.csv", "config.resolved.yaml")


class MlflowRun:
    """An `on_event` of `hwc_onnx.compress` that logs to the active run of MLflow.

    A listener must not raise, so a server that does not answer costs the metric and is said once, never the search.
    """

    def __init__(self) -> None:
        """Nothing was heard yet."""
        self.lost = 0
        self.warnings: list[str] = []

    def __call__(self, event: Event) -> None:
        """Log each improvement at its evaluation, and keep warnings for the end."""
        if isinstance(event, Note) and event.warning:
            self.warnings.append(event.text)
        if isinstance(event, TrialDone) and event.improved:
            found = {"energy_vs_int8": event.energy, "drop_points": event.drop_points, "seconds": event.seconds}
            self._keep(lambda: mlflow.log_metrics({f"search/{name}": value for name, value in found.items()}, step=event.evaluations))

    def _keep(self, log: Any) -> None:
        try:
            log()
        except Exception as error:  # whatever the store throws
            if not self.lost:
                print(f"MLflow: {error}; the search goes on, metrics may be missing")
            self.lost += 1

    def finish(self, result: Result, run_dir: Path, output: Path) -> None:
        """Log the result's figures, and the files that can be read again without this project."""
        payload = result.to_json()
        low, high = payload["metric"]["drop_ci95"] or (None, None)
        figures = {
            "result/drop_points": payload["metric"]["drop_points"],
            "result/drop_low95": low,
            "result/drop_high95": high,
            f"result/{payload['metric']['name']}": payload["metric"]["compressed"],
            "result/reduction_vs_int8": payload["reduction_vs_int8"],
            "result/reduction_vs_float": payload["reduction_vs_float"],
            "result/file_bytes": payload["output"]["file_bytes"],
            "result/goal_met": float(payload["goal_met"]),
        }
        mlflow.log_metrics({name: float(value) for name, value in figures.items() if value is not None})
        mlflow.set_tags({"hwc.output": payload["output"]["kind"], "hwc.exit_code": str(payload["exit_code"])})
        if self.warnings:
            mlflow.log_text("\n".join(self.warnings) + "\n", "run/warnings.txt")
        for file in (run_dir / name for name in FILES):
            if file.exists():
                mlflow.log_artifact(str(file), "run")
        mlflow.log_artifact(str(output), "model")


def compress(model: str | Path, *, folder: Path, **options: Any) -> Result:
    """`hwc_onnx.compress` as one run of MLflow, named after the model; the run is marked failed where the goal is missed."""
    output, run_dir = folder / f"{Path(model).stem}.hwc.onnx", folder / "run"
    with mlflow.start_run(run_name=Path(model).stem):
        mlflow.log_params({"model": Path(model).name, **options})
        listener = MlflowRun()
        result = hwc_onnx.compress(model, output=output, run_dir=run_dir, on_event=listener, **options)
        listener.finish(result, run_dir, output)
        if not result.goal_met:
            mlflow.end_run("FAILED")
    return result


def main() -> None:
    """Compress the sample network and say where to look."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, default=SAMPLES / "resnet20.onnx")
    parser.add_argument("--data", default=SAMPLES / "fashion_mnist.npz")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--max-drop", type=float, default=1.0, help="points of accuracy that may be lost")
    parser.add_argument("--max-energy", type=float, help="share of the INT8 baseline's energy that may be used")
    parser.add_argument("--store", default="sqlite:///mlflow.db", help="tracking store: sqlite:///FILE, or a server's address")
    parser.add_argument("--folder", type=Path, default=Path("example_mlflow"), help="where the files go")
    arguments = parser.parse_args()

    arguments.folder.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(arguments.store)
    mlflow.set_experiment("hwc-onnx")
    limits = {"max_drop": arguments.max_drop, "max_energy": arguments.max_energy}
    result = compress(
        arguments.model,
        folder=arguments.folder,
        data=str(arguments.data),
        accelerator="edge-flex",
        trials=arguments.trials,
        **{name: value for name, value in limits.items() if value is not None},
    )
    run = mlflow.last_active_run()
    print(f"goal {'met' if result.goal_met else 'NOT met'}; run {run.info.run_id if run else '?'} of {arguments.store}")
    raise SystemExit(result.exit_code)


if __name__ == "__main__":
    main()
