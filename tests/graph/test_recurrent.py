"""Recurrent layers: work counted by hand, weights quantized, and the file computes what its integers stand for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import hwc_onnx
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.graph.op_kinds import GATES
from hwc_onnx.graph.read_qdq import read_qdq
from tests import tiny_models

STEPS, INPUTS, HIDDEN = 6, 8, 5


def recurrent(op: str, directions: int = 2, last_only: bool = False) -> onnx.ModelProto:
    """A cell over [batch, STEPS, INPUTS] whose last states go through a product."""
    rng = np.random.default_rng(0)
    rows = GATES[op] * HIDDEN
    sizes = {"W": (directions, rows, INPUTS), "R": (directions, rows, HIDDEN), "B": (directions, 2 * rows), "F": (directions * HIDDEN, 3)}
    constants = [numpy_helper.from_array(rng.normal(0, 0.4, size).astype(np.float32), name) for name, size in sizes.items()]
    constants.append(numpy_helper.from_array(np.array([0, -1], np.int64), "flat"))
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node(
            op, ["steps", "W", "R", "B"], ["" if last_only else "all", "last"], name="cell", hidden_size=HIDDEN,
            direction="bidirectional" if directions == 2 else "forward",
        ),
        helper.make_node("Transpose", ["last"], ["turned"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["turned", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "F"], ["y"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "recurrent",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", STEPS, INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("op", sorted(GATES))
def test_work_of_a_cell(op: str, directions: int) -> None:
    layer = hwc_onnx.inspect(recurrent(op, directions)).layers[0]
    weights = directions * GATES[op] * HIDDEN * (INPUTS + HIDDEN)
    assert (layer.op_type, layer.params, layer.macs) == (op, weights, STEPS * weights)


def test_a_cell_of_which_only_the_last_state_is_read_is_a_layer() -> None:
    graph = hwc_onnx.inspect(recurrent("LSTM", last_only=True))
    assert graph.layers[0].op_type == "LSTM" and graph.unmodelled == ()


def test_channels_around_a_cell_stay_with_a_reason() -> None:
    group = hwc_onnx.inspect(recurrent("GRU")).channel_groups[0]
    assert "cell of GRU `cell`" in (group.locked_because or "")


@pytest.mark.parametrize("spec", ["w8a8", "w4a16", "w16a8", "w5a8,fine=magnitude:0.5"])
@pytest.mark.parametrize("op", sorted(GATES))
def test_the_file_costs_what_the_plan_foretold(op: str, spec: str) -> None:
    model = recurrent(op)
    applied = hwc_onnx.apply_plan(model, plan=hwc_onnx.uniform_plan(model, spec))
    found = hwc_onnx.inspect(applied.proto)
    assert CostModel(load_profile("edge-flex")).cost(found).total == pytest.approx(applied.cost.total, rel=1e-9)
    wanted = int(spec[1:].split("a")[0])
    assert found.layers[0].weight_bits == wanted
    if "fine" in spec:
        assert found.layers[0].weight_density == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("op", sorted(GATES))
def test_the_file_computes_what_its_integers_stand_for(op: str) -> None:
    model = recurrent(op)
    proto = hwc_onnx.apply_plan(model, plan=hwc_onnx.uniform_plan(model, "w6a16")).proto
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("DequantizeLinear") == 3
    logical = read_qdq(proto).proto
    feeds = tiny_models.feeds(model)
    found, meant = tiny_models.run(proto, feeds)[0], tiny_models.run(logical, feeds)[0]
    np.testing.assert_allclose(found, meant, rtol=1e-5, atol=1e-6)
    # the broken twin: the matrix for the state as it was before rounding
    tensors = {tensor.name: tensor for tensor in logical.graph.initializer}
    tensors["R"].CopyFrom(next(tensor for tensor in model.graph.initializer if tensor.name == "R"))
    assert not np.allclose(tiny_models.run(logical, feeds)[0], found, rtol=1e-5, atol=1e-6)
