"""One setting for every layer, from mild to harsh: energy and drop of each, without a search.

python examples/04_uniform_sweep.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import hwc_onnx

SAMPLES = Path(__file__).parents[1] / "sample_models"
SETTINGS = ("w8a8", "w6a8", "w4a8", "w4a8,fine=magnitude:0.5", "w8a8,coarse=l1:0.25")


def main() -> None:
    """Apply each setting and print its energy against INT8 and its drop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default=SAMPLES / "resnet20.onnx")
    parser.add_argument("--data", default=SAMPLES / "fashion_mnist.npz")
    parser.add_argument("--settings", nargs="+", default=SETTINGS)
    arguments = parser.parse_args()

    baseline = hwc_onnx.profile(arguments.model, accelerator="edge-flex", data=str(arguments.data)).baseline
    for setting in arguments.settings:
        plan = hwc_onnx.uniform_plan(arguments.model, setting)
        applied = hwc_onnx.apply_plan(arguments.model, plan=plan, data=str(arguments.data))
        share = 100 * applied.cost.total / baseline.total
        print(f"{setting:28} {share:6.1f}% of INT8's energy, drop {applied.evaluation.drop_points:+.2f} points")


if __name__ == "__main__":
    main()
