"""Ways to go on from a rebuilt plan, for benchmarks/polish.py; each gives a network and its mean relative held-out error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from hwc_onnx import polish as polishing
from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.reference import make_reference
from hwc_onnx.accuracy.splits import make_splits
from hwc_onnx.accuracy.types import Evaluation
from hwc_onnx.candidate import assemble
from hwc_onnx.database import Stitched
from hwc_onnx.posing import Patches, Posed, Posing
from hwc_onnx.rebuild import rebuild
from hwc_onnx.recovery import rounding
from hwc_onnx.recovery.adaround import code_bounds
from hwc_onnx.recovery.rounding import Variant
from hwc_onnx.recovery.setting import RepairedRows
from hwc_onnx.uniform import parse_spec, uniform
from hwc_onnx.workspace import calibrate, open_float_model

SAMPLES = Path(__file__).parent.parent / "sample_models"
ITERATIONS, BATCH, STEP, WEIGHT = 600, 512, 0.01, 40.0
Range = tuple[float, float]
Made = tuple[Stitched, float]


class Case:
    """One model, setting and seed: the network as rebuilt, and the holdout that judges."""

    def __init__(self, model: str, setting: str, seed: int, holdout: int) -> None:
        opened = open_float_model(SAMPLES / f"{model}.onnx")
        data = load_data(str(SAMPLES / "fashion_mnist.npz"), input_specs(opened.proto))
        splits = make_splits(data, seed)
        calibrated = calibrate(opened, splits.calibration, seed=seed)
        self.graph, self.proto, self.database = opened.graph, calibrated.proto, calibrated.database
        self.samples = splits.calibration
        self.plan = uniform(opened.graph, parse_spec(setting))
        self.reference = make_reference(opened.proto, splits.holdout.take(slice(0, holdout)))
        self.rebuilt = rebuild(self.proto, self.graph, self.plan, self.database, self.samples)

    def measured(self, stitched: Stitched) -> Evaluation:
        """The network on the holdout."""
        return measure(assemble(self.proto, self.graph, stitched, "measure").proto, self.reference)

    def polished(self) -> Made:
        """The rebuilt network through hwc_onnx.polish, whatever is patched there."""
        stitched, layers = polishing.polished_layers(self.proto, self.graph, self.database, self.rebuilt, self.samples)
        return stitched, float(np.mean([layer.after for layer in layers]))

    def following(self) -> dict[str, Range]:
        """Range of the activation function that alone reads a layer's output, by layer."""
        constants = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        found: dict[str, Range] = {}
        for layer in self.graph.layers:
            readers = [node for node in self.proto.graph.node if layer.key in node.input]
            if len(readers) == 1 and readers[0].op_type == "Relu":
                found[layer.key] = 0.0, np.inf
            elif len(readers) == 1 and readers[0].op_type == "Clip":
                low, high = (float(numpy_helper.to_array(constants[name])) for name in readers[0].input[1:3])
                found[layer.key] = low, high
        return found


def rebuilt(case: Case) -> Made:
    """As it is."""
    with patch.object(polishing, "polished_rows", lambda *_: []):
        return case.rebuilt, case.polished()[1]


def descent(case: Case) -> Made:
    """Coordinate descent until no code moves, with the scale refitted in between."""

    def rows(problem: Any, start: Variant, low: Any, high: Any, keep: Any, settle: Any, free: bool) -> list[Variant]:
        for _ in range(10):
            start = rounding.polish(problem, start, keep, low, high, settle)
        return [start]

    with patch.object(polishing, "polished_rows", rows):
        return case.polished()


def quadratic(case: Case) -> Made:
    """AdaRound on moments."""
    return case.polished()


class PatchPosing(Posing):
    """Keeps the patches of the last layer that was posed: fitted and held out, original and compressed inputs."""

    seen: tuple[str, NDArray[np.float32], NDArray[np.float32]]

    def pairs(self, *args: Any) -> Iterator[tuple[Patches, Patches]]:
        """As of a `Posing`."""
        parts = []
        for pair in super().pairs(*args):
            parts.append([part.together() for part in pair])
            yield pair
        PatchPosing.seen = (args[0].key, *(np.concatenate(part, axis=1) for part in zip(*parts, strict=True)))


