"""The cost of whole graphs: nothing lost between the nodes, the total, the fast total and the steps."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import prod

import numpy as np
import pytest

from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.operands import Nest
from hwc_onnx.cost.profile import list_profiles, load_profile
from hwc_onnx.cost.types import COMPONENTS
from hwc_onnx.errors import ModelError
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.plan import CompressionPlan, LayerConfig, with_plan
from tests import tiny_models
from tests.cost.tiny_accelerator import tiny
from tests.graph.written import random_plan

GRAPHS = {name: parse(normalize(build())) for name, build in tiny_models.ALL.items()}
MODELS = {name: CostModel(load_profile(name)) for name in list_profiles()}
METHODS = {"mapped", "vector", "fused", "free", "unmodelled"}


def uniform(graph, **setting):
    return with_plan(graph, CompressionPlan.uniform([layer.key for layer in graph.layers], LayerConfig(**setting)))


def variants(name):
    graph = GRAPHS[name]
    chosen = random_plan(graph, np.random.default_rng(7))
    return {"float": graph, "int8": uniform(graph), "mixed": with_plan(graph, chosen)}


@pytest.mark.parametrize("accelerator", MODELS)
@pytest.mark.parametrize("name", GRAPHS)
def test_nodes_components_and_fast_total_add_up_to_the_same_energy(name, accelerator):
    model = MODELS[accelerator]
    for graph in variants(name).values():
        cost = model.cost(graph)
        assert sum(node.total for node in cost.nodes) == pytest.approx(cost.total, rel=1e-12)
        assert model.cost_total(graph) == pytest.approx(cost.total, rel=1e-12)
        assert set(cost.energy) == set(COMPONENTS)
        assert cost.cycles == pytest.approx(sum(node.cycles for node in cost.nodes))
        assert cost.latency_s == pytest.approx(cost.cycles / (model.profile.frequency_mhz * 1e6))


def test_a_node_left_out_is_seen_in_the_sum():
    """The broken twin: without its smallest node that costs anything the sum is no longer the total."""
    cost = MODELS["edge-flex"].cost(GRAPHS["residual"])
    smallest = min(node.total for node in cost.nodes if node.total > 0)
    assert cost.total - smallest != pytest.approx(cost.total, rel=1e-12)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_node_is_listed_once_in_order_with_a_method(name):
    graph = GRAPHS[name]
    cost = MODELS["edge-flex"].cost(graph)
    assert [(node.key, node.op_type) for node in cost.nodes] == [(node.key, node.op_type) for node in graph.nodes]
    assert {node.method for node in cost.nodes} <= METHODS
    mapped = [node.key for node in cost.nodes if node.method == "mapped"]
    assert sorted(mapped) == sorted(layer.key for layer in graph.layers)
    for node in cost.nodes:
        assert set(node.energy) <= set(COMPONENTS)
        assert all(part >= 0 for part in node.energy.values())
        if node.method == "mapped":
            assert 0 < node.utilisation <= 1
            assert node.mapping and node.accesses
        if node.method in ("vector", "fused"):
            assert node.total > 0


@pytest.mark.parametrize("name", GRAPHS)
def test_operands_of_a_layer_have_as_many_words_as_their_tensors(name):
    """Rows of a matrix product included; a window that jumps over pixels leaves some out."""
    graph = GRAPHS[name]
    for layer in graph.layers:
        nest, dims = Nest(layer.loop_dims), layer.loop_dims
        second = layer.weight if layer.weight is not None else layer.inputs[1]
        assert nest.words("W") == prod(graph.tensors[second].shape), layer.key
        assert nest.words("O") == prod(graph.tensors[layer.outputs[0]].shape), layer.key
        if dims.FY >= dims.stride[0] and dims.FX >= dims.stride[1]:
            assert nest.words("I") == prod(graph.tensors[layer.inputs[0]].shape), layer.key


def test_an_input_of_one_row_is_seen_as_too_few_words():
    """The broken twin: a matrix product whose input has lost its rows."""
    layer = next(layer for layer in GRAPHS["mlp_block"].layers if layer.loop_dims.OY > 1)
    lost = replace(layer.loop_dims, input_size=(1, 1))
    assert Nest(lost).words("I") < Nest(layer.loop_dims).words("I")


@pytest.mark.parametrize("accelerator", MODELS)
@pytest.mark.parametrize("name", GRAPHS)
def test_steps_of_the_settled_graph_add_up_to_its_total(name, accelerator):
    model = MODELS[accelerator]
    for graph in variants(name).values():
        settled = model.settle(graph)
        steps = [model.step_energy(graph, settled, index) for index in range(len(settled.steps))]
        assert sum(steps) == pytest.approx(model.cost_total(graph), rel=1e-12)


@pytest.mark.parametrize("name", ["residual", "depthwise", "attention"])
def test_steps_of_a_variant_are_its_total_or_more(name):
    """What stays on chip is settled for another variant: that can only be as good as the variant's own choice."""
    model = CostModel(replace_home(1024))
    settled = model.settle(GRAPHS[name])
    for graph in variants(name).values():
        total = sum(model.step_energy(graph, settled, index) for index in range(len(settled.steps)))
        assert total >= model.cost_total(graph) * (1 - 1e-12)


def replace_home(size):
    profile = load_profile("edge-flex")
    memories = tuple(replace_bytes(memory, size) if memory.home else memory for memory in profile.memories)
    return profile.model_copy(update={"memories": memories})


