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

from hwc_onnx.errors import RuntimeFailure
from hwc_onnx.files import write_atomic
from hwc_onnx.rewrite.cleanup import cleanup, set_metadata

PREFIX = "hwc."
"""All metadata keys of this tool begin so; every other key is foreign and is kept."""

LARGEST = 2**31 - 2**20
"""Protocol buffers carry no message of 2 GiB or more; what is left is room for the nodes."""


@dataclass(frozen=True)
class Written:
    """A file on the disk: where, its SHA-256 and its size in bytes."""

    path: Path
    sha256: str
    file_bytes: int


def write_model(proto: onnx.ModelProto, path: str | Path, metadata: Mapping[str, str] | None = None) -> Written:
    """Clean up, check and write `proto`, with `metadata` (keys `hwc.*`) added to what it carries.

    Raises:
        UsageError: the folder does not exist or is not writable.
        RuntimeFailure: the model fails ONNX's checker (our bug), is too large, or the disk is full.
        ValueError: a key of `metadata` does not begin with `hwc.` (our bug).
    """
    target = Path(path)
    payload = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    if payload > LARGEST:
        raise RuntimeFailure(f"{target}: the weights take {payload} bytes; one ONNX file holds at most {LARGEST}")
    data = serializable(proto, metadata).SerializeToString(deterministic=True)
    try:
        onnx.checker.check_model(data)
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())
        raise RuntimeFailure(
            f"{target}: the model to be written is not valid ONNX ({reason}); please report this"
        ) from error
    write_atomic(target, data)
    return Written(target, hashlib.sha256(data).hexdigest(), len(data))


def serializable(proto: onnx.ModelProto, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """`proto` as it will be written: cleaned up, `metadata` merged in, our keys sorted behind the foreign ones."""
    added = dict(metadata or {})
    wrong = [key for key in added if not key.startswith(PREFIX)]
    if wrong:
        raise ValueError(f"metadata keys must begin with '{PREFIX}': {wrong}")
    model = cleanup(proto)
    present = {entry.key: entry.value for entry in model.metadata_props}
    foreign = {key: value for key, value in present.items() if not key.startswith(PREFIX)}
    ours = {key: value for key, value in {**present, **added}.items() if key.startswith(PREFIX)}
    set_metadata(model, foreign | dict(sorted(ours.items())))
    return model


def file_bytes(proto: onnx.ModelProto) -> int:
    """Bytes that `write_model` would write for `proto` without further metadata."""
    return int(serializable(proto).ByteSize())
