"""Our side: one setting carried out by `apply_plan`, as a user would."""

from __future__ import annotations

from pathlib import Path

from recovery_peers.judge import Judge
from recovery_peers.settings import EVERYWHERE, INSIDE, Setting

import hwc_onnx
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.plan import CompressionPlan
from hwc_onnx.workspace import open_float_model

PLAIN = "none"
VARIANTS = (PLAIN, "alone", "full", "sequential")
"""What `--recovery` says, in the order of the columns; the first is the plain baseline, "alone" is full without the
repairs across layers, with the correction of biases."""


def plan_of(model: Path, setting: Setting, variant: str) -> CompressionPlan:
    """The plan of a row; under a scope, groups outside it keep their channels."""
    spec = setting.plain if variant == PLAIN and setting.plain else setting.spec
    plan = hwc_onnx.uniform_plan(model, spec)
    if setting.scope == EVERYWHERE:
        return plan
    return _within(plan, open_float_model(model).graph, setting.scope == INSIDE)


def _within(plan: CompressionPlan, graph: LayerGraph, inside: bool) -> CompressionPlan:
    layers = dict(plan.layers)
    for group in graph.channel_groups:
        if (len(group.producers) == 1) != inside:
            for key in group.producers:
                layers[key] = layers[key].model_copy(update={"algorithm": "none", "ratio": 0.0})
    return plan.model_copy(update={"layers": layers})


def write(judge: Judge, setting: Setting, variant: str, seed: int, out: Path) -> None:
    """Write the compressed model; the calibration samples are those that the peers get."""
    alone = variant == "alone"
    applied = hwc_onnx.apply_plan(
        judge.model,
        plan=plan_of(judge.model, setting, variant),
        data=judge.path,
        recovery="full" if alone else variant,
        repairs=("bias",) if alone else None,
        split_seed=seed,
    )
    digest = judge.calibration(seed)[1]
    if applied.plan.calibration.digest != digest:
        raise RuntimeError(f"{setting.name}: calibrated on other samples than the peers")
    applied.save(out)
