"""How images are normalised, read off the network that sees them, where nobody says so.

Networks are trained on pixels of 0..255, 0..1 or -1..1, or with the mean and spread of their training images. What
a network was trained on leaves a trace. The outputs of its layers, z = w x + b per channel, have a spread of about one
(batch normalization makes it so, and initialization and weight decay do), and means not far from zero in units of that
spread. With x a hundred times too small, all that is left of z is b; with x too large the first layers give out too
much, which wears off with depth. So made-up images are run under each preset. With s and t, medians over channels of
spread(z) and |mean(z)| / spread(z), of the layer that sees the images first, and D the deviation of ln s over L layers,

    score = (ln s)^2 / (2 ln(2)^2) + t^2 / 2 + min(L, 32) / 4 ln D

is minus the logarithm of how plausible a preset is, up to a constant (layers of one network resemble each other, hence
the 4). Presets less plausible than the best by `MARGIN` are left out, each other is for its share of the images.

The constants are those of 14 trained networks with known preparation: the four of `sample_models`, which
`benchmarks/synthetic.py` also prepares otherwise, EfficientNet-Lite0, and networks that three packages publish
(PP-OCRv4, NudeNet, ddddocr). Of these s lies between 0.35 and 3.8 and t below 1.3 under the right preset; one for 0..255
has s = 0.01 and t = 80 at -1..1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.inputs import InputSpec
from hwc_onnx.accuracy.presets import PRESETS, Preprocess
from hwc_onnx.accuracy.tensors import run_tensors
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import ModelError, RuntimeFailure
from hwc_onnx.graph.infer import declared_shapes
from hwc_onnx.graph.op_kinds import LAYER_OPS

NORMALISED = ("unit", "inception", "imagenet", "mnist")
"""Presets whose values have a spread of about one. Others (`cifar10`, `efficientnet-lite`) lie between these."""
RAW = ("raw", "caffe")
"""Presets whose values span a hundred and more."""
MARGIN = 2.5
SPREAD = math.log(2.0)
MOST_LAYERS, ALIKE = 32, 4
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0

Inputs = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Way:
    """A preset that images may come in: its name, what it does, and its plausibility as a share of 1."""

    name: str
    preset: Preprocess
    share: float

    @property
    def option(self) -> str:
        """What `--preset` takes to do the same."""
        if self.preset == PRESETS[self.name]:
            return self.name
        start = next(name for name in ("unit", "raw") if PRESETS[name].divide == self.preset.divide)
        return f"{start},mean={self.preset.mean[0]:.4g},std={self.preset.std[0]:.4g}"


def likely_presets(
    model: onnx.ModelProto | None, specs: Sequence[InputSpec], inputs: Inputs, name: str
) -> tuple[Way, ...]:
    """The presets of `NORMALISED`, or of `RAW`, under which the model behaves as trained networks do.

    Args:
        model: the normalised float model.
        specs: its inputs.
        inputs: some samples as the model lays them out, images as pixels.
        name: the input in question.

    All of `NORMALISED` alike where there is no model, or it cannot run.
    """
    presets = {one: for_channels(PRESETS[one], inputs[name].shape) for one in (*NORMALISED, *RAW)}
    # other images of the same model count as normalised in the middle of what is usual
    images = [spec.name for spec in specs if _has_pixels(spec, inputs[spec.name])]
    others = {image: for_channels(PRESETS["imagenet"], inputs[image].shape) for image in images}
    scores = dict.fromkeys(presets, math.inf)
    try:
        if model is not None:
            for one, preset in presets.items():
                fed = _prepared(specs, inputs, others | {name: preset})
                scores[one] = score(layer_statistics(model, specs, fed, name))
    except (RuntimeFailure, ModelError):
        scores = dict.fromkeys(presets, math.inf)
    normalised, raw = (min(scores[one] for one in family) for family in (NORMALISED, RAW))
    family, least = (RAW, raw) if raw + MARGIN < normalised else (NORMALISED, normalised)
    odds = {one: math.exp(least - scores[one]) if math.isfinite(least) else 1.0 for one in family if scores[one] <= least + MARGIN}
    return tuple(Way(one, presets[one], odd / sum(odds.values())) for one, odd in odds.items())


def taken_by(ways: Sequence[Way], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of the ways each image takes, by its number: any run of images has them about in proportion."""
    bounds = np.cumsum([way.share for way in ways])[:-1]
    # multiples of the golden ratio, modulo 1, are spread evenly however many there are
    return np.searchsorted(bounds, index * GOLDEN % 1.0, side="right").astype(np.int64)


