"""How much a layer's error matters to the network: one strongly compressed layer at a time, measured for real.

A relative error at a layer's output moves the network's outputs by an amount that no local figure tells. One short
measurement per layer gives the factor; on few images and counted like everything else.
Source: per-layer sensitivity by perturbing one layer at a time, HAWQ-V3 (Yao et al., ICML 2021), section 3.
"""

from __future__ import annotations

import numpy as np

from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.plan import CompressionPlan, LayerConfig
from hwc_onnx.search.layer_table import LayerTable

AIM = 0.05
"""Relative output error that a probe aims for: far above rounding, far below collapse."""
LARGEST_PROBE = 192
SMALLEST_PROBE = 48
PROBE_BUDGET = 3072
"""Images for all probes together, where the limits per probe allow."""


def probe_size(layers: int) -> int:
    """Images per probe."""
    return int(np.clip(PROBE_BUDGET // max(layers, 1), SMALLEST_PROBE, LARGEST_PROBE))


def probe_plan(
    baseline: CompressionPlan, graph: LayerGraph, table: LayerTable, key: str
) -> tuple[CompressionPlan, float]:
    """The baseline with one layer strongly compressed, and how much relative output error that adds (0: no probe)."""
    if graph.layer(key).weight is None:
        return baseline, 0.0
    facts = {option: fact for option, fact in table.fine_options(key).items() if fact.exact}
    least = min(fact.error for fact in facts.values())
    option, fact = min(facts.items(), key=lambda item: abs(np.log(max(item[1].error - least, 1e-12) / AIM)))
    old = baseline.layers[key]
    config = LayerConfig(
        algorithm=option.algorithm,
        ratio=option.ratio,
        weight_bits=option.bits,
        activation_bits=old.activation_bits,
    )
    layers = {**baseline.layers, key: config}
    plan = baseline.model_copy(update={"layers": layers, "achieved": {}, "activation_density": {}})
    return plan, max(fact.error - least, 0.0)
