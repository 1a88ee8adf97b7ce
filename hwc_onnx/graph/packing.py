"""Integer tensors as the bytes of a file: INT8 one per byte, INT4 two per byte, low nibble first.

Packed bytes always go to `raw_data`: a list of integers is stored as varints and can exceed the float tensor.
Layout: ONNX specification of TensorProto, INT4 (onnx.proto, opset 21).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from hwc_onnx.graph.external import tensor_values

CONTAINER_BITS: Mapping[int, int] = MappingProxyType(
    {
        int(TensorProto.INT8): 8,
        int(TensorProto.UINT8): 8,
        int(TensorProto.INT4): 4,
        int(TensorProto.UINT4): 4,
        int(TensorProto.INT16): 16,
        int(TensorProto.UINT16): 16,
        int(TensorProto.INT32): 32,
    }
)
"""Width of each integer container that quantized tensors are found in."""

_STORED_AS: dict[int, np.dtype[Any]] = {
    int(TensorProto.INT16): np.dtype("<i2"),
    int(TensorProto.INT8): np.dtype(np.int8),
    int(TensorProto.INT4): np.dtype(np.int8),
}


def pack_int4(codes: NDArray[np.int8]) -> bytes:
    """Bytes of `codes` [any shape, -8..7], ceil(n / 2) of them."""
    flat = codes.reshape(-1)
    if flat.size % 2:
        flat = np.append(flat, np.int8(0))
    nibbles = flat.view(np.uint8) & np.uint8(15)
    packed: bytes = (nibbles[0::2] | (nibbles[1::2] << np.uint8(4))).tobytes()
    return packed


def integer_tensor(name: str, codes: NDArray[np.integer], data_type: int) -> TensorProto:
    """A TensorProto of INT16, INT8 or packed INT4 holding `codes`.

    Raises:
        ValueError: a code does not fit the container, or the container is another type.
    """
    values = checked_codes(name, codes, data_type)
    raw = pack_int4(values.astype(np.int8, copy=False)) if data_type == TensorProto.INT4 else values.tobytes()
    return TensorProto(name=name, data_type=data_type, dims=codes.shape, raw_data=raw)


def checked_codes(name: str, codes: NDArray[np.integer], data_type: int) -> NDArray[np.integer]:
    """`codes` as they are stored, packing apart; themselves where they already are (ValueError as for a tensor)."""
    if data_type not in _STORED_AS:
        raise ValueError(f"{name}: no packing for ONNX data type {data_type}")
    limit = 1 << (CONTAINER_BITS[data_type] - 1)
    holds = codes.dtype.kind == "i" and 8 * codes.itemsize <= CONTAINER_BITS[data_type]
    if not holds and codes.size and (codes.min() < -limit or codes.max() >= limit):
        raise ValueError(f"{name}: codes {codes.min()}..{codes.max()} do not fit {CONTAINER_BITS[data_type]} bits")
    stored: NDArray[np.integer] = np.asarray(codes, _STORED_AS[data_type], order="C")
    return stored


def integer_values(tensor: TensorProto) -> NDArray[np.int32]:
    """The integers of a quantized initializer of any container, as int32."""
    values: NDArray[np.int32] = tensor_values(tensor).astype(np.int32)
    return values


def codes_fit(codes: NDArray[np.integer], bits: int, axis: int | None) -> bool:
    """Whether every integer can be a `bits`-wide signed code.

    At 2 bits a channel may use -2..1 or its mirror -1..2 (one sign per channel), so `axis` names the channels.
    """
    if codes.size == 0:
        return True
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if codes.min() >= low and codes.max() <= high:
        return True
    if bits != 2 or axis is None:
        return False
    rows = np.moveaxis(codes, axis, 0).reshape(codes.shape[axis], -1)
    plain = (rows.min(axis=1) >= low) & (rows.max(axis=1) <= high)
    mirrored = (rows.min(axis=1) >= -high) & (rows.max(axis=1) <= -low)
    return bool(np.all(plain | mirrored))
