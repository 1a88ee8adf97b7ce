"""Loading: a file or a ModelProto becomes a checked model in memory, or one clear message says why not."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from hwc_onnx.errors import ModelError
from hwc_onnx.graph.model_view import subgraphs

logger = logging.getLogger(__name__)

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator domains that ONNX Runtime's CPU provider implements."""

MAX_BYTES = 2**31 - 2**20
"""Protocol buffers cannot carry a message of 2 GiB or more."""

_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}


@dataclass(frozen=True)
class Loaded:
    """A checked model, where it came from (None for a ModelProto), the SHA-256 of its bytes and how many they are,
    external data included.
    """

    proto: onnx.ModelProto
    path: Path | None
    digest: str
    file_bytes: int


def load_model(source: str | Path | onnx.ModelProto) -> Loaded:
    """Read a model with its external data and check that it can be worked on.

    Raises:
        ModelError: missing, not ONNX, truncated, 2 GiB or larger, external data outside the model's folder, an unknown
            operator domain, or weights that are not finite.
    """
    if isinstance(source, onnx.ModelProto):
        proto = onnx.ModelProto()
        proto.CopyFrom(source)
        data = proto.SerializeToString(deterministic=True)
        loaded = Loaded(proto, None, hashlib.sha256(data).hexdigest(), len(data))
    else:
        loaded = _read(Path(source))
    _check(loaded.proto, str(loaded.path or "model"))
    logger.info("loaded %s: %d nodes", loaded.path or "a ModelProto", len(loaded.proto.graph.node))
    return loaded


def _read(path: Path) -> Loaded:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelError(
                f"{path}: {size / 2**30:.1f} GiB; an ONNX file must stay below 2 GiB, with or without external data"
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; give the path of an ONNX model") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); give the path of a readable ONNX file") from error
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        kind = "truncated or damaged" if _looks_like_onnx(data) else "not an ONNX model"
        raise ModelError(f"{path}: {kind} ({len(data)} bytes); export the model again as .onnx") from error
    if not proto.graph.node:
        raise ModelError(f"{path}: not an ONNX model, or one without any node; export the model again as .onnx")
    digest = hashlib.sha256(data)
    total = len(data)
    for tensor in _tensors(proto.graph):
        if uses_external_data(tensor):
            total += _load_external(tensor, path)
            if total > MAX_BYTES:
                raise ModelError(
                    f"{path}: more than 2 GiB with its external data; models of that size are not supported"
                )
            digest.update(tensor.raw_data)
    return Loaded(proto, path, digest.hexdigest(), total)


def _looks_like_onnx(data: bytes) -> bool:
    # a serialized ModelProto starts with field 1 (ir_version), a varint below 128
    return len(data) > 2 and data[0] == 0x08 and data[1] < 0x40


def _load_external(tensor: TensorProto, path: Path) -> int:
    facts = {entry.key: entry.value for entry in tensor.external_data}
    location = facts.get("location", "")
    folder = path.resolve().parent
    target = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not target.is_relative_to(folder):
        raise ModelError(
            f"{path}: external data of tensor '{tensor.name}' lies outside the model's folder ('{location}'); "
            "only files beside or below the model are read"
        )
    if not target.is_file():
        raise ModelError(
            f"{path}: external data file '{location}' of tensor '{tensor.name}' is missing; keep it beside the model"
        )
    end = int(facts.get("offset", 0)) + int(facts.get("length", 0))
    if end > target.stat().st_size:
        raise ModelError(
            f"{path}: external data file '{location}' is truncated: tensor '{tensor.name}' ends at byte {end}"
        )
    try:
        load_external_data_for_tensor(tensor, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: external data of tensor '{tensor.name}' cannot be read ({error})") from error
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT
    return len(tensor.raw_data)


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
        for inner in subgraphs(node):
            yield from _tensors(inner)


def _check(proto: onnx.ModelProto, where: str) -> None:
    known = DOMAINS | {function.domain for function in proto.functions}
    for node in proto.graph.node:
        if node.domain not in known:
            raise ModelError(
                f"{where}: node '{node.name or node.output[0]}' ({node.op_type}) has operator domain '{node.domain}', which "
                f"ONNX Runtime does not know; allowed are {', '.join(sorted(DOMAINS - {''}))}"
            )
    for tensor in _tensors(proto.graph):
        if tensor.data_type not in _FLOATS:
            continue
        try:
            values = numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise ModelError(
                f"{where}: tensor '{tensor.name}' is truncated or damaged ({error}); export the model again"
            ) from error
        # limits such as -inf in masks and Clip bounds are legal; a weight matrix with them is not
        bad = np.isnan(values) if values.size == 1 or values.ndim < 2 else ~np.isfinite(values.astype(np.float32))
        if bad.any():
            raise ModelError(
                f"{where}: weight '{tensor.name}' holds {int(bad.sum())} NaN or infinite values of {values.size}; "
                "train or export the model again"
            )
