"""Bytes of the activations that are stored at once, against sums made by hand."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import onnx
import pytest

from hwc_onnx.cost.footprint import activation_bytes
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.schedule import schedule
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.plan import CompressionPlan, LayerConfig, with_plan
from tests import tiny_models
from tests.cost.tiny_accelerator import tiny
from tests.tiny_models import Builder


def graph_of(proto: onnx.ModelProto) -> LayerGraph:
    return parse(normalize(proto))


def at_8_bits(graph: LayerGraph) -> LayerGraph:
    return with_plan(graph, CompressionPlan.uniform([layer.key for layer in graph.layers], LayerConfig(weight_bits=8, activation_bits=8)))


def skipped(length: int) -> LayerGraph:
    """Convolutions one after the other, 4 channels of 6 x 6, whose first result is needed again at the end."""
    b = Builder([1, 4, 6, 6])
    first = last = b.conv("x", 4, 4)
    for _ in range(length):
        last = b.conv(b.node("Relu", last), 4, 4)
    return graph_of(b.finish(b.node("Concat", first, last, axis=1), [1, 8, 6, 6]))


@pytest.mark.parametrize("length", [2, 4])
def test_a_tensor_needed_again_takes_its_place_until_then(length: int) -> None:
    """Two tensors of 144 elements are read at the end and 288 elements written, at 16 bits."""
    graph = skipped(length)
    cost = CostModel(tiny()).cost(graph)
    names = {name: info.bits for name, info in graph.tensors.items() if info.kind != "constant"}
    assert set(names.values()) == {16}
    assert cost.activation_bytes == 2 * (144 + 144 + 288)
    assert cost.memory_bytes == cost.accelerator_bytes + cost.activation_bytes


def test_places_are_free_again_once_nothing_reads_them() -> None:
    """Broken twin: were nothing freed, a longer chain would take more."""
    totals = []
    for length in (1, 6):
        b = Builder([1, 4, 6, 6])
        last = "x"
        for _ in range(length):
            last = b.node("Relu", b.conv(last, 4, 4))
        totals.append(CostModel(tiny()).cost(graph_of(b.finish(last, [1, 4, 6, 6]))).activation_bytes)
    assert totals == [2 * (144 + 144)] * 2


def test_narrower_tensors_take_less_and_zeros_do_not() -> None:
    graph = at_8_bits(graph_of(tiny_models.ALL["chain"]()))
    cost = CostModel(tiny())
    empty = {name: replace(info, density=0.01) for name, info in graph.tensors.items()}
    assert cost.cost(replace(graph, tensors=empty)).activation_bytes == cost.cost(graph).activation_bytes
    narrow = {name: replace(info, bits=min(info.bits, 4)) for name, info in graph.tensors.items()}
    assert cost.cost(replace(graph, tensors=narrow)).activation_bytes < cost.cost(graph).activation_bytes


@pytest.mark.parametrize("name", sorted(tiny_models.ALL))
def test_every_network_has_a_footprint_between_its_largest_tensor_and_all_of_them(name: str) -> None:
    graph = graph_of(tiny_models.ALL[name]())
    sizes = [prod(info.shape) * info.bits / 8 for info in graph.tensors.values() if info.kind != "constant"]
    assert max(sizes) <= activation_bytes(graph, schedule(graph), lambda bits: bits) <= sum(sizes)
