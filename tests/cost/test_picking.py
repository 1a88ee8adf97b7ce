"""Operators that move elements pay for those they move, and take the time that these take: all counted on paper."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwc_onnx.cost.accelerator import Static
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import parse_profile
from hwc_onnx.cost.vector import taken
from hwc_onnx.graph.layer_graph import Node, TensorInfo
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.plan import CompressionPlan, LayerConfig, with_plan
from tests.cost.tiny_accelerator import content
from tests.tiny_models import Builder

READ, WRITE, DRAM_READ, DRAM_WRITE, OP, BITS = 0.1, 0.2, 5.0, 7.0, 0.2, 16


def one_pe(**changes):
    """One PE, a home memory of 64 KB at 32 bits a cycle and a DRAM at 8."""
    memories = [
        {"name": "buffer", "operands": ["I", "W", "O"], "bytes": 65536, "kind": "buffer", "home": True, "pack": "exact",
         "read_pj_per_bit": READ, "write_pj_per_bit": WRITE, "bits_per_cycle": 32},
        {"name": "dram", "operands": ["I", "W", "O"], "bytes": None, "kind": "dram", "pack": "exact",
         "read_pj_per_bit": DRAM_READ, "write_pj_per_bit": DRAM_WRITE, "bits_per_cycle": 8},
    ]  # fmt: skip
    array = {"axes": [{"name": "one", "size": 1, "dims": ["K"]}]}
    return CostModel(parse_profile(content({"memories": memories, "array": array, **changes}), "one PE"))


def embedding() -> onnx.ModelProto:
    """Six rows of 64 out of 5000, then a product with a 64 x 8 matrix."""
    b = Builder([1, 6])
    table, weight = b.const(b.rng.normal(size=(5000, 64))), b.const(b.rng.normal(size=(64, 8)))
    b.input = helper.make_tensor_value_info("x", TensorProto.INT64, [1, 6])
    return b.finish(b.node("MatMul", b.node("Gather", table, "x"), weight), [1, 6, 8])


def graph_of(proto):
    return parse(normalize(proto))


def cost_of(proto, op_type, model=None):
    (node,) = [node for node in (model or one_pe()).cost(graph_of(proto)).nodes if node.op_type == op_type]
    return node


def test_a_gather_reads_the_rows_it_is_asked_for_straight_from_the_dram():
    """6 indices through the buffer, 6 x 64 words of the table from the DRAM, 6 x 64 written to the buffer, where they stay."""
    node = cost_of(embedding(), "Gather")
    assert node.energy["dram"] == pytest.approx((6 + 6 * 64) * BITS * DRAM_READ)
    assert node.energy["buffer"] == pytest.approx(6 * BITS * (READ + WRITE) + 6 * 64 * BITS * WRITE)
    assert node.accesses["dram"] == {"W": {"read": 384.0, "write": 0.0}, "I": {"read": 6.0, "write": 0.0}}
    assert node.total != pytest.approx(5000 * 64 * BITS * DRAM_READ, rel=0.5)


def test_a_table_of_weights_is_packed_as_weights_are():
    """Where the DRAM keeps weights in 32 bits a row costs twice as much; the indices do not."""
    model = one_pe()
    memories = [m.model_copy(update={"pack_weights": (32,)}) if m.kind == "dram" else m for m in model.profile.memories]
    node = cost_of(embedding(), "Gather", CostModel(model.profile.model_copy(update={"memories": tuple(memories)})))
    assert node.energy["dram"] == pytest.approx((6 * BITS + 6 * 64 * 32) * DRAM_READ)
    assert sum(term.energy for term in node.terms) == pytest.approx(node.total, rel=1e-12)


def test_a_gather_takes_as_long_as_the_dram_takes_for_its_rows():
    """6 x 65 words of 16 bits at 8 bits a cycle: 780 cycles, which draw static power like all others."""
    node = cost_of(embedding(), "Gather")
    assert (node.cycles, node.bound_by) == (780, "dram")
    drawing = CostModel(one_pe().profile.model_copy(update={"static": Static(power_mw=2.0)}))
    node = cost_of(embedding(), "Gather", drawing)
    assert node.energy["leakage"] == pytest.approx(780 * 20.0)  # 2 mW for 10 ns
    cost = drawing.cost(graph_of(embedding()))
    assert drawing.cost_total(graph_of(embedding())) == pytest.approx(cost.total, rel=1e-12)


def test_bytes_of_weights_include_tables():
    """5000 x 64 words of 16 bits, 64 x 8 weights of 8 bits, and 8 bytes for each of 8 channels."""
    graph = graph_of(embedding())
    int8 = with_plan(graph, CompressionPlan.uniform([layer.key for layer in graph.layers], LayerConfig()))
    assert one_pe().accelerator_bytes(int8) == 5000 * 64 * 2 + 64 * 8 + 8 * 8


def test_bytes_of_weights_count_a_table_once_however_often_it_is_asked():
    """64 x 8 words of 16 bits, an 8 x 4 matrix of as many, and 8 bytes for each of its 4 channels."""
    b = Builder([1, 6])
    table, weight = b.const(b.rng.normal(size=(64, 8))), b.const(b.rng.normal(size=(8, 4)))
    b.input = helper.make_tensor_value_info("x", TensorProto.INT64, [1, 6])
    rows = b.node("Mul", b.node("Gather", table, "x"), b.node("Gather", table, b.const([[5, 4, 3, 2, 1, 0]], np.int64)))
    assert one_pe().accelerator_bytes(graph_of(b.finish(b.node("MatMul", rows, weight), [1, 6, 4]))) == 1024 + 64 + 32


def sliced() -> onnx.ModelProto:
    """A quarter of a layer's 8 x 8 x 8 result, then another layer."""
    b = Builder([1, 2, 8, 8])
    ends = [b.const(values, np.int64) for values in ([0, 0], [4, 4], [2, 3])]
    part = b.node("Slice", b.conv("x", 2, 8, 1), *ends)
    return b.finish(b.conv(part, 8, 2, 1), [1, 2, 4, 4])


