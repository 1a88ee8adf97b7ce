"""Loading: a file or a ModelProto becomes a checked model in memory, or one clear message says why not.

Models below 2 GiB are read whole. Of larger ones the weights stay where they are and are mapped when they are needed.
"""

from __future__ import annotations

import hashlib
import logging
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

from hwc_onnx.errors import ModelError
from hwc_onnx.graph import external
from hwc_onnx.graph.quant_nodes import quant_nodes, with_qdq
from hwc_onnx.graph.structure import all_tensors, check_structure
from hwc_onnx.graph.usable import check_values

logger = logging.getLogger(__name__)

MAX_BYTES = 2**31 - 2**20
"""Protocol buffers cannot carry a message of 2 GiB or more."""

MAP_BYTES = 1 << 30
"""A model with external data of more than this is mapped instead of read."""


DATA = (".npz", ".npy", ".csv", ".gz", ".zip", ".png", ".jpg", ".jpeg")
OTHERS = {
    (".pt", ".pth", ".pt2", ".ckpt", ".safetensors", ".bin"): "weights of PyTorch: export the model with torch.onnx.export(model, "
    "example_inputs, 'model.onnx')",
    (".h5", ".keras", ".pb", ".tflite"): "a model of TensorFlow: convert it with tf2onnx",
    (".engine", ".plan", ".xml", ".mlmodel", ".mlpackage"): "a model that was converted already: start from the ONNX file that it "
    "was made of",
}
"""What people give instead of an ONNX file, by the end of its name."""


@dataclass(frozen=True)
class Loaded:
    """A checked model, where it came from (None for a ModelProto), the SHA-256 of its bytes and how many they are,
    external data included; how many Quant nodes of QONNX were read as QuantizeLinear, Clip and DequantizeLinear.
    """

    proto: onnx.ModelProto
    path: Path | None
    digest: str
    file_bytes: int
    quant_nodes: int = 0


def load_model(source: str | Path | onnx.ModelProto) -> Loaded:
    """Read a model with its external data and check that it can be worked on.

    Node names that occur twice get numbers, and sizes declared as 0 or less count as open: exporters write both. Quant
    nodes of QONNX, which no runtime here has, become the quantizers that they stand for (`graph/quant_nodes.py`).

    Raises:
        ModelError: missing, not ONNX, truncated, 2 GiB or larger without external data, external data outside the
            model's folder, a graph that cannot be computed (see `check_structure`), or weights that are not finite.
    """
    loaded = _from_memory(source) if isinstance(source, onnx.ModelProto) else _read(Path(source))
    where = str(loaded.path or "model")
    check_structure(loaded.proto, where)
    check_values(loaded.proto, where)
    _open_sizes(loaded.proto.graph)
    _name_nodes(loaded.proto.graph)
    found = len(quant_nodes(loaded.proto))
    if found:
        runnable = with_qdq(loaded.proto)
        loaded = replace(loaded, proto=runnable, quant_nodes=0 if runnable is loaded.proto else found)
    logger.info("loaded %s: %d nodes", loaded.path or "a ModelProto", len(loaded.proto.graph.node))
    return loaded


def _from_memory(source: onnx.ModelProto) -> Loaded:
    proto = onnx.ModelProto()
    total = sum(len(tensor.raw_data) for tensor in source.graph.initializer)
    if total > MAX_BYTES:
        _copy_spilling(source, proto)
    else:
        proto.CopyFrom(source)
    for tensor in all_tensors(proto.graph):
        if external.is_mapped(tensor):
            external.tensor_values(tensor)
    try:
        data = proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ModelError(
            f"model: more than 2 GiB besides its large initializers, which no message holds ({error}); "
            "export it with its weights as external data"
        ) from error
    digest, size = hashlib.sha256(data), len(data)
    for tensor in proto.graph.initializer:
        if external.is_mapped(tensor):
            size += external.stored_bytes(tensor)
            for block in external.stored_blocks(tensor):
                digest.update(block)
    return Loaded(proto, None, digest.hexdigest(), size)


