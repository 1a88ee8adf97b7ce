"""Dialects: what the runtime that will open the written file accepts.

The rewrite asks the dialect which integer type holds a width and whether a narrower range needs a Clip; it never asks
for a runtime by name. Adding a runtime is adding one constant and one row of `DIALECTS`. What each runtime was seen or
published to accept, with sources: docs/dialects.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from onnx import TensorProto

from hwc_onnx.errors import UsageError
from hwc_onnx.plugins import nearest


@dataclass(frozen=True)
class Dialect:
    """What one runtime accepts.

    `weight_types` maps a weight width to (ONNX data type, opset that carries it), `fallback_types` the same for use
    when the opset of the model cannot be raised that far. Activations lie in an 8-bit container, unsigned unless the
    parameters are signed; `clip` says that a narrower activation is limited by a Clip on the integers, between
    QuantizeLinear and DequantizeLinear. `zero_points` says whether an activation zero point other than 0 is allowed.
    `bias_headroom` bounds |bias| / (input scale * weight scale): beyond it the runtime's INT32 bias would overflow.

    `clip_weights` says that a weight narrower than its container passes a Clip too, so that the graph alone tells its
    width. `wide_weights` says that a weight left at 16 bits behind a quantized input can be stored as INT16.
    `wide_left_weights` says that a weight on the left of a MatMul is stored as INT16 whatever its width.
    `block_sizes` are the sizes of the blocks that share a scale in the 3 or 4-bit weight of a matrix product whose input
    stays in float; without any, it is stored like other weights.
    `quant_nodes` says that quantizers are written as QONNX Quant nodes, which ONNX Runtime does not have. `measured` tells
    the user how a file of this dialect was measured, where that is not ONNX Runtime opening what it is written for.
    """

    name: str
    description: str
    weight_types: Mapping[int, tuple[int, int]]
    fallback_types: Mapping[int, tuple[int, int]]
    activation_bits: tuple[int, ...]
    clip: bool
    zero_points: bool
    bias_headroom: float
    clip_weights: bool = False
    wide_weights: bool = True
    wide_left_weights: bool = False
    block_sizes: tuple[int, ...] = ()
    quant_nodes: bool = False
    measured: str = ""

    @property
    def stored_bits(self) -> Mapping[int, int]:
        """Bits that the file takes for a weight of each width; none for Quant nodes, which store real numbers."""
        if self.quant_nodes:
            return {}
        return {bits: 4 if kind in (TensorProto.INT4, TensorProto.UINT4) else 8 for bits, (kind, _) in self.weight_types.items()}

    @property
    def weight_bits(self) -> tuple[int, ...]:
        """Weight widths that can be written."""
        return tuple(sorted(self.weight_types))


_BYTE = (int(TensorProto.INT8), 13)
_NIBBLE = (int(TensorProto.INT4), 21)

ORT = Dialect(
    name="ort",
    description="ONNX Runtime: packed INT4 weights up to 4 bits, INT8 above; 8-bit activations, a Clip below 8 bits",
    weight_types=MappingProxyType({bits: _NIBBLE if bits <= 4 else _BYTE for bits in range(2, 9)}),
    fallback_types=MappingProxyType({bits: _BYTE for bits in range(2, 9)}),
    activation_bits=tuple(range(2, 9)),
    clip=True,
    zero_points=True,
    bias_headroom=float(2**30),
)

_BYTES = MappingProxyType({bits: _BYTE for bits in range(2, 9)})

OPENVINO = Dialect(
    name="openvino",
    description="OpenVINO: INT8 weights of every width, so that layers run on integers; 8-bit activations, a Clip below 8 bits",
    weight_types=_BYTES,
    fallback_types=_BYTES,
    activation_bits=tuple(range(2, 9)),
    clip=True,
    zero_points=True,
    bias_headroom=float(2**30),
    wide_left_weights=True,
    measured="accuracy is measured with ONNX Runtime, which opens the same file; verify runs it in OpenVINO where that is "
    "installed",
)

QCDQ = Dialect(
    name="qcdq",
    description="QuantizeLinear, Clip, DequantizeLinear as Brevitas exports them: 8-bit containers, a Clip on every narrow tensor",
    weight_types=_BYTES,
    fallback_types=_BYTES,
    activation_bits=tuple(range(2, 9)),
    clip=True,
    zero_points=True,
    bias_headroom=float(2**30),
    clip_weights=True,
)

QONNX = Dialect(
    name="qonnx",
    description="QONNX: one Quant node for each quantized tensor, of any width; for FINN, hls4ml and the qonnx package",
    weight_types=_BYTES,
    fallback_types=_BYTES,
    activation_bits=tuple(range(2, 9)),
    clip=True,
    zero_points=True,
    bias_headroom=float(2**30),
    quant_nodes=True,
    measured="ONNX Runtime has no Quant nodes: accuracy is measured on the same integers as QuantizeLinear, Clip and "
    "DequantizeLinear, and the Quant nodes are read back and compared with them, integer by integer; verify runs them in the "
    "qonnx package where that is installed",
)

TENSORRT = Dialect(
    name="tensorrt",
    description="TensorRT: symmetric INT8, zero point 0, 8-bit activations; 3 and 4-bit weights in INT4 blocks where activations stay in float",
    weight_types=_BYTES,
    fallback_types=_BYTES,
    activation_bits=(8,),
    clip=False,
    zero_points=False,
    bias_headroom=float(2**30),
    wide_weights=False,
    block_sizes=(128, 64),
    measured="accuracy is measured with ONNX Runtime, which opens the same file; TensorRT itself is not run, verify "
    "checks its published rules on the file's structure",
)

DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {dialect.name: dialect for dialect in (ORT, OPENVINO, QCDQ, QONNX, TENSORRT)}
)

DIALECT_KEY = "hwc.dialect"
"""Metadata: the dialect that a file was written in; a file without it is in dialect `ort`."""


def get_dialect(name: str) -> Dialect:
    """The dialect of this name.

    Raises:
        UsageError: there is none; the message lists those that exist.
    """
    if name not in DIALECTS:
        known = sorted(DIALECTS)
        raise UsageError(f"unknown dialect '{name}'{nearest(name, known)}; choose from {', '.join(known)}")
    return DIALECTS[name]
