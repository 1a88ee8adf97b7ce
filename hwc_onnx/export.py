"""Write a model file: checked, complete or not at all, and the same outside as the model it came from.

The bytes go to a temporary file beside the target, which is flushed and renamed, so a reader never meets half a file
and a full disk leaves the old one in place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from hwc_onnx.errors import RuntimeFailure, UsageError
from hwc_onnx.files import replacing, write_atomic
from hwc_onnx.graph.external import (
    PAGE,
    any_mapped,
    declare,
    is_mapped,
    outside,
    stored_blocks,
    stored_bytes,
    without_initializers,
)
from hwc_onnx.graph.file_parts import file_parts
from hwc_onnx.graph.model_view import reads
from hwc_onnx.quantization.dialects import DIALECT_KEY, DIALECTS
from hwc_onnx.rewrite.cleanup import cleanup, set_metadata
from hwc_onnx.rewrite.quant_nodes import file_form
from hwc_onnx.rewrite.short_names import shorten

PREFIX = "hwc."
"""All metadata keys of this tool begin so; every other key is foreign and is kept."""

LARGEST = 2**31 - 2**20
"""Protocol buffers carry no message of 2 GiB or more; what is left is room for the nodes."""

FLOATS = 4
"""Bytes of a float32 for a byte of an 8-bit container."""

OUTSIDE_BYTES = 1 << 16
"""Where weights lie beside the model, tensors below this size stay in it."""


@dataclass(frozen=True)
class Written:
    """A file on the disk: where, its SHA-256, its size in bytes and what they are for (graph/file_parts.py)."""

    path: Path
    sha256: str
    file_bytes: int
    parts: Mapping[str, int]


def write_model(proto: onnx.ModelProto, path: str | Path, metadata: Mapping[str, str] | None = None) -> Written:
    """Clean up, check and write `proto`, with `metadata` (keys `hwc.*`) added to what it carries.

    Weights that no message holds go to `<name>.data` beside the file; `file_bytes` counts both.

    Raises:
        UsageError: the folder does not exist or is not writable, or Quant nodes are asked for that no message holds.
        RuntimeFailure: the model fails ONNX's checker (our bug), is too large, or the disk is full.
        ValueError: a key of `metadata` does not begin with `hwc.` (our bug).
    """
    target = Path(path)
    named = {entry.value for entry in proto.metadata_props if entry.key == DIALECT_KEY} & DIALECTS.keys()
    wide = any(DIALECTS[name].quant_nodes for name in named)
    if wide and (any_mapped(proto) or FLOATS * _payload(proto) > LARGEST):
        raise UsageError(
            f"{target}: weights of Quant nodes are stored as float32 and would take more than 2 GiB; choose another dialect, "
            "such as --dialect qcdq"
        )
    if any_mapped(proto) or _payload(proto) > LARGEST:
        return _write_in_two(proto, target, metadata)
    model = serializable(proto, metadata)
    data = _checked(model, target)
    write_atomic(target, data)
    return Written(target, hashlib.sha256(data).hexdigest(), len(data), file_parts(model, len(data)))


def _payload(proto: onnx.ModelProto) -> int:
    return sum(len(tensor.raw_data) for tensor in proto.graph.initializer)


def _checked(model: onnx.ModelProto, target: Path) -> bytes:
    """The bytes of a model that passes ONNX's checker."""
    data = bytes(model.SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(data)
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())
        raise RuntimeFailure(
            f"{target}: the model to be written is not valid ONNX ({reason}); please report this"
        ) from error
    return data


def _write_in_two(proto: onnx.ModelProto, target: Path, metadata: Mapping[str, str] | None) -> Written:
    """Large weights into one file, everything else into another that names it.

    An older model of that name is removed before its weights are replaced: whoever reads meanwhile finds a complete
    pair or none.
    """
    large = [tensor for tensor in proto.graph.initializer if is_mapped(tensor) or len(tensor.raw_data) >= OUTSIDE_BYTES]
    model = serializable(without_initializers(proto, {tensor.name for tensor in large}), metadata)
    read = {name for node in model.graph.node for name in reads(node)} | {value.name for value in model.graph.output}
    large = [tensor for tensor in large if tensor.name in read]
    checked = onnx.ModelProto.FromString(model.SerializeToString())
    declare(checked, large)
    _checked(checked, target)
    beside = target.with_name(f"{target.name}.data")
    with replacing(target) as main:
        with replacing(beside) as file:
            for tensor in large:
                file.write(b"\0" * (-file.tell() % PAGE))
                offset = file.tell()
                for block in stored_blocks(tensor):
                    file.write(block)
                model.graph.initializer.append(outside(tensor, beside.name, offset, file.tell() - offset))
            size = file.tell()
            data = bytes(model.SerializeToString(deterministic=True))
            main.write(data)
            target.unlink(missing_ok=True)
    digest = hashlib.sha256(data)
    for tensor in large:
        for block in stored_blocks(tensor):
            digest.update(block)
    return Written(target, digest.hexdigest(), len(data) + size, file_parts(model, len(data) + size))


def serializable(proto: onnx.ModelProto, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """`proto` as it will be written: cleaned up, in the form of its dialect (`hwc.dialect`), quantizers under short names,
    `metadata` merged in, our keys sorted behind the foreign ones.
    """
    added = dict(metadata or {})
    wrong = [key for key in added if not key.startswith(PREFIX)]
    if wrong:
        raise ValueError(f"metadata keys must begin with '{PREFIX}': {wrong}")
    model = file_form(cleanup(proto))
    shorten(model)
    present = {entry.key: entry.value for entry in model.metadata_props}
    foreign = {key: value for key, value in present.items() if not key.startswith(PREFIX)}
    ours = {key: value for key, value in {**present, **added}.items() if key.startswith(PREFIX)}
    set_metadata(model, foreign | dict(sorted(ours.items())))
    return model


def file_bytes(proto: onnx.ModelProto, metadata: Mapping[str, str] | None = None) -> int:
    """Bytes that `write_model` would write for `proto` with this metadata (up to padding, where in two files)."""
    mapped = sum(stored_bytes(tensor) for tensor in proto.graph.initializer if is_mapped(tensor))
    return int(serializable(proto, metadata).ByteSize()) + mapped
