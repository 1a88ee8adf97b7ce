"""What the repairs beside fitting weights are worth: damage with each of them, with all, and rebuilt layer after layer.

    python benchmarks/repairs.py                          # every sample model, 3 seeds
    python benchmarks/repairs.py --model vgg_small --seeds 1

Uniform plans on the first 2,048 search images. Damage is the mean KL divergence of the class probabilities from the
original's, times 1,000, the median over seeds (a seed decides which images calibrate); the drop of top-1 in points is
beside it. Every column of a row uses the same calibration images; those with a plus have the bias correction too. The sample
models have no BatchNormalization left: benchmarks/batch_norms.py shows what mending these is worth.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.reference import make_reference
from hwc_onnx.accuracy.splits import make_splits
from hwc_onnx.candidate import assemble
from hwc_onnx.plan import REPAIRS
from hwc_onnx.rebuild import rebuild
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import Opened, calibrate, open_float_model

SAMPLES = Path(__file__).parent.parent / "sample_models"
MODELS = ("resnet20", "vgg_small", "mobilenetv2_small", "vit_tiny")
SETTINGS = ("w8a8", "w4a4", "w3a8", "w2a8", "w8a8,fine=obs:0.5", "w8a8,coarse=gram:0.3")
VARIANTS: dict[str, tuple[str, ...]] = {
    "none": (),
    "bias": ("bias",),
    "+ equalize": ("bias", "equalize"),
    "+ attention": ("bias", "attention"),
    "+ absorb": ("bias", "absorb"),
    "+ statistics": ("bias", "statistics"),
    "all": REPAIRS,
}
IMAGES = 2048


def figures(opened: Opened, seed: int) -> Iterator[tuple[str, str, float, float]]:
    """(setting, variant, damage, drop) of one seed."""
    splits = make_splits(load_data(str(SAMPLES / "fashion_mnist.npz"), input_specs(opened.proto)), seed)
    reference = make_reference(opened.proto, splits.search.take(slice(0, IMAGES)))
    for variant, repairs in VARIANTS.items():
        calibrated = calibrate(opened, splits.calibration, seed=seed, repairs=repairs)
        for spec in SETTINGS:
            plan = uniform(opened.graph, parse_spec(spec))
            found = measure(calibrated.candidate(plan, "measure").proto, reference)
            yield spec, variant, found.damage, found.drop_points
            if variant == "all":
                stitched = rebuild(calibrated.proto, opened.graph, plan, calibrated.database, splits.calibration)
                found = measure(assemble(calibrated.proto, opened.graph, stitched, "measure").proto, reference)
                yield spec, "rebuilt", found.damage, found.drop_points


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Damage of plans with and without the repairs across layers.")
    parser.add_argument("--model", action="append", choices=MODELS)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    columns = (*VARIANTS, "rebuilt")
    print(f"damage x 1,000 (points of top-1 lost), medians over {args.seeds} seeds\n")
    print(f"{'model':18} {'setting':22}" + "".join(f"{name:>18}" for name in columns))
    for name in args.model or MODELS:
        opened = open_float_model(SAMPLES / f"{name}.onnx")
        seen: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for seed in range(args.seeds):
            for spec, variant, damage, drop in figures(opened, seed):
                seen.setdefault((spec, variant), []).append((damage, drop))
        for spec in SETTINGS:
            cells = []
            for variant in columns:
                damage, drop = (statistics.median(values) for values in zip(*seen[spec, variant], strict=True))
                cells.append(f"{1000 * damage:.3f} ({drop:+.2f})")
            print(f"{name:18} {spec:22}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
