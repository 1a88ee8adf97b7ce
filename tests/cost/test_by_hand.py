"""Energies of layers so small that every word can be counted on paper.

A 1x1 convolution, 2 input and 2 output channels on a 2 x 1 image: 8 products, 4 inputs, 4 weights, 4 outputs; one PE
without registers, one buffer for everything, a DRAM. Without registers each product reads its input and its weight in
the buffer and adds to a partial sum there.
"""

from dataclasses import replace

import onnx
import pytest

from hwc_onnx.cost.accelerator import Static
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.moves import flow
from hwc_onnx.cost.profile import parse_profile
from hwc_onnx.cost.setting import Place
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.plan import CompressionPlan, LayerConfig, with_plan
from tests.cost.tiny_accelerator import content
from tests.tiny_models import Builder

MAC, READ, WRITE, DRAM_READ, DRAM_WRITE, OP = 0.5, 0.1, 0.2, 5.0, 7.0, 0.2
BITS, SUM, OUT = 8, 32, 16


def one_pe(**changes):
    memories = [
        {"name": "buffer", "operands": ["I", "W", "O"], "bytes": 4096, "kind": "buffer", "home": True, "pack": "exact",
         "read_pj_per_bit": READ, "write_pj_per_bit": WRITE},
        {"name": "dram", "operands": ["I", "W", "O"], "bytes": None, "kind": "dram", "pack": "exact",
         "read_pj_per_bit": DRAM_READ, "write_pj_per_bit": DRAM_WRITE},
    ]  # fmt: skip
    array = {"axes": [{"name": "one", "size": 1, "dims": ["K"]}]}
    return CostModel(parse_profile(
        content({"memories": memories, "array": array, "mac.accumulator_bits": SUM, **changes}), "one PE"
    ))  # fmt: skip


def pointwise(relu: bool = False, layers: int = 1) -> onnx.ModelProto:
    b = Builder([1, 2, 2, 1])
    y = "x"
    for _ in range(layers):
        y = b.conv(y, 2, 2, 1)
    return b.finish(b.node("Relu", y) if relu else y, [1, 2, 2, 1])


def quantized(proto):
    graph = parse(normalize(proto))
    setting = LayerConfig(weight_bits=BITS, activation_bits=BITS)
    return with_plan(graph, CompressionPlan.uniform([layer.key for layer in graph.layers], setting))


def layer_energy(read_input=True, final_bits=OUT, write_output=True):
    """One such layer: by component, on paper."""
    buffer = 8 * BITS * READ + 8 * BITS * READ  # each product reads its input and its weight
    buffer += 4 * BITS * WRITE + (4 * BITS * WRITE if read_input else 0)  # weights and inputs enter once
    buffer += (8 - 4) * SUM * (WRITE + READ)  # half of the partial sums are not the last: written, read back
    buffer += 4 * final_bits * WRITE + (4 * final_bits * READ if write_output else 0)  # results
    dram = 4 * BITS * DRAM_READ + 2 * 64 * DRAM_READ  # weights; 32-bit bias and 32-bit scale of two channels
    dram += 4 * BITS * DRAM_READ if read_input else 0
    dram += 4 * final_bits * DRAM_WRITE if write_output else 0
    return {"mac": 8 * MAC, "buffer": buffer, "dram": dram, "vector": 4 * OP}


def test_one_layer_costs_what_paper_says():
    cost = one_pe().cost(quantized(pointwise()))
    (node,) = cost.nodes
    expected = layer_energy()
    assert {name: value for name, value in node.energy.items() if value} == pytest.approx(expected)
    assert cost.total == pytest.approx(sum(expected.values()))
    assert cost.total == pytest.approx(4 + 83.2 + 1408 + 0.8)
    assert node.accesses["dram"] == {
        "I": {"read": 4.0, "write": 0.0},
        "W": {"read": 4.0, "write": 0.0},
        "O": {"read": 0.0, "write": 4.0},
        "bias": {"read": 2.0, "write": 0.0},
    }


def test_terms_of_one_layer_are_those_on_paper():
    (node,) = one_pe().cost(quantized(pointwise())).nodes
    listed = {(term.what, term.count, term.bits, term.constant) for term in node.terms}
    assert listed == {
        ("multiply-accumulate", 8, None, MAC),
        ("buffer: read I for the array", 8, BITS, READ),
        ("buffer: read W for the array", 8, BITS, READ),
        ("buffer: write I from dram", 4, BITS, WRITE),
        ("buffer: write W from dram", 4, BITS, WRITE),
        ("buffer: write sums from the array", 4, SUM, WRITE),
        ("buffer: read sums for the array", 4, SUM, READ),
        ("buffer: write O from the array", 4, OUT, WRITE),
        ("buffer: read O for dram", 4, OUT, READ),
        ("dram: read I for buffer", 4, BITS, DRAM_READ),
        ("dram: read W for buffer", 4, BITS, DRAM_READ),
        ("dram: write O from buffer", 4, OUT, DRAM_WRITE),
        ("dram: read bias and scale", 2, 64, DRAM_READ),
        ("requantize outputs", 4, None, OP),
    }
    assert all(term.factor == 1.0 for term in node.terms)


def test_paper_without_the_partial_sums_or_the_bias_disagrees():
    """The broken twins: what a model forgets that counts only finished outputs, or only weights."""
    total = one_pe().cost(quantized(pointwise())).total
    assert total != pytest.approx(sum(layer_energy().values()) - 4 * SUM * (WRITE + READ))
    assert total != pytest.approx(sum(layer_energy().values()) - 2 * 64 * DRAM_READ)


