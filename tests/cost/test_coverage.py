"""What the model does not know is listed, lowers the coverage, and still pays for its traffic."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.tiny_models import Builder

MODEL = CostModel(load_profile("edge-flex"))


def with_middle(op, **attributes):
    """Conv, one node of `op`, Conv."""
    b = Builder([1, 3, 8, 8])
    middle = b.node(op, b.conv("x", 3, 4), **attributes)
    return parse(normalize(b.finish(b.conv(middle, 4, 2), [1, 2, 8, 8])))


@pytest.mark.parametrize("name", sorted(tiny_models.ALL))
def test_usual_operators_are_all_modelled(name):
    cost = MODEL.cost(parse(normalize(tiny_models.ALL[name]())))
    assert cost.unmodelled == ()
    assert cost.coverage_macs == cost.coverage_traffic == 1.0


def test_unknown_operator_is_listed_with_a_reason_and_pays_for_its_traffic():
    cost = MODEL.cost(with_middle("Acosh"))
    ((key, reason),) = cost.unmodelled
    assert "Acosh" in reason and "traffic is counted" in reason
    node = next(node for node in cost.nodes if node.key == key)
    assert node.method == "unmodelled"
    assert node.total > 0
    assert node.energy.get("vector", 0.0) == 0.0


def test_coverage_is_the_share_of_products_and_an_unknown_node_counts_its_outputs():
    cost = MODEL.cost(with_middle("Acosh"))
    known = 64 * 9 * (3 * 4 + 4 * 2)
    assert cost.macs == known
    assert cost.coverage_macs == pytest.approx(known / (known + 4 * 64))
    assert cost.coverage_macs != 1.0


def test_known_operator_in_the_same_place_is_covered():
    cost = MODEL.cost(with_middle("Tanh"))
    assert cost.unmodelled == ()
    assert cost.coverage_macs == 1.0


def test_operator_of_an_unknown_domain_is_listed_even_if_its_name_is_known():
    graph = with_middle("Tanh")
    foreign = tuple(replace(node, domain="some.vendor") if node.op_type == "Tanh" else node for node in graph.nodes)
    cost = MODEL.cost(replace(graph, nodes=foreign))
    assert [key for key, _ in cost.unmodelled] == [node.key for node in foreign if node.op_type == "Tanh"]


def test_body_of_a_loop_of_unknown_length_is_listed_not_skipped():
    body = helper.make_graph(
        [
            helper.make_node("Not", ["go"], ["still"]),
            helper.make_node("Relu", ["state"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, 4, 8, 8]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [1, 4, 8, 8]),
        ],
    )
    b = Builder([1, 3, 8, 8])
    first = b.conv("x", 3, 4)
    looped = b.node("Loop", b.const(3, np.int64), b.const(True, np.bool_), first, body=body)
    proto = b.finish(b.conv(looped, 4, 2), [1, 2, 8, 8])
    onnx.checker.check_model(proto)
    cost = MODEL.cost(parse(normalize(proto)))
    assert any("loop" in reason.lower() for _, reason in cost.unmodelled)
    assert cost.coverage_macs < 1.0


def test_foreign_operator_whose_shape_is_declared_is_listed_and_the_rest_is_costed():
    b = Builder([1, 3, 8, 8])
    whitened = b.node("Whiten", b.conv("x", 3, 4), domain="acme.vision")
    proto = b.finish(b.conv(b.node("Relu", whitened), 4, 2), [1, 2, 8, 8])
    open_graph = parse(normalize(proto))
    proto.graph.value_info.append(helper.make_tensor_value_info(whitened, TensorProto.FLOAT, [1, 4, 8, 8]))
    declared_graph = parse(normalize(proto))
    for graph in (open_graph, declared_graph):
        ((key, reason),) = graph.unmodelled[:1]
        assert key == whitened and "acme.vision" in reason and "Whiten" in reason
    undeclared, declared = MODEL.cost(open_graph), MODEL.cost(declared_graph)
    assert [key for key, _ in declared.unmodelled] == [whitened]
    assert declared.macs == 64 * 9 * (3 * 4 + 4 * 2) and declared.coverage_macs < 1.0
    assert undeclared.macs == 64 * 9 * 3 * 4 and undeclared.coverage_traffic < 1.0
    first = [next(node.total for node in cost.nodes if node.op_type == "Conv") for cost in (undeclared, declared)]
    assert first[0] == first[1] > 0


def test_sequence_is_listed_and_the_rest_is_costed():
    b = Builder([1, 3, 8, 8])
    made = b.node("SequenceConstruct", b.conv("x", 3, 4))
    taken = b.node("SequenceAt", made, b.const(0, np.int64))
    cost = MODEL.cost(parse(normalize(b.finish(b.conv(taken, 4, 2), [1, 2, 8, 8]))))
    assert {key for key, _ in cost.unmodelled} == {made, taken}
    assert cost.coverage_traffic == 3 / 4
    assert cost.macs == 64 * 9 * (3 * 4 + 4 * 2)
