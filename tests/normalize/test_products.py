"""Einsum products against ONNX Runtime's Einsum, and which equations stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import hwc_onnx
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.normalize.products import product_of
from tests import tiny_models

SIZES = {"b": 2, "h": 3, "i": 4, "j": 5, "k": 6, "d": 7, "c": 4}

PRODUCTS = ["bij,jk->bik", "bihd,bjhd->bhij", "bhij,bjhd->bihd", "jk,bij->bik", "bijc,ck->bijk", "bijc,kc->bijk", "ij,jk->ki", "bcij,ck->bkij"]
OTHERS = ["bij,bij->bij", "bij,j->bi", "bijk,jk->bi", "ij,kd->ikjd", "bij,bjk->bk"]


def model_of(equation: str, constant: bool, share: float = 1.0) -> onnx.ModelProto:
    """One Einsum; the second operand is a constant, or both are inputs."""
    first, second = equation.split("->")[0].split(",")
    if constant and first == "jk":
        first, second = second, first
    rng = np.random.default_rng(0)
    shapes = [[SIZES[letter] for letter in term] for term in (first, second)]
    terms = equation.split("->")[0].split(",")
    names = ["x", "w"] if terms[0] == first else ["w", "x"]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shapes[0])]
    constants = []
    if constant:
        constants = [numpy_helper.from_array(share * rng.normal(size=shapes[1]).astype(np.float32), "w")]
    else:
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, shapes[1]))
    node = helper.make_node("Einsum", names, ["y"], equation=equation)
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "product", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def results(model: onnx.ModelProto) -> np.ndarray:
    rng = np.random.default_rng(1)
    feeds = {
        value.name: rng.normal(size=[dim.dim_value for dim in value.type.tensor_type.shape.dim]).astype(np.float32)
        for value in model.graph.input
    }
    found: np.ndarray = tiny_models.run(model, feeds)[0]
    return found


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("equation", PRODUCTS)
def test_a_product_becomes_matmul_and_computes_the_same(equation: str, constant: bool) -> None:
    model = model_of(equation, constant)
    found = normalize(model)
    assert [node.op_type for node in found.graph.node].count("MatMul") == 1
    assert not [node for node in found.graph.node if node.op_type == "Einsum"]
    np.testing.assert_allclose(results(found), results(model), rtol=1e-5, atol=1e-5)
    assert not np.allclose(results(found), results(model_of(equation, True, 2.0)) if constant else 0, rtol=1e-3)


@pytest.mark.parametrize("equation", OTHERS)
def test_another_equation_stays(equation: str) -> None:
    terms, result = equation.split("->")
    assert product_of(*terms.split(","), result) is None
    assert [node.op_type for node in normalize(model_of(equation, False)).graph.node] == ["Einsum"]


def test_an_einsum_with_constant_weights_is_a_layer() -> None:
    graph = hwc_onnx.inspect(model_of("bijc,kc->bijk", True))
    assert [(layer.op_type, layer.macs, layer.weight_shape) for layer in graph.layers] == [
        ("MatMul", 2 * 4 * 5 * 6 * 4, (4, 6))
    ]
