"""What one candidate evaluation costs, against running the float model.

    python benchmarks/evaluation_speed.py [--model resnet20] [--candidates 10]

Both in one run on the same images (as many as a search has) with the same threads: the float model's `session.run` on a
session that is already open, and a whole evaluation (stitching, channel statistics, rewriting, session creation, forwards,
metric, interval). Database entries are built beforehand and reported apart. Prints the ratio of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.reference import make_reference
from hwc_onnx.accuracy.runner import open_session, run
from hwc_onnx.accuracy.splits import make_splits
from hwc_onnx.candidate import assemble
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import calibrate, open_float_model

SAMPLES = Path(__file__).parent.parent / "sample_models"
SETTINGS = ("w8a8", "w4a8", "w4a4", "w3a6", "w4a8,fine=obs:0.5", "w4a4,fine=obs:0.7", "w8a8,coarse=reconstruct:0.25")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Time one candidate evaluation against the float model.")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--images", type=int, default=4096, help="search images (fewer where there are fewer)")
    args = parser.parse_args()
    opened = open_float_model(SAMPLES / f"{args.model}.onnx")
    data = load_data(str(SAMPLES / "fashion_mnist.npz"), input_specs(opened.proto))
    splits = make_splits(data, search=args.images)
    calibrated = calibrate(opened, splits.calibration, seed=0)
    reference = make_reference(opened.proto, splits.search)
    plans = [uniform(opened.graph, parse_spec(SETTINGS[i % len(SETTINGS)])) for i in range(args.candidates)]
    started = time.perf_counter()
    for plan in plans:
        calibrated.stitch(plan)
    entries = time.perf_counter() - started
    session = open_session(opened.proto)
    run(session, splits.search)
    floats, candidates, repairs = [], [], []
    for plan in plans:
        started = time.perf_counter()
        run(session, splits.search)
        floats.append(time.perf_counter() - started)
        started = time.perf_counter()
        stitched = calibrated.stitch(plan)
        repairs.append(time.perf_counter() - started)
        measure(assemble(calibrated.proto, opened.graph, stitched, "measure").proto, reference)
        candidates.append(time.perf_counter() - started)
    ratio = statistics.median(candidates) / statistics.median(floats)
    spread = np.percentile(np.array(candidates) / np.array(floats), [0, 100])
    print(f"{args.model}: {len(splits.search)} images, {session.threads} threads, {args.candidates} candidates")
    print(f"float session.run      median {statistics.median(floats):.3f} s")
    print(f"candidate evaluation   median {statistics.median(candidates):.3f} s")
    print(f"of which stitching and channel statistics {statistics.median(repairs):.3f} s")
    print(f"ratio of medians       {ratio:.2f} (single pairs {spread[0]:.2f} to {spread[1]:.2f})")
    print(f"database entries for all candidates, built beforehand: {entries:.1f} s")


if __name__ == "__main__":
    main()
