from __future__ import annotations

import numpy as np
import onnx
import pytest

from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.tiny_models import Builder


def groups(model: onnx.ModelProto) -> dict[tuple[str, ...], tuple[str, ...]]:
    return {group.tensors: group.readers for group in parse(normalize(model)).activation_groups}


@pytest.mark.parametrize("name", sorted(tiny_models.ALL))
def test_groups_each_stored_tensor_is_in_one_group_or_float(name: str) -> None:
    graph: LayerGraph = parse(normalize(tiny_models.ALL[name]()))
    seen = [tensor for group in graph.activation_groups for tensor in group.tensors]
    assert len(seen) == len(set(seen))
    assert not set(seen) & set(graph.fused)
    assert not [name for name in seen if graph.tensors[name].kind == "constant"]
    for layer in graph.layers:
        for tensor in layer.inputs:
            group = graph.activation_group_of(tensor)
            assert group is not None and layer.key in group.readers


def test_groups_residual_skip_and_pooled_tensors_have_groups_without_readers() -> None:
    found = groups(tiny_models.residual())
    assert found["t9",] == () and found["t12",] == ()
    assert found["t6",] == ("t7", "t10")
    assert found["t13", "t14"] == ("y",)
    assert ("y",) not in found


def test_groups_concat_ties_all_branches() -> None:
    assert groups(tiny_models.concat())["t1", "t3", "t4"] == ("t5",)


def test_groups_pooling_by_maximum_and_nearest_resize_tie_average_does_not() -> None:
    found = groups(tiny_models.pooling())
    assert found["t4", "t5", "t6"] == ("t7",)
    assert found["t1",] == () and found["t2",] == ("t3",)


def test_groups_product_of_two_activations_has_two() -> None:
    found = groups(tiny_models.attention())
    assert found["t1", "t2", "t9"] == found["t4", "t5", "t11"] == ("t12",)
    assert found["t14",] == ("t15",)


def test_groups_operands_of_layer_norm_and_softmax_stay_float() -> None:
    mlp = parse(normalize(tiny_models.mlp_block()))
    assert mlp.activation_group_of("x") is None  # LayerNorm and the residual Add read it, no layer does
    assert mlp.activation_group_of("t0") is not None
    attention = parse(normalize(tiny_models.attention()))
    assert attention.activation_group_of("t13") is None


def test_groups_layer_reading_beside_layer_norm_still_quantizes() -> None:
    b = Builder(["batch", 5, 8])
    normed = b.node("LayerNormalization", "x", b.const(np.ones(8)), b.vector(8))
    model = b.finish(b.node("Add", b.linear("x", 8, 4), b.linear(normed, 8, 4)))
    assert groups(model)["x",] == ("t1",)


def test_groups_output_read_by_a_layer_is_stored_narrow() -> None:
    model = tiny_models.chain()
    model.graph.output.append(onnx.helper.make_tensor_value_info("t1", 1, ["batch", 8, 8, 8]))
    assert groups(model)["t1",] == ("t2",)


@pytest.mark.parametrize(("fill", "tied"), [(0.0, True), (1.0, False)])
def test_groups_pad_ties_only_when_it_pads_with_zeros(fill: float, tied: bool) -> None:
    b = Builder(["batch", 3, 6, 6])
    first = b.node("Relu", b.conv("x", 3, 4))
    padded = b.node("Pad", first, b.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64), b.const(fill))
    pooled = b.node("MaxPool", padded, kernel_shape=[2, 2])
    model = tiny_models.head(b, b.conv(pooled, 4, 4), 4)
    assert (("t1", "t2", "t3") in groups(model)) == tied


def test_groups_shape_arithmetic_has_none() -> None:
    b = Builder(["batch", 3, 6, 6])
    first = b.conv("x", 3, 4)
    target = b.node(
        "Concat",
        b.node("Slice", b.node("Shape", first), b.const([0], np.int64), b.const([1], np.int64)),
        b.const([-1], np.int64),
        axis=0,
    )
    model = b.finish(b.gemm(b.node("Reshape", first, target), 144, 5))
    tensors = {tensor for group in parse(model).activation_groups for tensor in group.tensors}
    assert tensors == {"x", "t0", "t4"}