def replace_bytes(memory, size):
    return memory.model_copy(update={"bytes": size})


@pytest.mark.parametrize("name", ["chain", "residual", "attention"])
def test_larger_home_memory_never_costs_more(name):
    totals = [CostModel(replace_home(size)).cost_total(GRAPHS[name]) for size in (128, 512, 1024, 4096, 65536)]
    assert all(large <= small * (1 + 1e-9) for small, large in itertools.pairwise(totals))
    assert totals[-1] < totals[0]


def test_layer_that_fits_nowhere_is_refused_by_name_and_infinite_in_the_fast_total():
    too_small = tiny({"memories.w_buffer.bytes": 1})
    model = CostModel(too_small)
    assert model.cost_total(GRAPHS["chain"]) == np.inf
    with pytest.raises(ModelError, match=r"layer '\w+': no mapping fits the memories of 'tiny' at 16-bit inputs"):
        model.cost(GRAPHS["chain"])


def test_float_cost_is_the_graph_at_sixteen_bits_and_baseline_at_eight():
    graph, model = GRAPHS["residual"], MODELS["edge-flex-fixed8"]
    assert model.float_cost(uniform(graph)).total == pytest.approx(model.cost(graph).total)
    assert model.baseline(graph).total == pytest.approx(model.cost(uniform(graph)).total)
    assert model.baseline(graph).total < model.float_cost(graph).total


def test_accelerator_bytes_is_weights_biases_and_scales():
    graph = GRAPHS["chain"]
    weights = 8 * 3 * 9 + 12 * 8 * 9 + 12 * 5
    channels = 8 + 12 + 5
    model = MODELS["edge-tpu-64x64"]
    assert model.accelerator_bytes(uniform(graph, weight_bits=8)) == weights + channels * 8
    assert model.accelerator_bytes(uniform(graph, weight_bits=4)) == weights // 2 + channels * 8
    assert model.accelerator_bytes(uniform(graph, weight_bits=4)) != weights // 2


def test_variants_of_a_graph_are_costed_as_if_they_were_the_first():
    """Remembered schedules, mappings and steps must not leak from one variant or graph into another."""
    used = MODELS["edge-flex"]
    for name in ("residual", "concat", "attention"):
        for graph in variants(name).values():
            assert used.cost_total(graph) == CostModel(used.profile).cost_total(graph)


def test_cache_folder_gives_the_same_cost_and_survives_damage(tmp_path):
    graph, profile = GRAPHS["depthwise"], load_profile("edge-flex")
    first = CostModel(profile, tmp_path).cost(graph)
    files = sorted(tmp_path.rglob("*.npz"))
    assert files
    assert CostModel(profile, tmp_path).cost(graph) == first
    files[0].write_bytes(b"damaged")
    assert CostModel(profile, tmp_path).cost(graph) == first
    assert CostModel(load_profile("edge-tpu-64x64"), tmp_path).cost(graph) != first


def test_widths_of_tensors_decide_and_the_layers_own_copies_do_not():
    """A stored tensor has one width, whatever its readers claim."""
    graph = uniform(GRAPHS["chain"])
    claimed = replace(graph, layers=tuple(replace(layer, activation_bits=2) for layer in graph.layers))
    narrow = {
        name: replace(info, bits=4) if info.kind == "activation" else info for name, info in graph.tensors.items()
    }
    model = MODELS["edge-flex"]
    assert model.cost_total(claimed) == model.cost_total(graph)
    assert model.cost_total(replace(graph, tensors=narrow)) < model.cost_total(graph)


@pytest.mark.parametrize("accelerator", list_profiles())
def test_nothing_stays_where_there_is_no_memory_to_stay_in(accelerator):
    """Every tensor is read from and written to DRAM then; the broken twin is a profile with such a memory."""
    profile = load_profile(accelerator)
    never = profile.model_copy(update={"residency": profile.residency.model_copy(update={"activations": "never"})})
    for changed in (profile, never):
        nodes = [node for node in CostModel(changed).cost(GRAPHS["chain"]).nodes if node.method == "mapped"]
        kept = any("stays on chip" in (node.mapping["input"], node.mapping["output"]) for node in nodes)
        assert kept == (changed is profile and profile.home is not None and profile.residency.activations == "auto")


def test_lanes_that_reduce_send_one_sum_out_of_the_pes():
    """Without sums in the PEs, four lanes at 4 bits leave a quarter of the sums of one lane at 8 bits; one mapping."""
    from hwc_onnx.cost import LayerMapping, LayerOptions, LoopDims, evaluate_mapping

    layer = LoopDims(K=16, C=32, OY=4, OX=4, FY=2, FX=2)
    stated = LayerMapping(
        {"rows": {"C": 8}, "columns": {"K": 16}}, (("C", 4), ("FY", 2), ("FX", 2), ("OY", 4), ("OX", 4))
    )
    profile = load_profile("bitfusion-32x16")
    arriving = {}
    for bits in (8, 4):
        cost = evaluate_mapping(layer, stated, profile, LayerOptions(bits, bits, channel_constants=False))
        (name,) = {m.name for m in profile.memories[:-1] if "O" in m.operands}
        arriving[bits] = cost.accesses[name]["O"]["write"]
    assert arriving[8] == 16 * 4 * 4 * 16
    assert arriving[4] == arriving[8] / 4
