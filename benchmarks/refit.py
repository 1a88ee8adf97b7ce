"""What refitting a plan layer after layer does to its damage, against entries of the layer database as they are.

    python benchmarks/refit.py [--model resnet20]

One uniform setting after the other, once stitched from the database and once refitted (hwc_onnx/rebuild.py), measured on
the search split. Damage is the mean KL divergence of the class probabilities from the original's; the last line is the
median ratio of damages.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.reference import make_reference
from hwc_onnx.accuracy.splits import make_splits
from hwc_onnx.candidate import assemble
from hwc_onnx.rebuild import rebuild
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import calibrate, open_float_model

SAMPLES = Path(__file__).parent.parent / "sample_models"
SETTINGS = ("w4a4", "w3a6", "w4a4,fine=obs:0.4", "w3a4,fine=obs:0.5", "w4a8,coarse=gram:0.25")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Damage of plans before and after refitting.")
    parser.add_argument("--model", default="resnet20")
    name = parser.parse_args().model
    opened = open_float_model(SAMPLES / f"{name}.onnx")
    data = load_data(str(SAMPLES / "fashion_mnist.npz"), input_specs(opened.proto))
    splits = make_splits(data)
    calibrated = calibrate(opened, splits.calibration, seed=0, repairs=())
    reference = make_reference(opened.proto, splits.search)
    print(
        f"{name}, {len(splits.search)} search images\n{'setting':<24} {'damage':>8} {'refitted':>9} {'drop':>7} {'refitted':>9}"
    )
    ratios = []
    for spec in SETTINGS:
        plan = uniform(opened.graph, parse_spec(spec))
        both = (
            calibrated.database.stitch(plan),
            rebuild(opened.proto, opened.graph, plan, calibrated.database, splits.calibration),
        )
        plain, refitted = (
            measure(assemble(opened.proto, opened.graph, one, "measure").proto, reference) for one in both
        )
        ratios.append(refitted.damage / plain.damage)
        print(
            f"{spec:<24} {plain.damage:>8.4f} {refitted.damage:>9.4f} {plain.drop_points:>+7.2f} {refitted.drop_points:>+9.2f}",
            flush=True,
        )
    print(f"damage refitted / damage, median: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
