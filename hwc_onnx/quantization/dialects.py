"""Dialects: what the runtime that will open the written file accepts.

The rewrite asks the dialect which integer type holds a width and whether a narrower range needs a Clip; it never asks
for a runtime by name. Adding a runtime is adding one constant and one row of `DIALECTS`.
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
    """

    name: str
    description: str
    weight_types: Mapping[int, tuple[int, int]]
    fallback_types: Mapping[int, tuple[int, int]]
    activation_bits: tuple[int, ...]
    clip: bool
    zero_points: bool
    bias_headroom: float

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

DIALECTS: Mapping[str, Dialect] = MappingProxyType({"ort": ORT})


def get_dialect(name: str) -> Dialect:
    """The dialect of this name.

    Raises:
        UsageError: there is none; the message lists those that exist.
    """
    if name not in DIALECTS:
        known = sorted(DIALECTS)
        raise UsageError(f"unknown dialect '{name}'{nearest(name, known)}; choose from {', '.join(known)}")
    return DIALECTS[name]
