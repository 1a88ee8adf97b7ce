"""How many samples to make up: as many as are useful, no more than one can wait for, no more than fit into memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx

from hwc_onnx.accuracy.inputs import InputSpec
from hwc_onnx.errors import ModelError
from hwc_onnx.graph.infer import declared_shapes
from hwc_onnx.graph.op_kinds import LAYER_OPS

SMALL_COUNT, LARGE_COUNT = 2048, 1024
"""Most samples: of at most `SMALL_ELEMENTS` numbers, and larger ones."""
SMALL_ELEMENTS = 3 * 64 * 64
FEWEST = 256
"""Fewest samples: with these each split has 64."""
MAC_BUDGET = 10**12
"""Multiply-accumulates of the model over all samples; a CPU core does a few 10^10 a second."""
SYNTHETIC_BYTES = 1 << 30
"""All made-up inputs together."""


def sample_count(specs: Sequence[InputSpec], model: onnx.ModelProto | None) -> tuple[int, str]:
    """How many samples to make up, and why fewer than usual (empty where as many as usual)."""
    elements = sum(math.prod(size or 1 for size in spec.shape[1:]) for spec in specs)
    most = SMALL_COUNT if elements <= SMALL_ELEMENTS else LARGE_COUNT
    room = SYNTHETIC_BYTES // max(sum(_bytes(spec) for spec in specs), 1)
    macs = macs_per_sample(model, specs) if model is not None else 0
    count = min(most, max(FEWEST, min(room, MAC_BUDGET // max(macs, 1))))
    if count == most:
        return count, ""
    if room < MAC_BUDGET // max(macs, 1):
        return count, f"{count:,} of {most:,} samples are made up: their inputs take {SYNTHETIC_BYTES >> 20:,} MiB then"
    return count, f"{count:,} of {most:,} samples are made up: each takes {macs / 1e9:.1f} billion multiply-accumulates"


def macs_per_sample(model: onnx.ModelProto, specs: Sequence[InputSpec]) -> int:
    """Multiply-accumulates of the model's layers for one sample; layers of unknown size count as none."""
    batch = max((spec.shape[0] or 1 for spec in specs if spec.shape and not spec.whole), default=1)
    try:
        shapes = declared_shapes(model, {spec.name: _fed(spec) for spec in specs})
    except ModelError:
        return 0
    total = 0
    for node in model.graph.node:
        if node.op_type not in LAYER_OPS or node.output[0] not in shapes or any(n not in shapes for n in node.input[:2]):
            continue
        left, weight, out = (shapes[name][0] for name in (node.input[0], node.input[1], node.output[0]))
        if node.op_type == "Conv":
            total += math.prod(out) * math.prod(weight[1:])
        elif node.op_type == "ConvTranspose":
            total += math.prod(left) * math.prod(weight[1:])
        else:
            turned = node.op_type == "Gemm" and any(entry.name == "transA" and entry.i for entry in node.attribute)
            total += math.prod(out) * left[-2 if turned else -1]
    return total // batch


def _fed(spec: InputSpec) -> tuple[int, ...]:
    """The shape of one run's input."""
    shape = tuple(size or 1 for size in spec.shape)
    return shape[1:] if spec.whole else shape


def _bytes(spec: InputSpec) -> int:
    """Of one made-up sample; images are held as pixels."""
    size = 1 if len(spec.shape) == 4 and spec.dtype.kind == "f" else spec.dtype.itemsize
    return size * math.prod(side or 1 for side in spec.shape[1:])