def activation(case: Case) -> Made:
    """AdaRound on moments, then on patches with the activation function."""
    plain, ranges = polishing.polished_layer, case.following()

    def layer(posed: Posed, bits: int, *rest: Any) -> tuple[RepairedRows, float]:
        rows, before = plain(posed, bits, *rest)
        key, fit, heldout = PatchPosing.seen
        if key in ranges and rows.bias is not None:
            rows = _with_activation(rows, posed, bits, ranges[key], fit, heldout)
        return rows, before

    with patch.object(polishing, "polished_layer", layer), patch.object(polishing, "Posing", PatchPosing):
        return case.polished()


def _with_activation(
    rows: RepairedRows, posed: Posed, bits: int, limits: Range, fit: NDArray[np.float32], heldout: NDArray[np.float32]
) -> RepairedRows:
    """Rows whose error behind the activation function is less on held-out patches take what is found."""
    assert rows.scale is not None and rows.bias is not None
    groups, count, width = rows.codes.shape
    whole = posed.rows[:, :, : -len(posed.columns)]
    bias = np.zeros(groups * count) if posed.bias is None else np.asarray(posed.bias, dtype=np.float64).reshape(-1)
    wanted = np.concatenate([whole, bias.reshape(groups, count, 1)], axis=2)

    def split(patches: NDArray[np.float32]) -> tuple[torch.Tensor, torch.Tensor]:
        ones = np.ones((*patches.shape[:2], 1), dtype=np.float32)
        outputs = np.concatenate([patches[:, :, :-width], ones], axis=2) @ wanted.transpose(0, 2, 1)
        return torch.tensor(patches[:, :, -width:]), torch.tensor(outputs.clip(*limits), dtype=torch.float32)

    def error(values: torch.Tensor, shift: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.bmm(x, values.transpose(1, 2)) + shift[:, None, :]
        return ((out.clamp(*limits) - y) ** 2).mean(1)

    (x, y), (held_x, held_y) = split(fit), split(heldout)
    codes = torch.tensor(rows.codes, dtype=torch.float32)
    scale = torch.tensor(rows.scale).reshape(groups, count, 1)
    shift = torch.tensor(rows.bias).reshape(groups, count)
    low, high = (torch.tensor(bound, dtype=torch.float32)[:, :, None] for bound in code_bounds(rows.codes, bits))
    start = error(codes * scale, shift, x, y).clamp_min(1e-12)
    target = torch.tensor(posed.prior, dtype=torch.float32) / scale
    floor = torch.minimum(torch.maximum(torch.where(target >= codes, codes, codes - 1), low), high - 1)
    v = torch.logit(((codes - floor).clamp(0.03, 0.97) + 0.1) / 1.2).requires_grad_(True)
    log_scale, moved = torch.zeros_like(scale, requires_grad=True), shift.clone().requires_grad_(True)
    rates = (v, STEP), (log_scale, STEP / 10), (moved, STEP / 10 * float(shift.std(unbiased=False) + 1e-3))
    adam = torch.optim.Adam([{"params": [tensor], "lr": rate} for tensor, rate in rates])
    random = torch.Generator().manual_seed(0)
    for number in range(ITERATIONS):
        h = (torch.sigmoid(v) * 1.2 - 0.1).clamp(0, 1)
        some = torch.randint(0, x.shape[1], (BATCH,), generator=random)
        loss = (error((floor + h) * scale * log_scale.exp(), moved, x[:, some], y[:, some]) / start).sum()
        done = (number / ITERATIONS - 0.2) / 0.8
        if done >= 0:
            beta = 2 + 9 * (1 + np.cos(np.pi * done))
            loss = loss + WEIGHT * (1 - (2 * h - 1).abs().pow(beta)).mean(2).sum()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    with torch.no_grad():
        found, new_scale = floor + (v >= 0), scale * log_scale.exp()
        better = error(found * new_scale, moved, held_x, held_y) < error(codes * scale, shift, held_x, held_y)
        kept = torch.where(better[:, :, None], found, codes).numpy().astype(np.int8)
        scales = torch.where(better, new_scale[:, :, 0], scale[:, :, 0]).numpy()
        return replace(rows, codes=kept, scale=scales, bias=torch.where(better, moved, shift).numpy().reshape(-1))


VARIANTS: dict[str, Callable[[Case], Made]] = {
    "rebuilt": rebuilt,
    "descent": descent,
    "quadratic": quadratic,
    "activation": activation,
}
