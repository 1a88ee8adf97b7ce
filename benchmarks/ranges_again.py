"""Whether ranges measured anew in the compressed network are better than those of the original, cut to the channels left.

    python benchmarks/ranges_again.py                       # resnet20, 2 seeds
    python benchmarks/ranges_again.py --model vgg_small --seeds 3

Damage is the mean KL divergence of the class probabilities from the original's, times 1,000, on the first 2,048 search images,
the median over seeds. `stitched` repairs each layer by itself, `rebuilt` behind the compressed layers before it; `again` is the
same network with every activation range chosen from what 512 calibration images make of the compressed weights.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.reference import make_reference
from hwc_onnx.accuracy.splits import make_splits
from hwc_onnx.accuracy.tensors import run_tensors
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.candidate import assemble
from hwc_onnx.database import Stitched
from hwc_onnx.quantization.histogram import StreamingHistogram
from hwc_onnx.quantization.ranges import activation_params
from hwc_onnx.rebuild import rebuild
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import Calibrated, Opened, calibrate, open_float_model

SAMPLES = Path(__file__).parent.parent / "sample_models"
SETTINGS = ("w8a8,coarse=gram:0.5", "w4a4,coarse=gram:0.3", "w4a4", "w2a4,fine=obs:0.7")
IMAGES = 2048
SEEN = 512
COLUMNS = ("stitched", "again", "rebuilt", "again")


def with_ranges_again(made: Calibrated, stitched: Stitched, samples: Samples) -> Stitched:
    """The same weights with the range of every stored tensor chosen from its values behind them."""
    graph = made.graph
    weights_only = insert_qdq(
        stitched.float_model(made.proto, graph), graph, stitched.weights, {}, stitched.plan.dialect, "measure"
    )
    seen = {name: StreamingHistogram() for name in sorted(stitched.activations)}
    sizes = {name: int(np.prod(graph.tensors[name].shape)) for name in seen}
    for name, _, array in run_tensors(weights_only, samples, list(seen), sizes):
        seen[name].update(array.reshape(-1))
    found = {}
    for group in graph.activation_groups:
        names = [name for name in group.tensors if name in seen]
        if not names:
            continue
        histogram, old = seen[names[0]], stitched.activations[names[0]]
        for name in names[1:]:
            histogram = histogram.merge(seen[name])
        found.update(dict.fromkeys(names, activation_params(histogram, old.bits, "mse", old.signed)))
    return replace(stitched, activations=found)


def figures(opened: Opened, seed: int) -> Iterator[tuple[str, tuple[float, ...]]]:
    """(setting, damages by column) of one seed."""
    splits = make_splits(load_data(str(SAMPLES / "fashion_mnist.npz"), input_specs(opened.proto)), seed)
    reference = make_reference(opened.proto, splits.search.take(slice(0, IMAGES)))
    made = calibrate(opened, splits.calibration, seed=seed)
    used = splits.calibration.take(slice(0, SEEN))
    for spec in SETTINGS:
        plan = uniform(opened.graph, parse_spec(spec))
        ways = (made.stitch(plan), rebuild(made.proto, opened.graph, plan, made.database, splits.calibration))
        both = [one for way in ways for one in (way, with_ranges_again(made, way, used))]
        yield spec, tuple(measure(assemble(made.proto, opened.graph, one, "measure").proto, reference).damage for one in both)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Damage with activation ranges measured anew behind compressed weights.")
    parser.add_argument("--model", action="append")
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    print(f"damage x 1,000, medians over {args.seeds} seeds\n")
    print(f"{'model':18} {'setting':22}" + "".join(f"{name:>10}" for name in COLUMNS))
    for name in args.model or ["resnet20"]:
        opened = open_float_model(SAMPLES / f"{name}.onnx")
        seen: dict[str, list[tuple[float, ...]]] = {}
        for seed in range(args.seeds):
            for spec, damages in figures(opened, seed):
                seen.setdefault(spec, []).append(damages)
        for spec, rows in seen.items():
            medians = [1000 * statistics.median(values) for values in zip(*rows, strict=True)]
            print(f"{name:18} {spec:22}" + "".join(f"{value:10.3f}" for value in medians), flush=True)


if __name__ == "__main__":
    main()
