"""Broken, hostile or absurd models: one clear message with exit code 4, no crash, no hang."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from hwc_onnx.errors import ModelError
from hwc_onnx.graph import infer
from hwc_onnx.graph.loading import load_model
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.cli.running import hwc
from tests.loading import exporter_models as models
from tests.tiny_models import Builder, head

Change = Callable[[onnx.ModelProto], object]


def reshaped(dims: list[int]) -> Change:
    """A first weight that claims another shape."""
    return lambda m: m.graph.initializer[0].dims.__setitem__(slice(None), dims)


CHANGES: dict[str, tuple[Change, str]] = {
    "cycle": (lambda m: m.graph.node[0].input.__setitem__(0, m.graph.node[2].output[0]), r"cycle: .*conv2.*conv0"),
    "self loop": (lambda m: m.graph.node[1].input.__setitem__(0, m.graph.node[1].output[0]), r"cycle: .*relu1"),
    "wrong shape": (reshaped([9, 3, 3, 3]), r"'c0' is truncated or damaged: its shape 9x3x3x3 takes 972 bytes, but 864"),
    "absurd shape": (reshaped([2**40, 2**30, 3, 3]), r"'c0'.* would take .* GiB; at most 32"),
    "negative shape": (reshaped([-8, 3, 3, 3]), "negative size"),
    "unknown type": (lambda m: setattr(m.graph.initializer[0], "data_type", 99), "element type 99"),
    "no type": (lambda m: setattr(m.graph.initializer[0], "data_type", 0), "element type 0"),
    "two makers": (
        lambda m: m.graph.node[3].output.__setitem__(0, m.graph.node[1].output[0]), r"made by .*clip3.* and by .*relu1"
    ),
    "two initializers": (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "two initializers .*'c0'"),
    "two inputs": (lambda m: m.graph.input.append(m.graph.input[0]), "name of another input"),
    "no input name": (lambda m: setattr(m.graph.input[0], "name", ""), "no name"),
    "dangling": (lambda m: m.graph.node[1].input.__setitem__(0, "nowhere"), r"relu1.*reads tensor 'nowhere'"),
    "no such output": (lambda m: setattr(m.graph.output[0], "name", "nope"), "output 'nope' is made by no node"),
    "no output": (lambda m: m.graph.ClearField("output"), "no output"),
    "too few inputs": (lambda m: m.graph.node[0].ClearField("input"), r"conv0.* has 0 inputs; Conv in opset 17 takes 2 to 3"),
    "makes nothing": (lambda m: m.graph.node[1].ClearField("output"), "relu1.* makes no tensor"),
    "no such operator": (lambda m: setattr(m.graph.node[1], "op_type", "Florb"), r"relu1.*Florb.*has no such operator"),
    "no opset": (lambda m: m.ClearField("opset_import"), "declares no operator set"),
    "opset 6": (lambda m: setattr(m.opset_import[0], "version", 6), "opset 6; supported are 7"),
    "opset 99": (lambda m: setattr(m.opset_import[0], "version", 99), "opset 99; supported are 7"),
    "IR 99": (lambda m: setattr(m, "ir_version", 99), "IR version 99"),
    "no node": (lambda m: m.graph.ClearField("node"), "without any node"),
    "absurd input": (
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 2**40), r"input 'x' .* GiB"
    ),
    "sequence input": (
        lambda m: m.graph.input.append(helper.make_tensor_sequence_value_info("s", 1, None)), "'s': is not a tensor"
    ),
    "strides of 0": (
        lambda m: m.graph.node[0].attribute.append(helper.make_attribute("strides", [0, 0])), "does not open or run"
    ),
    "other channels": (
        lambda m: m.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((8, 4, 3, 3), np.float32), "c0")),
        "does not open or run .*(channel|C:)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CHANGES))
def test_broken_graph_is_refused_with_its_fault(name: str) -> None:
    change, words = CHANGES[name]
    model = tiny_models.chain()
    change(model)
    with pytest.raises(ModelError, match=words):
        normalize(load_model(model).proto)


@pytest.mark.parametrize("name", ["cycle", "wrong shape", "no such operator", "opset 99", "absurd input", "dangling"])
def test_command_line_refuses_with_code_4_and_no_traceback(name: str, tmp_path: Path) -> None:
    model = tiny_models.chain()
    CHANGES[name][0](model)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    result = hwc("inspect", tmp_path / "m.onnx")
    assert result.exit_code == 4 and "Traceback" not in result.stderr and "m.onnx" in result.stderr


def test_zero_sized_weight_is_refused() -> None:
    b = Builder([2, 4])
    model = b.finish(b.node("MatMul", "x", b.const(np.zeros((4, 0)))), [2, 0])
    with pytest.raises(ModelError, match="shape 4x0; a layer needs at least one channel"):
        load_model(model)


@pytest.mark.parametrize("op", ["ConstantOfShape", "Tile"])
def test_a_tensor_that_no_memory_holds_is_refused(op: str) -> None:
    b = Builder(models.IMAGE)
    t = b.node("Relu", b.conv("x", 3, 6))
    if op == "Tile":
        huge = b.node("Tile", t, b.const([1, 1, 2**14, 2**14], np.int64))
    else:
        filled = b.node("ConstantOfShape", b.const([2**20, 2**14], np.int64))
        huge = b.node("Add", t, b.node("ReduceSum", filled, keepdims=0))
    with pytest.raises(ModelError, match=r"would take \d+ GiB"):
        normalize(head(b, huge, 6))


def test_endless_loop_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "RUN_SECONDS", 1.0)
    b = Builder(models.IMAGE)
    t = b.node("Relu", b.conv("x", 3, 6))
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["state"], ["next"])],
        "body",
        [models.value("i", [], 7), models.value("go", [], 9), models.value("state", None)],
        [models.value("on", [], 9), models.value("next", None)],
    )
    t = b.node("Loop", b.const(2**62, np.int64), b.const(True, bool), t, body=body)
    with pytest.raises(ModelError, match=r"longer than 1 s .an endless Loop"):
        normalize(head(b, t, 6))


def test_functions_that_call_each_other_are_refused() -> None:
    model = models.local_function()
    function = model.functions[0]
    function.node.append(helper.make_node("Block", ["r", "w"], ["again"], domain="acme.blocks"))
    function.output[0] = "again"
    with pytest.raises(ModelError, match="local functions"):
        normalize(load_model(model).proto)


def nested(depth: int) -> bytes:
    """A model with `depth` If nodes inside each other, written byte by byte: the protobuf library refuses to."""

    def field(number: int, payload: bytes) -> bytes:
        length, size = b"", len(payload)
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + payload

    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["o"])], "g", [], [models.value("o", None)]).SerializeToString()
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
        node = field(1, b"c") + field(2, b"o") + field(4, b"If") + field(5, attribute)
        graph = field(1, node) + field(2, b"g") + field(12, models.value("o", None).SerializeToString())
    for name, kind in (("x", TensorProto.FLOAT), ("c", TensorProto.BOOL)):
        graph += field(11, models.value(name, [], kind).SerializeToString())
    return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11")


@pytest.mark.parametrize(("depth", "words"), [(28, "nested more than 24"), (100, "nested too deep")])
def test_control_flow_nested_too_deep_is_refused(depth: int, words: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(nested(depth))
    with pytest.raises(ModelError, match=words):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("kind", ["empty", "zeros", "text", "zip"])
def test_a_file_that_is_no_model_is_refused(kind: str, tmp_path: Path) -> None:
    content = {"empty": b"", "zeros": bytes(4096), "text": b"not a model " * 99, "zip": b"PK\x03\x04" + bytes(99)}[kind]
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX model"):
        load_model(tmp_path / "m.onnx")


def test_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="not a regular file"):
        load_model(tmp_path / "pipe.onnx")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_bytes_never_end_in_anything_but_a_refusal(data: st.DataObject) -> None:
    content = bytearray(tiny_models.chain().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = Path(tempfile.gettempdir()) / f"hwc-damaged-{os.getpid()}.onnx"
    try:
        path.write_bytes(bytes(content))
        with suppress(ModelError):
            normalize(load_model(path).proto)
    finally:
        path.unlink()


def test_constants_of_strings_are_kept() -> None:
    model = tiny_models.chain()
    model.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [1], [b"a"]))
    assert load_model(model).proto.graph.initializer[-1].name == "words"
