"""Levels that differ: a network that hangs on the last digits may, one that is wrong may not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwc_onnx.accuracy.types import Samples
from hwc_onnx.level_agreement import LevelResult, levels_agree, sensitivity
from hwc_onnx.normalize.compare import _agree
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models


def nearly_tied(spread: float) -> onnx.ModelProto:
    """The numbers of the three largest of 400 scores, whose distances are about `spread`; a scale can be folded."""
    rng = np.random.default_rng(0)
    weight = (1 + spread * rng.normal(size=(8, 400))).astype(np.float32)
    constants = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(np.full(400, 1.1, np.float32), "scale"),
        numpy_helper.from_array(np.array([3], np.int64), "three"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["raw"]),
        helper.make_node("Mul", ["raw", "scale"], ["scores"]),
        helper.make_node("TopK", ["scores", "three"], ["best", "places"]),
        helper.make_node("Cast", ["places"], ["y"], to=TensorProto.FLOAT),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "tied", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_nearly_tied_scores_are_not_taken_for_a_wrong_rewrite(caplog: pytest.LogCaptureFixture) -> None:
    found = normalize(nearly_tied(3e-8))
    assert [node.op_type for node in found.graph.node] == ["MatMul", "TopK", "Cast"]
    assert "hangs on the last digits" in caplog.text


def test_scores_far_apart_are_compared(caplog: pytest.LogCaptureFixture) -> None:
    normalize(nearly_tied(0.3))
    assert "last digits" not in caplog.text


def test_a_smooth_network_hardly_moves_with_its_inputs() -> None:
    model = tiny_models.chain()
    error, agreement = sensitivity(model, Samples(tiny_models.feeds(model), None), 1)
    assert error < 1e-4 and agreement == 1.0


@pytest.mark.parametrize(("moves", "passed"), [((1e-5, 1.0), False), ((0.3, 0.9), True)])
def test_levels_may_differ_as_the_network_itself_does(moves: tuple[float, float], passed: bool) -> None:
    levels = (LevelResult("disable", True, 0.0, 1.0), LevelResult("all", True, 0.5, 0.9))
    check = levels_agree(levels, 64, lambda: moves)
    assert check.passed is passed and "millionth" in check.found


def test_a_grid_may_differ_by_a_step_here_and_there_and_no_more() -> None:
    rng = np.random.default_rng(0)
    first = (0.1 * rng.integers(0, 20, 400)).astype(np.float32)
    here_and_there = first + 0.1 * (rng.random(400) < 0.2).astype(np.float32)
    assert _agree(first, here_and_there, 1.0, True) and not _agree(first, here_and_there, 1.0, False)
    # a lost bias of one step, and an error of two
    assert not _agree(first, first + np.float32(0.1), 1.0, True)
    assert not _agree(first, first + 0.2 * (rng.random(400) < 0.2).astype(np.float32), 1.0, True)
