"""Give your own data and metric by name, `module:function`; the module must be importable (here: this file's folder).

python examples/03_own_metric_and_data.py
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import hwc_onnx

HERE = Path(__file__).parent
SAMPLES = HERE.parent / "sample_models"


def main() -> None:
    """Measure a sample network with the loader and the metric of my_task.py."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default=SAMPLES / "resnet20.onnx")
    arguments = parser.parse_args()

    sys.path.insert(0, str(HERE))
    importlib.import_module("my_task")
    measured = hwc_onnx.evaluate(arguments.model, data="my_task:samples", metric="my_task:mean_class_accuracy")
    low, high = measured.ci95
    print(
        f"{measured.metric}: {measured.value:.4f} (95% interval {low:.4f} .. {high:.4f}) on {measured.n_samples} samples"
    )


if __name__ == "__main__":
    main()
