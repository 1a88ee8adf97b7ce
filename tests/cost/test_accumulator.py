"""Accumulators are wide enough exactly where no input can make a sum that does not fit."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import numpy_helper

from hwc_onnx.cost.accumulator import accumulator_of, bits_needed, largest_sum
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.plan import CompressionPlan, LayerConfig, with_plan
from tests import tiny_models
from tests.graph.written import write


def test_eight_by_eight_bits_with_576_products_need_26_bits():
    assert bits_needed(largest_sum(8, 8, 64 * 3 * 3)) == 26
    assert bits_needed(largest_sum(8, 8, 100)) == 23


@pytest.mark.parametrize("largest", [0, 1, 2, 3, 127, 128, 2**19 - 1, 2**19])
def test_bits_needed_is_the_least_that_holds_the_sum(largest):
    bits = bits_needed(largest)
    assert largest < 2 ** (bits - 1)
    assert bits == 1 or not largest < 2 ** (bits - 2)


@pytest.mark.parametrize(("activation", "weight", "products"), [(2, 2, 3), (3, 2, 4), (2, 4, 2)])
def test_bound_holds_for_every_input_and_is_reached(activation, weight, products):
    """All weights and activations of these widths, tried."""
    weights = np.array(np.meshgrid(*[np.arange(-(2 ** (weight - 1)), 2 ** (weight - 1))] * products)).reshape(
        products, -1
    )
    inputs = np.array(np.meshgrid(*[np.arange(2**activation)] * products)).reshape(products, -1)
    sums = weights.T @ inputs
    assert np.abs(sums).max() == largest_sum(activation, weight, products)


def test_two_activations_can_both_be_unsigned():
    assert largest_sum(8, 8, 10, weighted=False) == 10 * 255 * 255


def test_the_weights_themselves_need_no_more_than_their_widths_allow():
    weights = np.random.default_rng(0).integers(-127, 128, (16, 576))
    known = largest_sum(8, 8, 576, weight_sum=int(np.abs(weights).sum(axis=1).max()))
    assert bits_needed(known) < bits_needed(largest_sum(8, 8, 576)) == 26
    worst = np.where(weights > 0, 255, 0)
    assert np.abs((weights * worst).sum(axis=1)).max() <= known


@pytest.mark.parametrize("name", sorted(tiny_models.ALL))
def test_sums_of_a_written_file_are_those_of_its_integers(name):
    """Oracle: the integers found in the file's initializers, added along everything that one output reads."""
    proto = normalize(tiny_models.ALL[name]())
    graph = parse(proto)
    narrow = CompressionPlan.uniform([layer.key for layer in graph.layers], LayerConfig(weight_bits=5))
    written, plan = write(proto, graph, narrow, np.random.default_rng(3))
    reread = parse(written)
    codes = {node.output[0]: node.input for node in written.graph.node if node.op_type == "DequantizeLinear"}
    stored = {tensor.name: tensor for tensor in written.graph.initializer}
    seen = 0
    for layer in reread.layers:
        if layer.weight is None or layer.weight not in codes or layer.op_type == "ConvTranspose":
            continue
        values = np.abs(integers(stored[codes[layer.weight][0]]))
        axes = tuple(i for i in range(values.ndim) if i != layer.output_axis)
        assert layer.weight_sum == values.sum(axis=axes).max()
        found = accumulator_of(layer, 24)
        assert found.exact
        assert found.needed <= accumulator_of(replace(layer, weight_sum=None), 24).needed
        seen += 1
    assert seen or name == "conv_transpose"
    assert all(layer.weight_sum is None for layer in with_plan(graph, plan).layers)


def integers(tensor):
    return np.asarray(numpy_helper.to_array(tensor), dtype=np.int64)


def test_layers_that_are_not_quantized_are_not_judged():
    graph = parse(normalize(tiny_models.ALL["chain"]()))
    assert all(node.accumulator is None for node in CostModel(load_profile("edge-flex")).cost(graph).nodes)
    plan = CompressionPlan.uniform([layer.key for layer in graph.layers], LayerConfig())
    model = CostModel(load_profile("eyeriss-v2-sparse"))
    nodes = {node.key: node for node in model.cost(with_plan(graph, plan)).nodes}
    assert nodes[graph.layers[1].key].accumulator.needed == bits_needed(255 * 128 * 8 * 9)
    assert nodes[graph.layers[1].key].accumulator.overflows
    assert not replace(nodes[graph.layers[1].key].accumulator, bits=23).overflows
