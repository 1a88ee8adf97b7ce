"""What is done on fewer samples, or not at all, for want of memory, in words for the user."""

from __future__ import annotations

import math
from collections.abc import Collection

from hwc_onnx.accuracy.collector import collectable
from hwc_onnx.accuracy.fewer import size
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.recovery.layout import layout_of
from hwc_onnx.recovery.statistics import WIDEST
from hwc_onnx.statistics_repair import BATCH_BYTES, FEWEST_SAMPLES, MOST_SAMPLES


def repair_notes(graph: LayerGraph, samples: int, repairs: Collection[str], recovery: str) -> list[str]:
    """What the repairs of a plan leave out.

    Args:
        graph: the layer graph.
        samples: calibration samples.
        repairs: those made across layers.
        recovery: "sequential" where layers are rebuilt one after the other.
    """
    notes = []
    each = 4 * max((math.prod(info.shape) for info in graph.tensors.values()), default=1)
    wanted, room = min(MOST_SAMPLES, samples), BATCH_BYTES // max(each, 1)
    if "statistics" in repairs and recovery in ("full", "sequential") and room < wanted:
        used = f"on {room} of {wanted} samples" if room >= FEWEST_SAMPLES else f"not ({FEWEST_SAMPLES} samples do not fit)"
        notes.append(
            f"memory: channel statistics are mended {used}, since the largest tensor takes {size(each)} a sample and one batch of "
            f"it at most {size(BATCH_BYTES)}"
        )
    if recovery == "sequential":
        wide = [layer.key for layer in graph.layers if collectable(layer) and 2 * layout_of(layer).width > WIDEST]
        if wide:
            notes.append(
                f"memory: {len(wide)} layers have more than {WIDEST // 2:,} inputs to each output ({wide[0]}); they are repaired "
                "each by itself, not behind the layers before them"
            )
    return notes
