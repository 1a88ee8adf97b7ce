"""One model of the zoo through inspect, profile, channel removal and QDQ; called by `benchmarks/zoo.py`.

    python benchmarks/zoo/check.py MODEL [LAST_STEP]

Prints one JSON object per line: {"step": name, "seconds": s, "error": text or null} as each step ends, and the counts of
the layer graph after `inspect`. A step that fails does not stop the others, except where nothing can be read.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from share import prunable_share

import hwc_onnx
from hwc_onnx.accuracy.runner import open_session, run
from hwc_onnx.graph.layer_graph import FIXED, ChannelGroup, LayerGraph
from hwc_onnx.plan import CompressionPlan, LayerConfig, kept_of, width_fields
from hwc_onnx.rewrite.mask_channels import mask_channels
from hwc_onnx.rewrite.remove_channels import remove_channels
from hwc_onnx.workspace import load_samples, open_model

RATIO = 0.3
TOLERANCE = 1e-4
REMOVED = f"w16a16,coarse=l1:{RATIO}"
WIDTHS = range(2, 9)
LEVELS_AGREE = "levels compute the same"
DATA = "synthetic:256"
"""The fewest samples that can be split into calibration, search and holdout."""


def mixed(graph: LayerGraph, plan: CompressionPlan) -> CompressionPlan:
    """The plan with widths of 2 to 8 bits in turn: weights by layer, stored tensors by activation group."""
    layers = dict(plan.layers)
    for place, layer in enumerate(graph.layers):
        bits = WIDTHS[place % len(WIDTHS)]
        # a product of two activations keeps 8 until its operands' groups say otherwise
        update = {"weight_bits": bits if layer.weight is not None else 8, "activation_bits": 8}
        layers[layer.key] = layers[layer.key].model_copy(update=update)
    for place, group in enumerate(graph.activation_groups):
        bits = WIDTHS[(3 * place + 6) % len(WIDTHS)]
        for key in group.readers:
            update = dict.fromkeys(width_fields(graph.layer(key), group), bits)
            layers[key] = layers[key].model_copy(update=update)
    return plan.model_copy(update={"layers": layers, "first_last": "free"})


def some(group: ChannelGroup, rng: np.random.Generator) -> NDArray[np.int64]:
    """A random 70 % of a group's channels, the share of each of its parts from that part."""
    parts = np.asarray(group.parts or (0,) * group.channels)
    counts = group.kept_of_parts(kept_of(group, RATIO))
    chosen = [rng.choice(np.flatnonzero(parts == part), count, replace=False) for part, count in enumerate(counts)]
    chosen.append(np.flatnonzero(parts == FIXED))
    return np.sort(np.concatenate(chosen))


def compare_masked(path: Path) -> None:
    """Raise unless the model without 30 % of its channels computes what it computes with them set to zero."""
    opened = open_model(path)
    rng = np.random.default_rng(1)
    keep = {group.root: some(group, rng) for group in opened.graph.channel_groups if group.locked_because is None}
    samples = load_samples("synthetic:4", opened.proto, None, None).pool.samples()
    found = run(open_session(remove_channels(opened.proto, opened.graph, keep)), samples)
    expected = run(open_session(mask_channels(opened.proto, opened.graph, keep)), samples)
    for name, values in expected.items():
        scale = float(np.abs(values).max()) or 1.0
        worst = float(np.abs(found[name].astype(np.float64) - values).max()) / scale
        if not worst <= TOLERANCE:
            raise ArithmeticError(f"masked differs from removed by {worst:.2g} of the largest magnitude of '{name}'")


def apply(path: Path, plan: CompressionPlan, quantized: bool) -> str | None:
    """Raise unless the plan is carried out and the file passes every check of `verify`, at all four levels.

    At 2 to 8 bits and with random weights, a value that rounds the other way at one level can change every output, so
    that for quantized files a difference between levels is a remark.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "compressed.onnx"
        hwc_onnx.apply_plan(path, plan=plan, data=DATA, recovery="none").save(target)
        report = hwc_onnx.verify(target, against=path, accelerator=None)
    failed = {check.name: check.found[:300] for check in report.checks if not check.passed}
    remark = failed.pop(LEVELS_AGREE, None) if quantized else None
    if failed:
        raise RuntimeError("; ".join(f"{name}: {found}" for name, found in failed.items()))
    return remark


class Steps:
    """Runs steps, prints what came of each, and keeps going."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}

    def __call__(self, step: str, do: Callable[[], Any]) -> bool:
        """Whether the step went well; its result is kept."""
        started, error, where = time.perf_counter(), None, None
        try:
            self.results[step] = do()
        except Exception as raised:  # the error is what this program reports
            error = f"{type(raised).__name__}: {raised}"[:600]
            where = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in _frames(raised)]
        line: dict[str, Any] = {
            "step": step,
            "seconds": round(time.perf_counter() - started, 2),
            "error": error,
            "where": where,
        }
        if isinstance(self.results.get(step), str):
            line["remark"] = self.results[step]
        print(json.dumps(line), flush=True)
        return error is None


def _frames(error: Exception) -> list[traceback.FrameSummary]:
    return traceback.extract_tb(error.__traceback__)[-4:]


def main() -> None:
    """Command line."""
    path, steps = Path(sys.argv[1]), Steps()
    if not steps("inspect", lambda: hwc_onnx.inspect(path)):
        return
    graph: LayerGraph = steps.results["inspect"]
    counts = {
        "nodes": len(graph.nodes),
        "layers": len(graph.layers),
        "groups": len(graph.channel_groups),
        "locked": [group.locked_because for group in graph.channel_groups if group.locked_because],
        "unmodelled": [list(entry) for entry in graph.unmodelled],
    }
    print(json.dumps(counts | prunable_share(graph)), flush=True)
    removed = hwc_onnx.uniform_plan(path, REMOVED)
    plain = CompressionPlan(source_digest=graph.source_digest, layers={key: LayerConfig() for key in removed.layers})
    for step, do in {
        "profile": lambda: hwc_onnx.profile(path),
        "masked": lambda: compare_masked(path),
        "remove": lambda: apply(path, removed, quantized=False),
        "qdq": lambda: apply(path, mixed(graph, plain), quantized=True),
        "both": lambda: apply(path, mixed(graph, removed), quantized=True),
    }.items():
        steps(step, do)
        if sys.argv[2:] == [step]:
            break


if __name__ == "__main__":
    main()
