"""Short names in the file: the same function at every level, the model's own names kept, none taken twice."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from hwc_onnx.graph.model_view import captured, subgraphs
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from hwc_onnx.rewrite.short_names import shorten
from tests.rewrite.quantized_case import LEVELS, QuantizedCase, run_at
from tests.rewrite.small_models import NAMES


def shortened(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    shorten(copy)
    return copy


def everything(model: onnx.ModelProto) -> list[str]:
    """Each name as often as it is made."""
    made = [name for node in model.graph.node for name in node.output if name]
    return [*made, *(tensor.name for tensor in model.graph.initializer)]


@pytest.mark.parametrize("name", NAMES)
def test_files_compute_the_same_and_keep_the_models_names(name: str) -> None:
    made = QuantizedCase.of(name)
    before = made.written(8, 5)
    after = shortened(before)
    onnx.checker.check_model(after)
    for level in LEVELS:
        assert np.array_equal(run_at(before, made.case.feeds, level), run_at(after, made.case.feeds, level))
    assert len(set(everything(after))) == len(everything(after)) == len(everything(before))
    own = {output for node in made.case.model.graph.node for output in node.output}
    assert own <= set(everything(after)) | {value.name for value in after.graph.output}
    assert [value.name for value in after.graph.output] == [value.name for value in before.graph.output]
    assert after.ByteSize() < before.ByteSize()


def test_names_that_are_taken_stay_with_their_owner() -> None:
    made = QuantizedCase.of(NAMES[0])
    model = made.written(8, 5)
    feeds = {"q1": next(iter(made.case.feeds.values()))}
    old = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["q1" if name == old else name for name in node.input]
    model.graph.input[0].name = "q1"
    after = shortened(model)
    assert np.array_equal(run_at(model, feeds, "disable"), run_at(after, feeds, "disable"))
    assert "q1" not in everything(after) and "q2" in everything(after)


def test_what_a_subgraph_reads_keeps_its_name() -> None:
    made = QuantizedCase.of(NAMES[0])
    model = made.written(8, 5)
    restored = next(node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear" and node.output[0].endswith("_dq"))
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", [restored], ["inside"])], "then", [],
        [onnx.helper.make_tensor_value_info("inside", onnx.TensorProto.FLOAT, None)],
    )  # fmt: skip
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(onnx.helper.make_node("If", ["yes"], ["out"], then_branch=inner, else_branch=inner))
    after = shortened(model)
    assert all(restored in captured(graph) for node in after.graph.node for graph in subgraphs(node))
    assert restored in everything(after)
    assert restored not in everything(shortened(made.written(8, 5)))  # the twin: nobody else reads it


def test_names_inside_a_subgraph_are_not_used_outside_it() -> None:
    model = QuantizedCase.of(NAMES[0]).written(8, 5)
    output = model.graph.output[0].name
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", [output], ["d1"]), onnx.helper.make_node("Identity", ["d1"], ["q1"])], "then", [],
        [onnx.helper.make_tensor_value_info("q1", onnx.TensorProto.FLOAT, None)],
    )  # fmt: skip
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(onnx.helper.make_node("If", ["yes"], ["out"], then_branch=inner, else_branch=inner))
    after = shortened(model)
    onnx.checker.check_model(after)
    assert not {"d1", "q1"} & set(everything(after))


@pytest.mark.parametrize("dialect", ["ort", "qcdq", "openvino"])
def test_weights_keep_their_names_in_every_dialect(dialect: str) -> None:
    made = QuantizedCase.of(NAMES[0])
    layers = [layer for layer in made.graph.layers if layer.weight is not None]
    model = insert_qdq(made.case.model, made.graph, made.weights(3), made.activations(8), dialect=dialect)
    long = {layer.weight: f"{layer.weight}_with_a_name_that_is_long" for layer in layers}
    for node in model.graph.node:
        node.input[:] = [long.get(name, name) for name in node.input]
        node.output[:] = [long.get(name, name) for name in node.output]
    after = shortened(model)
    restored = {node.output[0] for node in after.graph.node if node.op_type == "DequantizeLinear"}
    assert set(long.values()) <= restored