def test_a_slice_reads_what_it_takes():
    """4 x 4 x 8 words out of the buffer and into it again; 2 x 128 x 16 bits at 32 a cycle: 128 cycles."""
    node = cost_of(sliced(), "Slice")
    assert node.energy == pytest.approx({"vector": 0.0, "leakage": 0.0, "buffer": 128 * BITS * (READ + WRITE)})
    assert (node.cycles, node.bound_by) == (128, "buffer")


def test_a_transpose_of_a_graph_input_takes_the_time_of_its_words():
    """64 words from the DRAM at 8 bits a cycle, through the buffer and into it: 3 x 64 x 16 bits at 32 are 96, fewer."""
    b = Builder([1, 4, 4, 4])
    turned = b.node("Transpose", "x", perm=[0, 2, 3, 1])
    node = cost_of(b.finish(b.linear(turned, 4, 2), [1, 4, 4, 2]), "Transpose")
    assert (node.cycles, node.bound_by) == (64 * BITS / 8, "dram")


def test_an_addition_behind_a_layer_takes_the_time_of_the_residual_only():
    """x, 32 words from the DRAM; its operations run as the layer's results come."""
    b = Builder([1, 2, 4, 4])
    proto = b.finish(b.node("Relu", b.node("Add", b.conv("x", 2, 2, 1), "x")), [1, 2, 4, 4])
    add, relu = cost_of(proto, "Add"), cost_of(proto, "Relu")
    assert (add.method, add.cycles, add.bound_by) == ("fused", 32 * BITS / 8, "dram")
    assert (relu.method, relu.cycles) == ("fused", 0)


def test_operations_set_the_time_where_they_take_longer():
    """Softmax: 4 operations and a look-up for each of 64 elements on 4 lanes are 80 cycles; the buffer moves 64 x 2 words in 64."""
    b = Builder([1, 4, 4, 4])
    soft = b.node("Softmax", b.conv("x", 4, 4, 1))
    node = cost_of(b.finish(b.conv(soft, 4, 2, 1), [1, 2, 4, 4]), "Softmax")
    assert (node.cycles, node.bound_by) == (80, "vector")


def tensor(name, *shape):
    return TensorInfo(name, shape, "float32", "activation")


def node(op_type, inputs, outputs, **attributes):
    return Node(outputs[0], "", op_type, "", tuple(inputs), tuple(outputs), attributes)


@pytest.mark.parametrize(
    ("made", "shapes", "words"),
    [
        (node("Gather", "ai", "y"), {"a": (50, 4), "i": (3,), "y": (3, 4)}, 12),
        (node("GatherElements", "ai", "y"), {"a": (50, 4), "i": (2, 4), "y": (2, 4)}, 8),
        (node("GatherND", "ai", "y"), {"a": (50, 4), "i": (7, 2), "y": (7,)}, 7),
        (node("Slice", "ai", "y"), {"a": (8, 8), "i": (1,), "y": (2, 8)}, 16),
        (node("Split", "a", "yz"), {"a": (8, 8), "y": (2, 8), "z": (6, 8)}, 64),
        (node("Split", "a", ["y", ""]), {"a": (8, 8), "y": (2, 8)}, 16),
        (node("Pad", "a", "y"), {"a": (8, 8), "y": (10, 4)}, 32),
        (node("Resize", "a", "y", mode="nearest"), {"a": (8, 8), "y": (4, 4)}, 16),
        (node("Resize", "a", "y", mode="linear"), {"a": (8, 8), "y": (4, 4)}, 64),
        (node("ScatterND", "aiu", "y"), {"a": (8, 8), "i": (2, 1), "u": (2, 8), "y": (8, 8)}, 48),
        (node("ScatterND", "aiu", "y", reduction="add"), {"a": (8, 8), "i": (2, 1), "u": (2, 8), "y": (8, 8)}, 64),
        (node("Gather", "aa", "y"), {"a": (8,), "y": (8,)}, 8),
        (node("Transpose", "a", "y"), {"a": (8, 8), "y": (8, 8)}, 64),
        (node("Gather", "ai", "y"), {"a": (50, 4), "i": (3,)}, 200),
    ],
    ids=lambda value: value.op_type if isinstance(value, Node) else "",
)
def test_words_that_an_operator_reads_of_its_first_operand(made, shapes, words):
    assert taken(made, "a", {name: tensor(name, *shape) for name, shape in shapes.items()}) == words
