"""Sizes of inputs: given, declared, or those of an axis with the same name."""

from __future__ import annotations

import onnx
import pytest

from hwc_onnx.errors import ModelError
from hwc_onnx.graph.infer import input_shapes_of, shapes_at_batch
from hwc_onnx.normalize.pipeline import normalize


def model(*inputs: str) -> onnx.ModelProto:
    """A model that declares `inputs`, such as "float[batch,7] x", and passes the first on."""
    name = inputs[0].split()[-1]
    declared = ", ".join(inputs)
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> m ({declared}) => (float y) {{ y = Relu ({name}) }}'
    )


def test_inputs_that_are_not_named_follow_the_batch_of_those_that_are() -> None:
    proto = model("float[batch,length] x", "float[batch,2,5] state", "float[?,3] other")
    assert input_shapes_of(proto, {"x": (1, 9)}, 2) == {"x": (1, 9), "state": (1, 2, 5), "other": (1, 3)}
    assert input_shapes_of(proto, {"state": (4, 2, 5), "x": (4, 9)}) == {"x": (4, 9), "state": (4, 2, 5), "other": (4, 3)}


def test_one_option_settles_every_axis_of_a_name() -> None:
    proto = model("float[batch,tokens] x", "float[batch,tokens] mask", "float[1,batch,6] state")
    assert input_shapes_of(proto, {"x": (1, 9)}) == {"x": (1, 9), "mask": (1, 9), "state": (1, 1, 6)}
    with pytest.raises(ModelError) as refused:
        input_shapes_of(proto)
    text = str(refused.value)
    assert "'x': shape ?x? leaves axis 1 (tokens) open; input 'mask'" in text
    assert "with --input-shape x:1x128 (with your sizes)" in text


def test_the_batch_is_found_behind_the_first_axis_and_overrides_what_was_given() -> None:
    proto = model("float[batch,4] x", "float[1,batch,6] state")
    assert input_shapes_of(proto, None, 3) == {"x": (3, 4), "state": (1, 3, 6)}
    assert shapes_at_batch(proto, {"x": (1, 4)}, 3) == {"x": (3, 4), "state": (1, 3, 6)}
    assert shapes_at_batch(proto, {"state": (1, 1, 6)}, 3) == {"x": (3, 4), "state": (1, 3, 6)}


@pytest.mark.parametrize("name", ["?", "-1", "None"])
def test_names_that_name_nothing_tie_nothing(name: str) -> None:
    proto = model("float[n,4] x", "float[n,k] z")
    for value, axis in ((0, 0), (1, 0), (1, 1)):
        proto.graph.input[value].type.tensor_type.shape.dim[axis].dim_param = name
    with pytest.raises(ModelError, match=r"'z': shape \?x\? leaves axis 1 open"):
        input_shapes_of(proto)


def test_a_first_axis_that_occurs_twice_in_one_input_is_no_batch() -> None:
    proto = model("float[nodes,4] x", "float[nodes,nodes] adjacent")
    with pytest.raises(ModelError, match=r"'adjacent': shape \?x\? leaves axis 1 \(nodes\) open"):
        input_shapes_of(proto)
    assert input_shapes_of(proto, {"adjacent": (7, 7)}) == {"x": (7, 4), "adjacent": (7, 7)}


def test_several_open_axes_are_told_at_once_with_the_options_that_settle_them() -> None:
    with pytest.raises(ModelError) as refused:
        input_shapes_of(model("float[b,3,high,wide] x", "float[b,words] text"))
    assert "leaves axes 2 (high), 3 (wide) open" in str(refused.value)
    assert "--input-shape x:1x3x224x224 --input-shape text:1x128 (with your sizes)" in str(refused.value)


def test_an_unknown_name_and_wrong_sizes_are_refused() -> None:
    proto = model("float[n,4] x")
    with pytest.raises(ModelError, match="names 'y', but the model's inputs are: x"):
        input_shapes_of(proto, {"y": (1, 4)})
    with pytest.raises(ModelError, match="axis 1 is 4 in the model"):
        input_shapes_of(proto, {"x": (1, 5)})
    with pytest.raises(ModelError, match="has 2 axes"):
        input_shapes_of(proto, {"x": (1, 4, 4)})
    with pytest.raises(ModelError, match="sizes must be positive"):
        input_shapes_of(proto, {"x": (0, 4)})


def test_a_decoder_is_normalized_when_only_some_of_its_inputs_are_given() -> None:
    # the exporter's names promise one batch: ONNX Runtime reuses the memory of tensors whose sizes have the same names
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        decoder (float[batch,length,8] memory, float[batch,8] hidden) => (float[batch,8] next)
        <int64[1] axes = {1}, int64 last = {-1}>
        {
            step = Gather <axis = 1> (memory, last)
            gate = Sigmoid (step)
            kept = Mul (gate, hidden)
            more = Tanh (kept)
            next = Add (more, step)
        }"""
    )
    found = normalize(proto, {"memory": (1, 5, 8)})
    assert [value.name for value in found.graph.input] == ["memory", "hidden"]
