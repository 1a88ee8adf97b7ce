"""The share of a model's weights that hwc-onnx can prune structurally; the definition is in README.md."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from hwc_onnx.graph.layer_graph import FIXED, LayerGraph


def prunable_share(graph: LayerGraph) -> dict[str, Any]:
    """`weights` of all layers, and the `share` on an output or input channel that can be removed.

    `locked_weights` lists, by reason, the weights that are in no such group but in the locked one that says why.
    """
    shapes = {layer.weight: layer.weight_shape for layer in graph.layers if layer.weight is not None}
    free = {name: np.zeros(shape, dtype=np.bool_) for name, shape in shapes.items()}
    for group in graph.channel_groups:
        if group.locked_because is not None:
            continue
        # each part keeps one channel at least, fixed ones stay; the last entry is for positions of other groups
        sizes = group.part_sizes
        parts = group.parts or (0,) * group.channels
        can_go = np.asarray([part != FIXED and sizes[part] > 1 for part in parts] + [False])
        for member in group.members:
            if member.tensor in free:
                np.moveaxis(free[member.tensor], member.axis, 0)[can_go[np.asarray(member.index)]] = True
    total = sum(prod(shape) for shape in shapes.values())
    reasons: dict[str, int] = {}
    for layer in graph.layers:
        group = graph.group_of(layer.key)
        left = 0 if layer.weight is None else int((~free[layer.weight]).sum())
        if left and group is not None and group.locked_because:
            reasons[group.locked_because] = reasons.get(group.locked_because, 0) + left
    found = sum(int(mark.sum()) for mark in free.values())
    return {"weights": total, "share": found / total if total else 0.0, "locked_weights": reasons}
