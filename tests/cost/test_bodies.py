"""A node with a body costs what the body costs as a network of its own, times its trips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import hwc_onnx
from hwc_onnx.cost.model import CostModel
from hwc_onnx.cost.profile import load_profile
from hwc_onnx.cost.types import ModelCost, NodeCost
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests.tiny_models import Builder

MODEL = CostModel(load_profile("edge-flex"))
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
value = helper.make_tensor_value_info
node = helper.make_node


def weight(rows: int, columns: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32) / rows**0.5


def cost_of(proto: onnx.ModelProto) -> ModelCost:
    onnx.checker.check_model(proto)
    return MODEL.cost(parse(normalize(proto)))


def own(nodes: list[onnx.NodeProto], inputs: dict[str, list[int]], outputs: list[str], **constants: np.ndarray) -> ModelCost:
    """The cost of a body as a model of its own."""
    graph = helper.make_graph(
        nodes, "own", [value(name, FLOAT, shape) for name, shape in inputs.items()],
        [value(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return cost_of(onnx.shape_inference.infer_shapes(model))


def owner(cost: ModelCost, op_type: str) -> NodeCost:
    return next(found for found in cost.nodes if found.op_type == op_type)


def loop_body(inner: list[onnx.NodeProto], *constants: onnx.TensorProto) -> onnx.GraphProto:
    return helper.make_graph(
        [node("Identity", ["go"], ["on"]), *inner], "body",
        [value("i", INT64, []), value("go", BOOL, []), value("state", FLOAT, None)],
        [value("on", BOOL, []), value("next", FLOAT, None)], list(constants),
    )  # fmt: skip


def loop(trips: int | None = 3, body: Callable[[str], onnx.GraphProto] | None = None, go: bool | None = True) -> onnx.ModelProto:
    """Linear, a Loop that multiplies by a matrix from outside, linear."""
    b = Builder(["batch", 8])
    t = b.node("Relu", b.linear("x", 8, 16))
    b.constants.append(numpy_helper.from_array(weight(16, 16), "w"))
    made = (body or (lambda _: loop_body([node("MatMul", ["state", "w"], ["m"]), node("Relu", ["m"], ["next"])])))(t)
    count = b.const(trips, np.int64) if trips is not None else b.node("ReduceSum", b.node("Cast", t, to=INT64), keepdims=0)
    t = b.node("Loop", count, "" if go is None else b.const(go, np.bool_), t, body=made)
    return b.finish(b.linear(b.node("Relu", t), 16, 4), ["batch", 4])


INNER = [node("MatMul", ["state", "w"], ["m"]), node("Relu", ["m"], ["next"])]


@pytest.mark.parametrize("trips", [0, 1, 3, 1000])
def test_loop_costs_its_trips_times_its_body(trips: int) -> None:
    once = own(INNER, {"state": [1, 16]}, ["next"], w=weight(16, 16))
    cost = cost_of(loop(trips))
    found = owner(cost, "Loop")
    assert found.total == pytest.approx(trips * once.total, rel=1e-12)
    assert found.macs == trips * once.macs == trips * 256
    assert found.cycles == pytest.approx(trips * once.cycles) and found.latency_s == pytest.approx(trips * once.latency_s)
    assert found.method == f"body x {trips}"
    assert cost.unmodelled == () and cost.coverage_macs == 1.0
    assert cost.macs == sum(inner.macs for inner in cost.nodes) == 8 * 16 + 256 * trips + 16 * 4
    assert sum(term.energy for term in found.terms) == pytest.approx(found.total, rel=1e-9)
    dram = {operand: counts["read"] for operand, counts in found.accesses["dram"].items()}
    inside = [inner.accesses["dram"] for inner in once.nodes if "dram" in inner.accesses]
    assert dram["W"] == trips * sum(counts["W"]["read"] for counts in inside if "W" in counts)


def test_other_trips_or_another_body_cost_something_else() -> None:
    base = owner(cost_of(loop(3)), "Loop").total
    assert owner(cost_of(loop(4)), "Loop").total == pytest.approx(base * 4 / 3)
    wider = loop_body(
        [node("MatMul", ["state", "u"], ["h"]), node("MatMul", ["h", "v"], ["next"])],
        numpy_helper.from_array(weight(16, 32), "u"), numpy_helper.from_array(weight(32, 16), "v"),
    )  # fmt: skip
    assert owner(cost_of(loop(3, lambda _: wider)), "Loop").total > 1.5 * base
    sparse = np.where(np.arange(256).reshape(16, 16) % 2, weight(16, 16), 0).astype(np.float32)
    zeros = loop_body([node("MatMul", ["state", "u"], ["next"])], numpy_helper.from_array(sparse, "u"))
    dense = loop_body([node("MatMul", ["state", "u"], ["next"])], numpy_helper.from_array(weight(16, 16), "u"))
    assert owner(cost_of(loop(3, lambda _: zeros)), "Loop").total < owner(cost_of(loop(3, lambda _: dense)), "Loop").total


def test_tensor_of_the_graph_around_is_an_input_of_the_body() -> None:
    def adding(outside: str) -> onnx.GraphProto:
        return loop_body([node("MatMul", ["state", "w"], ["m"]), node("Add", ["m", outside], ["next"])])

    inner = [node("MatMul", ["state", "w"], ["m"]), node("Add", ["m", "outside"], ["next"])]
    once = own(inner, {"state": [1, 16], "outside": [1, 16]}, ["next"], w=weight(16, 16))
    assert owner(cost_of(loop(5, adding)), "Loop").total == pytest.approx(5 * once.total, rel=1e-12)


def branching(first: int, second: int) -> onnx.ModelProto:
    b = Builder(["batch", 8])
    t = b.node("Relu", b.linear("x", 8, 16))
    yes = b.node("Greater", b.node("ReduceSum", t, keepdims=0), b.const(0.0))
    graphs = {}
    for name, width in (("then_branch", first), ("else_branch", second)):
        graphs[name] = helper.make_graph(
            [node("MatMul", [t, f"{name}_u"], [f"{name}_h"]), node("MatMul", [f"{name}_h", f"{name}_v"], [f"{name}_y"])],
            name, [], [value(f"{name}_y", FLOAT, None)],
            [numpy_helper.from_array(weight(16, width), f"{name}_u"), numpy_helper.from_array(weight(width, 16), f"{name}_v")],
        )  # fmt: skip
    return b.finish(b.linear(b.node("Relu", b.node("If", yes, **graphs)), 16, 4), ["batch", 4])


@pytest.mark.parametrize(("first", "second", "taken"), [(8, 32, "else_branch"), (32, 8, "then_branch")])
def test_if_costs_its_dearer_branch_and_says_which(first: int, second: int, taken: str) -> None:
    inner = [node("MatMul", ["a", "u"], ["h"]), node("MatMul", ["h", "v"], ["y"])]
    own_costs = [own(inner, {"a": [1, 16]}, ["y"], u=weight(16, n), v=weight(n, 16)) for n in (first, second)]
    cost = cost_of(branching(first, second))
    found = owner(cost, "If")
    assert own_costs[0].total != own_costs[1].total
    assert found.total == pytest.approx(max(once.total for once in own_costs), rel=1e-12)
    assert found.method == f"{taken} x 1"
    assert found.macs == 2 * 16 * 32
    assert cost.coverage_macs == 1.0


def scan(axis: int = 0) -> onnx.ModelProto:
    """A Scan over the first of two axes, or over the second, that multiplies each slice by a matrix."""
    b = Builder([1, 12])
    t = b.node("Relu", b.linear("x", 12, 30))
    t = b.node("Reshape", t, b.const([5, 1, 6] if axis == 0 else [1, 5, 6], np.int64))
    b.constants.append(numpy_helper.from_array(weight(6, 6), "w"))
    body = helper.make_graph(
        [node("Add", ["sum", "row"], ["total"]), node("MatMul", ["total", "w"], ["out"])], "body",
        [value("sum", FLOAT, [1, 6]), value("row", FLOAT, [1, 6])], [value("total", FLOAT, None), value("out", FLOAT, None)],
    )  # fmt: skip
    first = b.const(np.zeros((1, 6)))
    _last, rows = b.node("Scan", first, t, outs=2, num_scan_inputs=1, scan_input_axes=[axis], body=body)
    return b.finish(b.linear(b.node("Relu", rows), 6, 4), [5, 1, 4])


@pytest.mark.parametrize("axis", [0, 1])
def test_scan_costs_the_length_of_its_axis_times_its_body(axis: int) -> None:
    inner = [node("Add", ["sum", "row"], ["total"]), node("MatMul", ["total", "w"], ["out"])]
    once = own(inner, {"sum": [1, 6], "row": [1, 6]}, ["total", "out"], w=weight(6, 6))
    cost = cost_of(scan(axis))
    assert owner(cost, "Scan").method == "body x 5"
    assert owner(cost, "Scan").total == pytest.approx(5 * once.total, rel=1e-12)
    assert cost.unmodelled == ()


def nested(around: str) -> onnx.GraphProto:
    inner = helper.make_graph(
        [node("Identity", ["go2"], ["on2"]), node("MatMul", ["s2", "w"], ["n2"])], "inner",
        [value("j", INT64, []), value("go2", BOOL, []), value("s2", FLOAT, None)],
        [value("on2", BOOL, []), value("n2", FLOAT, None)],
    )  # fmt: skip
    two = node("Constant", [], ["two"], value=numpy_helper.from_array(np.asarray(2, np.int64)))
    yes = node("Constant", [], ["yes"], value=numpy_helper.from_array(np.asarray(True)))
    return loop_body([two, yes, node("Loop", ["two", "yes", "state"], ["n3"], body=inner), node("Relu", ["n3"], ["next"])])


def test_loop_in_a_loop_multiplies_its_trips() -> None:
    cost = cost_of(loop(3, nested))
    assert owner(cost, "Loop").macs == 3 * 2 * 256
    assert cost.coverage_macs == 1.0


def stops_early(_: str) -> onnx.GraphProto:
    body = loop_body(INNER)
    body.node[0].CopyFrom(node("Less", ["i", "five"], ["on"]))
    body.initializer.append(numpy_helper.from_array(np.asarray(5, np.int64), "five"))
    return body


def grows(_: str) -> onnx.GraphProto:
    return loop_body([node("Concat", ["state", "state"], ["next"], axis=0)])


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"trips": None}, "number of trips is not a constant"),
        ({"body": stops_early}, "can end it before its last trip"),
        ({"body": grows}, "changes its shape from trip to trip"),
    ],
)
def test_what_is_not_known_before_the_run_is_listed_with_the_reason(facts: dict[str, Any], words: str) -> None:
    graph = parse(normalize(loop(**facts)))
    ((key, reason),) = [entry for entry in graph.unmodelled if entry[1].startswith("Loop")]
    cost = MODEL.cost(graph)
    assert words in reason
    assert owner(cost, "Loop").key == key and owner(cost, "Loop").method == "unmodelled"
    assert (key, reason) in cost.unmodelled and cost.coverage_macs < 1.0


def test_unknown_operator_in_a_body_is_listed_and_lowers_the_coverage_once_for_each_trip() -> None:
    body = loop_body([node("MatMul", ["state", "w"], ["m"]), node("Acosh", ["m"], ["next"])])
    cost = cost_of(loop(3, lambda _: body))
    ((key, reason),) = cost.unmodelled
    assert key.endswith("/next") and "Acosh" in reason
    known = 8 * 16 + 3 * 256 + 16 * 4
    assert cost.coverage_macs == pytest.approx(known / (known + 3 * 16))


@pytest.mark.parametrize("make", [loop, scan, lambda: branching(8, 32), lambda: loop(2, nested)])
def test_fast_total_and_steps_contain_the_bodies(make: Callable[[], onnx.ModelProto]) -> None:
    graph = parse(normalize(make()))
    cost = MODEL.cost(graph)
    assert sum(found.total for found in cost.nodes) == pytest.approx(cost.total, rel=1e-12)
    assert MODEL.cost_total(graph) == pytest.approx(cost.total, rel=1e-12)
    settled = MODEL.settle(graph)
    steps = sum(MODEL.step_energy(graph, settled, index) for index in range(len(settled.steps)))
    assert steps == pytest.approx(cost.total, rel=1e-12)


def test_tensors_that_enter_and_leave_a_body_do_not_stay_on_chip() -> None:
    b = Builder(["batch", 8])
    t = b.node("Softmax", b.node("Relu", b.linear("x", 8, 16)))
    plain = b.finish(b.linear(b.node("Relu", t), 16, 4), ["batch", 4])
    for proto, place in ((plain, "stays on chip"), (loop(3), "dram")):
        layers = [found for found in cost_of(proto).nodes if found.op_type == "MatMul"]
        assert layers[0].mapping["output"] == place
    after = [found for found in cost_of(loop(3)).nodes if found.op_type == "Relu"][-1]
    assert after.accesses["dram"]["I"]["read"] == 16


def test_weights_of_a_body_that_stay_for_ever_are_not_read_again() -> None:
    profile = load_profile("edge-flex")
    roomy = CostModel(profile.model_copy(update={"residency": profile.residency.model_copy(update={"weights_bytes": 4096})}))
    tight = CostModel(profile.model_copy(update={"residency": profile.residency.model_copy(update={"weights_bytes": 300})}))
    graph = parse(normalize(loop(3)))
    found = [owner(model.cost(graph), "Loop") for model in (roomy, tight, MODEL)]
    assert found[0].energy["dram"] < found[1].energy["dram"] == found[2].energy["dram"]
    assert roomy.cost_total(graph) == pytest.approx(roomy.cost(graph).total)


@pytest.mark.parametrize("make", [loop, scan, lambda: branching(8, 32)])
def test_written_file_with_a_body_costs_what_its_plan_said(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    model = make()
    applied = hwc_onnx.apply_plan(model, plan=hwc_onnx.uniform_plan(model, "w4a8"), recovery="none")
    again = hwc_onnx.profile(applied.save(tmp_path / "m.onnx").path).cost
    assert again.total == pytest.approx(applied.cost.total, rel=1e-9)
    assert again.unmodelled == ()
    assert applied.cost.total < applied.float_cost.total
