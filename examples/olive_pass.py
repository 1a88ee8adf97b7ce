"""hwc-onnx as a pass of Microsoft Olive: its place among Olive's passes, and a workflow that has only this one.

pip install olive-ai
python examples/olive_pass.py --trials 20

Writes olive_workflow.json and olive_package.json; other passes and evaluators are added to the first, and
`PYTHONPATH=examples olive run --config olive_workflow.json --package-config olive_package.json` runs it again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from olive.exception import OlivePassError
from olive.hardware import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.pass_config import BasePassConfig, PassConfigParam

import hwc_onnx

HERE = Path(__file__).parent
SAMPLES = HERE.parent / "sample_models"


class HwcCompress(Pass):
    """Give each layer the pruning and bit widths that cost an accelerator least energy within an accuracy limit."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        return {
            "data": PassConfigParam(type_=str, required=True, description="Samples, as `hwc-onnx compress --data` takes them."),
            "accelerator": PassConfigParam(type_=str, default_value="edge-flex", description="A name of `hwc-onnx accel list`, or a file."),
            "max_drop": PassConfigParam(type_=float, default_value=1.0, description="Points of accuracy that may be lost."),
            "trials": PassConfigParam(type_=int, default_value=200, description="Candidates to evaluate at most."),
            "options": PassConfigParam(type_=dict, default_value={}, description="Further options of hwc_onnx.compress."),
            "keep_missed": PassConfigParam(
                type_=bool, default_value=False, description="Hand on a model that misses the goal; else the pass fails."
            ),
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        output = Path(resolve_onnx_path(output_model_path, Path(model.model_path).name))
        run_dir = output.parent.parent / "hwc"  # beside the model's folder: what is in that, Olive copies to its output
        result = hwc_onnx.compress(
            model.model_path,
            output=output,
            run_dir=run_dir,
            data=config.data,
            accelerator=config.accelerator,
            max_drop=config.max_drop,
            trials=config.trials,
            **config.options,
        )
        if not result.goal_met and not config.keep_missed:
            raise OlivePassError(f"hwc-onnx: the goal was missed, see {run_dir / 'report.html'}; keep_missed hands the model on")
        for name in ("report.html", "result.json", "plan.json"):
            shutil.copy(run_dir / name, output.parent)
        low, high = result.evaluation.ci95
        found = {
            "drop_points": result.evaluation.drop_points,
            "drop_ci95": [low, high],
            "reduction_vs_int8": result.to_json()["reduction_vs_int8"],
            "goal_met": result.goal_met,
        }
        return ONNXModelHandler(
            model_path=str(output.parent),
            onnx_file_name=output.name,
            inference_settings=model.inference_settings,
            model_attributes={**(model.model_attributes or {}), "hwc_onnx": found},
        )


def package_config() -> dict[str, Any]:
    """Olive's own passes, and this one; its module has to be importable where Olive runs."""
    shipped: dict[str, Any] = json.loads(Path(OlivePackageConfig.get_default_config_path()).read_text(encoding="utf-8"))
    ours = {
        "module_path": "olive_pass.HwcCompress",
        "supported_providers": ["*"],
        "supported_accelerators": ["*"],
        "supported_precisions": ["*"],
    }
    return {**shipped, "passes": {**shipped["passes"], "HwcCompress": ours}}


def workflow(model: Path, folder: Path, **options: Any) -> dict[str, Any]:
    """A workflow with this pass alone."""
    return {
        "input_model": {"type": "ONNXModel", "model_path": str(model)},
        "passes": {"compress": {"type": "HwcCompress", **options}},
        "output_dir": str(folder / "output"),
        "cache_dir": str(folder / "cache"),
    }


def main() -> None:
    """Write both files, run them, and say what Olive handed back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, default=SAMPLES / "resnet20.onnx")
    parser.add_argument("--data", type=Path, default=SAMPLES / "fashion_mnist.npz")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--max-drop", type=float, default=1.0, help="points of accuracy that may be lost")
    parser.add_argument("--max-energy", type=float, help="share of the INT8 baseline's energy that may be used")
    parser.add_argument("--folder", type=Path, default=Path("example_olive"), help="where the files go")
    arguments = parser.parse_args()

    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    options = {} if arguments.max_energy is None else {"options": {"max_energy": arguments.max_energy}}
    files = {
        "olive_package.json": package_config(),
        "olive_workflow.json": workflow(
            arguments.model.resolve(),
            folder,
            data=str(arguments.data.resolve()),
            max_drop=arguments.max_drop,
            trials=arguments.trials,
            **options,
        ),
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    from olive.workflows import run

    sys.path.insert(0, str(HERE))
    found = run(folder / "olive_workflow.json", package_config=folder / "olive_package.json")
    best = found.get_best_candidate() if found.has_output_model() else None
    if best is None:
        print("Olive has no output model: the goal was missed, or the pass failed; the reason is in the log above")
        raise SystemExit(3)
    figures = best.model_config["model_attributes"]["hwc_onnx"]
    print(f"{best.model_path}: {100 * figures['reduction_vs_int8']:.1f}% less energy than INT8, drop {figures['drop_points']:+.2f} points")


if __name__ == "__main__":
    main()
