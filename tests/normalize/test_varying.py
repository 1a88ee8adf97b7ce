"""Open axes: those that still vary stay open, those that are settled by folding are declared so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.verification import verify
from hwc_onnx.workspace import open_model


def audio(by_shape: bool) -> onnx.ModelProto:
    """x [n, length] through a convolution; `by_shape` makes its channel axis by arithmetic on the input's shape."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.standard_normal((4, 1, 3)).astype(np.float32), "axis": np.array([1]), "one": np.array([1]), "i0": np.array([0]), "i1": np.array([1])}
    if by_shape:
        nodes = [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Gather", ["shape", "i0"], ["n"]),
            helper.make_node("Gather", ["shape", "i1"], ["length"]),
            helper.make_node("Concat", ["n", "one", "length"], ["target"], axis=0),
            helper.make_node("Reshape", ["x", "target"], ["row"]),
        ]
    else:
        nodes = [helper.make_node("Unsqueeze", ["x", "axis"], ["row"])]
    nodes.append(helper.make_node("Conv", ["row", "w"], ["y"], pads=[1, 1]))
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "length"]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, "length"]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "audio", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def sizes(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def output_shape(model: onnx.ModelProto, length: int) -> tuple[int, ...]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.zeros((2, length), np.float32)})[0].shape


def test_an_axis_that_still_varies_stays_open() -> None:
    made = normalize(audio(by_shape=False), {"x": (1, 16)})
    assert sizes(made.graph.input[0]) == ["n", "length"] and sizes(made.graph.output[0]) == ["n", 4, "length"]
    assert output_shape(made, 16) == (2, 4, 16) and output_shape(made, 40) == (2, 4, 40)


def test_an_axis_that_is_settled_is_declared_with_its_size(caplog: pytest.LogCaptureFixture) -> None:
    assert output_shape(audio(by_shape=True), 40) == (2, 4, 40), "the original varies"
    made = normalize(audio(by_shape=True), {"x": (1, 16)})
    assert sizes(made.graph.input[0]) == ["n", 16] and sizes(made.graph.output[0]) == ["n", 4, 16]
    assert output_shape(made, 16) == (2, 4, 16) and "x [1, 16]" in caplog.text
    undeclared = onnx.ModelProto()  # the broken twin: declared open, it fails inside
    undeclared.CopyFrom(made)
    undeclared.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "length"
    undeclared.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "length"
    with pytest.raises(Exception, match="Reshape"):
        output_shape(undeclared, 40)


def test_verify_accepts_one_size_of_an_open_axis_and_no_other_change(tmp_path: Path) -> None:
    onnx.save(audio(by_shape=True), tmp_path / "original.onnx")
    onnx.save(open_model(tmp_path / "original.onnx", {"x": (1, 16)}).proto, tmp_path / "made.onnx")
    report = verify(tmp_path / "made.onnx", tmp_path / "original.onnx")
    checks = {check.name: check for check in report.checks}
    assert checks["inputs unchanged"].passed and "one size of x float[n, length]" in checks["inputs unchanged"].found
    assert checks["outputs unchanged"].passed and report.n_samples > 0
    backwards = verify(tmp_path / "original.onnx", tmp_path / "made.onnx")
    assert not {check.name: check for check in backwards.checks}["inputs unchanged"].passed
    fixed_batch = onnx.load(tmp_path / "made.onnx")
    fixed_batch.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(fixed_batch, tmp_path / "batch.onnx")
    refused = verify(tmp_path / "batch.onnx", tmp_path / "original.onnx")
    assert not {check.name: check for check in refused.checks}["inputs unchanged"].passed


def test_an_axis_that_changes_values_alone_is_settled_too() -> None:
    """The mean over a folded length runs at other sizes, and is wrong there."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "i1"], ["length"]),
        helper.make_node("Cast", ["length"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["x", "i1"], ["sum"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "length", 4]), helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])]
    graph = helper.make_graph(nodes, "mean", ends[:1], ends[1:], [numpy_helper.from_array(np.array([1]), "i1")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    assert sizes(normalize(model, {"x": (1, 16, 4)}).graph.input[0]) == ["n", 16, 4]


@pytest.mark.parametrize("name", ["?", "None", ""])
def test_a_batch_without_a_name_stays_open(name: str) -> None:
    model = audio(by_shape=True)
    for value in (model.graph.input[0], model.graph.output[0]):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = name
    made = normalize(model, {"x": (1, 16)})
    batch, length = made.graph.input[0].type.tensor_type.shape.dim
    assert not batch.HasField("dim_value") and length.dim_value == 16
    assert not made.graph.output[0].type.tensor_type.shape.dim[0].HasField("dim_value")