def test_tensor_between_two_layers_stays_on_chip_at_its_readers_width():
    cost = one_pe().cost(quantized(pointwise(layers=2)))
    first = layer_energy(final_bits=BITS, write_output=False)
    second = layer_energy(read_input=False)
    assert [node.total for node in cost.nodes] == pytest.approx([sum(first.values()), sum(second.values())])


def test_tensor_between_two_layers_travels_where_residency_is_never():
    cost = one_pe(**{"residency.activations": "never"}).cost(quantized(pointwise(layers=2)))
    first, second = layer_energy(final_bits=BITS), layer_energy()
    assert cost.total == pytest.approx(sum(first.values()) + sum(second.values()))


def test_second_operand_that_stays_is_read_where_it_is_and_enters_no_memory_again():
    """A product of two activations: where the buffer feeds the PE itself, only the PE's reads are left."""
    hierarchy = Hierarchy(one_pe().profile)
    moved = {
        (move.memory, move.write)
        for move in flow(hierarchy, False, Place(weight_stays=True)).moves
        if of_second(hierarchy, move)
    }
    travelling = {
        (move.memory, move.write) for move in flow(hierarchy, False, Place()).moves if of_second(hierarchy, move)
    }
    buffer, dram = 0, 1
    assert moved == {(buffer, False)}
    assert travelling == {(buffer, False), (buffer, True), (dram, False)}


def of_second(hierarchy, move):
    return hierarchy.columns[move.column][0].operand == "W"


def test_activation_behind_a_layer_costs_one_operation_per_element_and_no_traffic():
    plain = one_pe().cost(quantized(pointwise()))
    cost = one_pe().cost(quantized(pointwise(relu=True)))
    assert cost.total == pytest.approx(plain.total + 4 * OP)
    assert [node.method for node in cost.nodes] == ["mapped", "fused"]
    assert cost.nodes[1].energy == pytest.approx({"vector": 4 * OP})


def test_resident_weights_are_not_fetched():
    kept = one_pe(**{"residency.weights_bytes": 64}).cost(quantized(pointwise()))
    assert kept.energy["dram"] == pytest.approx(layer_energy()["dram"] - 4 * BITS * DRAM_READ)


def test_static_power_is_drawn_in_every_cycle():
    """8 cycles of one PE at 100 MHz and 2 mW: 8 x 10 ns x 2 mW = 160 pJ; the vector unit works meanwhile."""
    cost = one_pe(**{"static": {"power_mw": 2.0}}).cost(quantized(pointwise()))
    assert cost.energy["leakage"] == pytest.approx(160.0)
    assert cost.cycles == 8
    assert cost.latency_s == pytest.approx(80e-9)


def test_static_power_of_a_normalised_accelerator_is_in_multiples_of_its_mac():
    """The same 160 pJ, where the reference MAC takes 4 pJ."""
    profile = one_pe().profile.model_copy(update={"unit": "normalised", "reference_mac_pj": 4.0})
    profile = profile.model_copy(update={"static": Static(power_mw=2.0)})
    cost = CostModel(profile).cost(quantized(pointwise()))
    assert cost.energy["leakage"] == pytest.approx(40.0)
    assert cost.joules == pytest.approx(cost.total * 4e-12)


def test_inferences_per_joule():
    cost = one_pe().cost(quantized(pointwise()))
    assert cost.joules == pytest.approx(1496e-12)
    assert cost.inferences_per_joule == pytest.approx(1 / 1496e-12)
    normalised = replace(cost, energy_unit="normalised")
    assert normalised.joules is None and normalised.inferences_per_joule is None
    assert replace(normalised, reference_mac_pj=2.0).joules == pytest.approx(2992e-12)


def test_slow_memory_sets_the_time():
    """DRAM moves 4 x 8 + 4 x 8 + 4 x 16 bits; at 2 bits a cycle that is 64 cycles, and the array waits."""
    slow = one_pe()
    memories = [m.model_copy(update={"bits_per_cycle": 2}) if m.kind == "dram" else m for m in slow.profile.memories]
    node = (
        CostModel(slow.profile.model_copy(update={"memories": tuple(memories)})).cost(quantized(pointwise())).nodes[0]
    )
    assert node.cycles == 64
    assert node.bound_by == "dram"
    assert node.utilisation == 8 / 64
    assert slow.cost(quantized(pointwise())).nodes[0].bound_by == "array"
    assert node.total == pytest.approx(slow.cost(quantized(pointwise())).total)


def test_zeros_gate_arithmetic_and_reads_but_not_traffic():
    """Half of the inputs are zero: half of the products happen, the others leave a tenth of their energy."""
    gate = {"gate": {"operands": ["I"], "saves": ["mac"], "residual": 0.1}}
    graph = quantized(pointwise())
    plan = CompressionPlan.uniform([layer.key for layer in graph.layers], LayerConfig())
    plan = plan.model_copy(update={"activation_density": {"x": 0.5}})
    sparse = with_plan(parse(normalize(pointwise())), plan)
    dense, gated = one_pe(sparsity=gate).cost(graph), one_pe(sparsity=gate).cost(sparse)
    assert dense.energy["mac"] == pytest.approx(8 * MAC)
    assert gated.energy["mac"] == pytest.approx(8 * MAC * (0.1 + 0.9 * 0.5))
    assert gated.energy["dram"] == pytest.approx(dense.energy["dram"])
    assert one_pe().cost(sparse).total == pytest.approx(one_pe().cost(graph).total)