def layer_statistics(
    model: onnx.ModelProto, specs: Sequence[InputSpec], inputs: Inputs, name: str
) -> list[tuple[float, float]]:
    """(s, t) of the layers that input `name` reaches, in order; what never varies has s = 0.

    Raises:
        RuntimeFailure: ONNX Runtime cannot run the model.
        ModelError: its shapes contradict each other.
    """
    layers = reached_layers(model, name)
    shapes = declared_shapes(model, {spec.name: _fed(spec, inputs[spec.name]) for spec in specs})
    sizes = {key: math.prod(shapes[key][0]) if key in shapes else 0 for key in layers}
    sums: dict[str, list[NDArray[np.float64]]] = {}
    for key, _, array in run_tensors(model, Samples(dict(inputs), None), list(layers), sizes):
        values = np.moveaxis(array, layers[key], 0).reshape(array.shape[layers[key]], -1).astype(np.float64)
        moments = np.stack([values.sum(axis=1), (values**2).sum(axis=1), np.full(len(values), values.shape[1])])
        sums.setdefault(key, []).append(moments)
    found = []
    for key in layers:
        total, square, count = np.sum(sums[key], axis=0) if key in sums else np.zeros((3, 1))
        mean = total / np.maximum(count, 1)
        spread = np.sqrt(np.maximum(square / np.maximum(count, 1) - mean**2, 0.0))
        alive = spread > 1e-3 * float(spread.max())
        typical = float(np.median(spread[alive])) if alive.any() else 0.0
        found.append((typical, float(np.median(np.abs(mean[alive]) / spread[alive])) if alive.any() else 0.0))
    return found


def reached_layers(model: onnx.ModelProto, name: str) -> dict[str, int]:
    """Outputs of the nodes with constant weights that input `name` reaches, in order, with their channel axis."""
    constants = {tensor.name for tensor in model.graph.initializer}
    reached, found = {name}, {}
    for node in model.graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            if node.op_type in LAYER_OPS and constants.intersection(node.input):
                found[node.output[0]] = 1 if node.op_type in ("Conv", "ConvTranspose") else -1
    return found


def score(seen: Sequence[tuple[float, float]]) -> float:
    """How little layers with these (s, t) look like those of a trained network, lower is better; infinite where none vary."""
    if not seen or not seen[0][0] > 0 or not all(math.isfinite(spread) for spread, _ in seen):
        return math.inf
    spread, offset = seen[0]
    logarithms = [math.log(typical) for typical, _ in seen if typical > 0]
    layers = min(len(logarithms), MOST_LAYERS)
    depth = layers / ALIKE * math.log(max(float(np.std(logarithms)), 0.01)) if layers >= ALIKE else 0.0
    return math.log(spread) ** 2 / (2 * SPREAD**2) + offset**2 / 2 + depth


def for_channels(preset: Preprocess, shape: tuple[int, ...]) -> Preprocess:
    """The preset for images [N, ...] of this shape: one number for all channels where theirs are not three."""
    width = max(len(preset.mean), len(preset.std))
    if width == 1 or shape[1] == width or shape[-1] == width:
        return preset
    return replace(preset, mean=(float(np.mean(preset.mean)),), std=(float(np.mean(preset.std)),))


def _prepared(specs: Sequence[InputSpec], inputs: Inputs, ways: Mapping[str, Preprocess]) -> Inputs:
    """The inputs as the model is fed: pixels normalised, the rest as it is."""
    return {
        spec.name: ways[spec.name].apply(inputs[spec.name].astype(np.uint8, copy=False), spec, "synthetic data")
        if _has_pixels(spec, inputs[spec.name])
        else inputs[spec.name]
        for spec in specs
    }


def _has_pixels(spec: InputSpec, array: NDArray[np.generic]) -> bool:
    return array.dtype == np.uint8 and spec.dtype.kind == "f"


def _fed(spec: InputSpec, array: NDArray[np.generic]) -> tuple[int, ...]:
    """The shape of one run's input."""
    return array.shape[1:] if spec.whole else (spec.shape[0] or 1, *array.shape[1:])
