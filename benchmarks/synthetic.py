"""What made-up calibration samples are worth: damage on real images after calibrating on real ones, on ours, and on noise.

    python benchmarks/synthetic.py                          # every sample model, 3 seeds
    python benchmarks/synthetic.py --model vgg_small --seeds 1
    python benchmarks/synthetic.py --preparations           # the same networks, made for other normalisations

Uniform plans on the first 2,048 search images. Damage is the mean KL divergence of the class probabilities from the
original's, times 1,000, the median over seeds (a seed decides which images calibrate, and what is made up); the drop of
top-1 in points is beside it. All columns calibrate on as many samples as `apply` without `--data` does.

    real       images of the data set, which no measurement sees
    synthetic  what `apply` without `--data` calibrates on
    preset     the same images, normalised as --preset of the data set says
    uniform    white noise, uniform between -2 and 2
    Gaussian   white noise of variance 1
    weights    the synthetic images for ranges alone; weights are rounded (recovery none)

The repairs across layers are those that `apply` makes: with real images all, otherwise without "absorb".

With `--preparations` the first layer of each network takes up another normalisation, so that the network wants pixels of
0..255, 0..1, -1..1 and so on; what it computes from an image stays the same but for the padding. `guessed` are the presets
that the synthetic images come in.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.likely_presets import Way, for_channels
from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.pool import Data
from hwc_onnx.accuracy.presets import PRESETS
from hwc_onnx.accuracy.reference import Reference, make_reference
from hwc_onnx.accuracy.splits import make_splits
from hwc_onnx.accuracy.synthetic import served
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.plan import REPAIRS
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import Opened, calibrate, load_samples, open_float_model

SAMPLES = Path(__file__).parent.parent / "sample_models"
DATA = SAMPLES / "fashion_mnist.npz"
MODELS = ("resnet20", "vgg_small", "mobilenetv2_small", "vit_tiny")
SETTINGS = ("w8a8", "w4a8", "w4a4", "w8a8,fine=obs:0.5")
COLUMNS = ("real", "synthetic", "preset", "uniform", "Gaussian", "weights")
PREPARATIONS = ("unit", "inception", "imagenet", "mnist", "raw")
OWN = "fashion-mnist"
IMAGES = 2048

Figure = tuple[float, float]


def sources(opened: Opened, preset: str, seed: int) -> tuple[dict[str, Samples], Reference, Data]:
    """Calibration samples by column, real images to measure on, and the made-up samples."""
    specs = input_specs(opened.proto)
    made = load_samples("synthetic", opened.proto, None, None, seed=seed)
    synthetic = make_splits(made, seed).calibration
    real = make_splits(load_data(str(DATA), specs, preset=preset), seed)
    told = make_splits(load_samples("synthetic", opened.proto, preset, None, seed=seed), seed).calibration
    rng = np.random.default_rng([seed, 0x5E7])
    name, shape = specs[0].name, synthetic.inputs[specs[0].name].shape
    noises = {"uniform": rng.uniform(-2.0, 2.0, shape), "Gaussian": rng.standard_normal(shape)}
    noise = {column: Samples({name: values.astype(np.float32)}, None) for column, values in noises.items()}
    images = {"real": real.calibration.take(slice(0, len(synthetic))), "synthetic": synthetic, "preset": told}
    return images | noise | {"weights": synthetic}, make_reference(opened.proto, real.search.take(slice(0, IMAGES))), made


def figures(opened: Opened, samples: Samples, reference: Reference, seed: int, **options: Any) -> Iterator[Figure]:
    """(damage, drop) of every setting."""
    calibrated = calibrate(opened, samples, seed=seed, **options)
    for spec in SETTINGS:
        plan = uniform(opened.graph, parse_spec(spec))
        found = measure(calibrated.candidate(plan, "measure").proto, reference)
        yield found.damage, found.drop_points


def prepared(model: onnx.ModelProto, preset: str) -> onnx.ModelProto:
    """The network with a first layer that wants images as `preset` makes them."""
    old, new = PRESETS[OWN], PRESETS[preset]
    mean, std = (float(np.mean(values)) * new.divide / 255 for values in (new.mean, new.std))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    _, weight, bias = next(node for node in model.graph.node if node.op_type == "Conv").input
    w, b = (numpy_helper.to_array(tensors[name]).astype(np.float64) for name in (weight, bias))
    shift = (mean - old.mean[0]) / old.std[0]
    for name, values in ((weight, w * std / old.std[0]), (bias, b + shift * w.sum(axis=(1, 2, 3)))):
        tensors[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    return model


def run(label: str, opened: Opened, preset: str, columns: tuple[str, ...], seeds: int) -> str:
    """Print the rows of one network; the guessed presets."""
    seen: dict[tuple[str, str], list[Figure]] = {}
    guessed = ""
    for seed in range(seeds):
        samples, reference, made = sources(opened, preset, seed)
        guessed = made.notes[-1].partition("suggest ")[2].partition(":")[0]
        for column in columns:
            recovery, repairs = "none" if column == "weights" else "full", served(REPAIRS, column == "real")
            found = figures(opened, samples[column], reference, seed, recovery=recovery, repairs=repairs)
            for spec, figure in zip(SETTINGS, found, strict=True):
                seen.setdefault((spec, column), []).append(figure)
    for spec in SETTINGS:
        medians = [[statistics.median(v) for v in zip(*seen[spec, column], strict=True)] for column in columns]
        cells = [f"{1000 * damage:.2f} ({drop:+.2f})" for damage, drop in medians]
        print(f"{label:18} {spec:18}" + "".join(f"{cell:>17}" for cell in cells), flush=True)
    return guessed


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Damage of plans calibrated on real, made-up and random samples.")
    parser.add_argument("--model", action="append", choices=MODELS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--preparations", action="store_true", help="networks made for other normalisations")
    args = parser.parse_args()
    columns = ("real", "synthetic", "preset") if args.preparations else COLUMNS
    print(f"damage x 1,000 (points of top-1 lost), medians over {args.seeds} seeds\n")
    print(f"{'model':18} {'setting':18}" + "".join(f"{name:>17}" for name in columns))
    for name in args.model or MODELS:
        if not args.preparations:
            run(name, open_float_model(SAMPLES / f"{name}.onnx"), OWN, columns, args.seeds)
        for preset in PREPARATIONS if args.preparations else ():
            opened = open_float_model(prepared(onnx.load(SAMPLES / f"{name}.onnx"), preset))
            grey = Way(preset, for_channels(PRESETS[preset], (1, 1, 28, 28)), 1.0).option
            guessed = run(f"{name[:9]} {preset}"[:18], opened, grey, columns, args.seeds)
            print(f"{'':18} guessed: {guessed}", flush=True)


if __name__ == "__main__":
    main()
