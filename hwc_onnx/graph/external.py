"""Weights that lie outside the protobuf message: confined to the model's folder, and mapped into memory, not read.

A tensor of a large model keeps `data_location = EXTERNAL`, but its location is a key that only this module hands out:
a file beside or below the model whose path and extent were checked, or the unnamed temporary file that takes what
rewrites make. `tensor_values` gives the values of either kind; pages are read when they are touched and can be dropped
by the operating system at any time, so they never count as memory in use.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hwc_onnx.errors import ModelError

PACKED_BITS: dict[int, int] = {
    TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.FLOAT4E2M1: 4, TensorProto.INT2: 2, TensorProto.UINT2: 2,
}  # fmt: skip
"""Types with several elements in one byte."""

BLOCK_BYTES = 64 << 20
"""Large tensors are read, checked and scaled this many bytes at a time."""

SPILL_BYTES = 16 << 20
"""Arrays of a mapped model below this size are kept in the message; larger ones go to the temporary file."""

PAGE = 4096
"""Tensors in a file start at multiples of this, so that they can be mapped."""

_SCRATCH = "scratch"
_files: dict[str, str | IO[bytes]] = {}


def stored_bytes(tensor: TensorProto) -> int:
    """Bytes that the elements take, by type and shape.

    Raises:
        ModelError: a negative size, a type that does not exist or strings.
    """
    count = 1
    for size in tensor.dims:
        if size < 0:
            raise ModelError(f"tensor '{tensor.name}': shape {_shape(tensor)} has a negative size; export the model again")
        count *= int(size)
    bits = PACKED_BITS.get(tensor.data_type)
    if bits is not None:
        return (count * bits + 7) // 8
    try:
        width = int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"tensor '{tensor.name}': element type {tensor.data_type} is not one of ONNX; export the model again"
        ) from error
    return count * width


def _shape(tensor: TensorProto) -> str:
    return "x".join(map(str, tensor.dims)) or "scalar"


def locate(tensor: TensorProto, model: Path) -> tuple[Path, int, int]:
    """(file, offset, bytes) of a tensor's external data, checked against the file system and the tensor's shape.

    Raises:
        ModelError: outside the model's folder (`..`, absolute, a link that leads out), no regular file, offsets that are
            no numbers, or a file that is too short.
    """
    facts = {entry.key: entry.value for entry in tensor.external_data}
    name = facts.get("location", "")
    what = f"{model}: external data of tensor '{tensor.name}'"
    folder = model.resolve().parent
    # an empty name is the folder itself, and a zero byte ends a path for the operating system
    target = (folder / name.partition("\0")[0]).resolve()
    if not name or "\0" in name or Path(name).is_absolute() or not target.is_relative_to(folder):
        raise ModelError(
            f"{what} lies outside the model's folder ({name!r}); only files beside or below the model are read: move it there"
        )
    if not target.is_file():
        raise ModelError(f"{what}: file '{name}' is missing or no regular file; keep it beside the model")
    needed = stored_bytes(tensor)
    try:
        offset, length = int(facts.get("offset") or 0), int(facts.get("length") or needed)
    except ValueError as error:
        raise ModelError(f"{what}: offset and length must be whole numbers ({error}); export the model again") from error
    if offset < 0 or length != needed:
        raise ModelError(
            f"{what}: offset {offset} and length {length}, but shape {_shape(tensor)} takes {needed} bytes; "
            "export the model again"
        )
    available = target.stat().st_size
    if offset + length > available:
        raise ModelError(
            f"{what}: file '{name}' is truncated: the tensor ends at byte {offset + length}, the file at {available}; "
            "copy it again"
        )
    return target, offset, length


def embed(tensor: TensorProto, model: Path) -> None:
    """Read external data into the message."""
    target, offset, length = locate(tensor, model)
    try:
        with open(target, "rb") as file:
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        raise ModelError(f"{target}: cannot be read ({error.strerror}); make it readable") from error
    if len(data) != length:
        raise ModelError(f"{target}: became shorter while it was read; copy it again")
    tensor.raw_data = data
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT


def map_file(tensor: TensorProto, model: Path) -> None:
    """Leave external data where they are, to be mapped when they are asked for."""
    target, offset, length = locate(tensor, model)
    key = f"file:{target}"
    _files[key] = str(target)
    _refer(tensor, key, offset, length)


def is_mapped(tensor: TensorProto) -> bool:
    """Whether the values lie outside the message."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def is_large(tensor: TensorProto) -> bool:
    """Whether the values are mapped, or would be if they were not packed."""
    return is_mapped(tensor) or (tensor.data_type in PACKED_BITS and len(tensor.raw_data) >= SPILL_BYTES)


def any_mapped(proto: onnx.ModelProto) -> bool:
    """Whether some initializer lies outside the message: the model is treated as a large one."""
    return any(is_mapped(tensor) for tensor in proto.graph.initializer)


def tensor_values(tensor: TensorProto) -> NDArray[Any]:
    """The elements; of a mapped tensor, a read-only view of the file.

    Raises:
        ModelError: external data that did not come through this module.
    """
    if not is_mapped(tensor):
        return numpy_helper.to_array(tensor)
    facts = {entry.key: entry.value for entry in tensor.external_data}
    source = _files.get(facts.get("location", ""))
    if source is None:
        raise ModelError(f"tensor '{tensor.name}': external data can only be found from a file; give the model's path")
    shape, dtype = tuple(tensor.dims), helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if 0 in shape:
        return np.zeros(shape, dtype)
    assert tensor.data_type not in PACKED_BITS, f"{tensor.name}: packed elements are never mapped"
    try:
        return np.memmap(source, dtype, "r", int(facts["offset"]), shape)
    except (OSError, ValueError) as error:
        raise ModelError(f"tensor '{tensor.name}': its external data can no longer be read ({error}); leave the file in place meanwhile") from error


