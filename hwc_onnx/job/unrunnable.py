"""A plan carried out on a model that cannot be run here: its weights are rounded, nothing is calibrated or measured.

Operators of foreign domains stay as they are. What needs no sample is possible all the same: rounding of weights, and
zeros or missing channels chosen from the weights alone. Stored tensors keep their 16 bits.
"""

from __future__ import annotations

from hwc_onnx.accuracy.collector import Calibration
from hwc_onnx.candidate import Candidate, build
from hwc_onnx.database import LayerDatabase
from hwc_onnx.errors import ModelError
from hwc_onnx.graph.layer_graph import FLOAT_BITS
from hwc_onnx.plan import CompressionPlan, group_bits
from hwc_onnx.pruning.table import WEIGHTS_ALONE
from hwc_onnx.workspace import Opened


def with_weights_rounded(opened: Opened, plan: CompressionPlan, recovery: str, obstacle: str) -> Candidate:
    """The candidate of `plan`, made without a run; `obstacle` says why there can be none.

    Raises:
        ModelError: the plan needs a run: quantized activations, a repair, or an algorithm that looks at inputs.
    """
    needs = []
    if any(bits < FLOAT_BITS for bits in group_bits(opened.graph, plan)):
        needs.append("activations below 16 bits")
    if recovery != "none":
        needs.append(f"recovery '{recovery}'")
    reading = {config.algorithm for config in plan.layers.values()} - WEIGHTS_ALONE
    needs += [f"algorithm '{name}'" for name in sorted(reading)]
    if needs:
        raise ModelError(
            f"{obstacle}, but the plan asks for {', '.join(needs)}; round the weights alone "
            '(--uniform "w8a16" --recovery none), cut the model around this operator, or give it as a local function'
        )
    database = LayerDatabase(
        opened.proto,
        opened.graph,
        Calibration({}, {}, 0),
        lanes=plan.lanes,
        recovery="none",
        portable=plan.portable,
        power_of_two=plan.calibration.power_of_two,
    )
    return build(opened.proto, opened.graph, database, plan)