def _copy_spilling(source: onnx.ModelProto, proto: onnx.ModelProto) -> None:
    """A copy whose large initializers are in the temporary file: together they fit no message."""
    for field in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(proto, field, getattr(source, field))
    for field in ("opset_import", "functions", "metadata_props"):
        getattr(proto, field).extend(getattr(source, field))
    proto.graph.name, proto.graph.doc_string = source.graph.name, source.graph.doc_string
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(proto.graph, field).extend(getattr(source.graph, field))
    for tensor in source.graph.initializer:
        if len(tensor.raw_data) >= external.SPILL_BYTES:
            values = np.frombuffer(tensor.raw_data, np.uint8)
            spilled = external.spill_blocks(tensor.name, tuple(tensor.dims), tensor.data_type, iter([values]))
            proto.graph.initializer.append(spilled)
        else:
            proto.graph.initializer.append(tensor)


def _read(path: Path) -> Loaded:
    try:
        facts = path.stat()
        if not (stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)):
            raise ModelError(f"{path}: not a regular file; give the path of an ONNX model")
        if facts.st_size > MAX_BYTES:
            raise ModelError(
                f"{path}: {facts.st_size / 2**30:.1f} GiB in one file; protocol buffers end at 2 GiB. Save it with its "
                "weights beside it: onnx.save(model, path, save_as_external_data=True)"
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; give the path of an ONNX model") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        advice = _instead(path) if path.is_dir() else "give the path of a readable ONNX file"
        raise ModelError(f"{path}: cannot be read ({reason}); {advice}") from error
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        if "MaxDepth" in str(error):
            raise ModelError(
                f"{path}: nested too deep for protocol buffers (about 32 graphs inside each other); flatten its control "
                "flow (If, Loop, Scan) before exporting"
            ) from error
        kind = "truncated or damaged" if _looks_like_onnx(data) else "not an ONNX model"
        raise ModelError(f"{path}: {kind} ({len(data)} bytes); {_instead(path)}") from error
    digest = hashlib.sha256(data)
    total = len(data) + _take_external(proto, path, digest)
    return Loaded(proto, path, digest.hexdigest(), total)


def _instead(path: Path) -> str:
    """What to do about something that is no ONNX file, as far as its name tells."""
    suffix = path.suffix.lower()
    if path.is_dir() or suffix in DATA:
        return f"the model comes first, samples follow --data: MODEL.onnx --data {path}"
    for suffixes, advice in OTHERS.items():
        if suffix in suffixes:
            return advice
    return "export the model again as .onnx"


def _take_external(proto: onnx.ModelProto, path: Path, digest: Any) -> int:
    """Read or map what lies outside the message and add it to the digest; how many bytes that is."""
    outside = [tensor for tensor in all_tensors(proto.graph) if external.is_mapped(tensor)]
    total = sum(external.locate(tensor, path)[2] for tensor in outside)
    constants = {tensor.name for tensor in proto.graph.initializer}
    embedded = 0
    for tensor in outside:
        large = total > MAP_BYTES and external.locate(tensor, path)[2] >= external.SPILL_BYTES
        if large and tensor.name in constants and tensor.data_type not in external.PACKED_BITS:
            external.map_file(tensor, path)
        else:
            external.embed(tensor, path)
            embedded += len(tensor.raw_data)
            if embedded > MAX_BYTES:
                raise ModelError(
                    f"{path}: more than 2 GiB in tensors that cannot be mapped (packed integers, control flow, tensors "
                    f"below {external.SPILL_BYTES >> 20} MiB); join small tensors before exporting"
                )
        for block in external.stored_blocks(tensor):
            digest.update(block)
    return total


def _looks_like_onnx(data: bytes) -> bool:
    # a serialized ModelProto starts with field 1 (ir_version), a varint below 128
    return len(data) > 2 and data[0] == 0x08 and data[1] < 0x40


def _open_sizes(graph: onnx.GraphProto) -> None:
    """Sizes of inputs and outputs declared as 0 or less become open ones, in place."""
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                logger.info("'%s': a size declared as %d counts as open", value.name, dim.dim_value)
                dim.ClearField("dim_value")


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Number the nodes whose name occurs a second time, in place: ONNX Runtime refuses some of them."""
    taken = {node.name for node in graph.node if node.name}
    uses: dict[str, int] = {}
    for node in graph.node:
        base = node.name
        number = uses.get(base, 0) + 1
        while base and number > 1 and f"{base}_{number}" in taken:
            number += 1
        uses[base] = number
        if base and number > 1:
            node.name = f"{base}_{number}"
            taken.add(node.name)