def lies_in_file(values: NDArray[Any]) -> bool:
    """Whether an array is a view of a mapped file."""
    base: Any = values
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def mapped_feeds(proto: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Values of the mapped initializers by name."""
    return {tensor.name: tensor_values(tensor) for tensor in proto.graph.initializer if is_mapped(tensor)}


def without_mapped(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with mapped initializers as inputs (itself when there are none).

    ONNX Runtime copies initializers when a session opens, but reads inputs where they are.
    """
    mapped = [tensor for tensor in proto.graph.initializer if is_mapped(tensor)]
    if not mapped:
        return proto
    light = without_initializers(proto, {tensor.name for tensor in mapped})
    declare(light, mapped)
    return light


def without_initializers(proto: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """A copy that lacks these initializers, whose values are not copied on the way."""
    light = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _take(light, field.name, value)
    for field, value in proto.graph.ListFields():
        kept = [tensor for tensor in value if tensor.name not in names] if field.name == "initializer" else value
        _take(light.graph, field.name, kept)
    return light


def _take(message: Any, field: str, value: Any) -> None:
    """Set one field of a message: a number, a text, or a list of messages."""
    if isinstance(value, int | str):
        setattr(message, field, value)
    elif hasattr(value, "__len__"):
        getattr(message, field).extend(value)
    else:
        getattr(message, field).CopyFrom(value)


def declare(proto: onnx.ModelProto, tensors: Sequence[TensorProto]) -> None:
    """Make these tensors inputs of the model, in place."""
    declared = {value.name for value in proto.graph.input}
    proto.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in tensors
        if tensor.name not in declared
    )
    proto.ir_version = max(proto.ir_version, 4)


def stored_blocks(tensor: TensorProto) -> Iterator[Any]:
    """The stored bytes, in pieces that do not fill the memory."""
    if not is_mapped(tensor):
        yield tensor.raw_data
        return
    flat = tensor_values(tensor).reshape(-1).view(np.uint8)
    for start in range(0, flat.size, BLOCK_BYTES):
        yield np.array(flat[start : start + BLOCK_BYTES]).data


def outside(tensor: TensorProto, location: str, offset: int, length: int) -> TensorProto:
    """The same tensor with its values in a file beside the model."""
    stored = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, doc_string=tensor.doc_string)
    _refer(stored, location, offset, length)
    return stored


def spill(name: str, values: NDArray[Any]) -> TensorProto:
    """A mapped tensor with these values, which are written to the temporary file."""
    values = np.asarray(values, order="C")
    flat = values.reshape(-1)
    step = max(1, BLOCK_BYTES // max(values.itemsize, 1))
    blocks = (flat[start : start + step] for start in range(0, flat.size, step))
    return spill_blocks(name, values.shape, helper.np_dtype_to_tensor_dtype(values.dtype), blocks)


def spill_blocks(name: str, shape: tuple[int, ...], data_type: int, blocks: Iterator[NDArray[Any]]) -> TensorProto:
    """As `spill`, for values that come block by block in C order, so that they are never in memory all at once.

    Raises:
        ModelError: the disk is full.
    """
    tensor = TensorProto(name=name, data_type=data_type, dims=shape)
    file = _scratch()
    try:
        start = -(-file.seek(0, os.SEEK_END) // PAGE) * PAGE
        file.seek(start)
        for block in blocks:
            file.write(np.ascontiguousarray(block).view(np.uint8).data)
        file.flush()
    except OSError as error:
        raise ModelError(
            f"tensor '{name}': the temporary file in {tempfile.gettempdir()} cannot take it ({error.strerror}); "
            "point TMPDIR to a disk with as much free space as the model takes in float32"
        ) from error
    written = file.tell() - start
    assert written == stored_bytes(tensor), f"{name}: {written} bytes written for shape {shape}"
    _refer(tensor, _SCRATCH, start, written)
    return tensor


def keep(name: str, values: NDArray[Any], large: bool) -> TensorProto:
    """An initializer: in the message, or, for a large array of a `large` model, in the temporary file."""
    if large and values.nbytes >= SPILL_BYTES:
        return spill(name, values)
    return numpy_helper.from_array(np.asarray(values, order="C"), name)


def map_blocks(
    values: NDArray[Any], change: Callable[[NDArray[Any], slice], NDArray[Any]]
) -> Iterator[NDArray[Any]]:
    """`change(values[rows], rows)` for consecutive rows along the first axis, about BLOCK_BYTES at a time."""
    rows = max(1, BLOCK_BYTES // max(values.nbytes // max(len(values), 1), 1))
    for start in range(0, len(values), rows):
        part = slice(start, min(start + rows, len(values)))
        yield change(values[part], part)


def _scratch() -> IO[bytes]:
    """The temporary file of this process. It has no name, so nothing remains of it however the process ends."""
    found = _files.get(_SCRATCH)
    if found is None or isinstance(found, str):
        found = tempfile.TemporaryFile(prefix="hwc-onnx-")
        _files[_SCRATCH] = found
    return found


def _refer(tensor: TensorProto, key: str, offset: int, length: int) -> None:
    """Point a tensor to a checked extent of a known file."""
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    for field, value in (("location", key), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=field, value=value)
    tensor.data_location = TensorProto.EXTERNAL
