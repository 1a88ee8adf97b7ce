"""Inputs that are not stacked along their first axis: states, single numbers, sequences before the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import hwc_onnx
from hwc_onnx.accuracy.data_shapes import shapes_from_data
from hwc_onnx.accuracy.datasets import index_limits, load_data
from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.runner import open_session, run
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.graph.compared import compared_values
from hwc_onnx.normalize.compare import random_feeds

RNG = np.random.default_rng(3)


def array(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def cell(rate: bool = True) -> onnx.ModelProto:
    """A voice detector's habits: a state with the layers first, a rate that chooses a branch, only one of which fits."""
    tail = """
        {
            wanted = Constant <value = int64 {16000}> ()
            known = Equal (rate, wanted)
            scaled = If (known) <
                then_branch = t () => (a) { a = Identity (h) },
                else_branch = e () => (b) { two = Constant <value = int64[2] {7, 9}> ()  b = Reshape (h, two) }
            >"""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> cell '
        f"(float[batch,6] x, float[2,batch,4] state{', int64 rate' if rate else ''}) => (float[batch,3] y, float[2,batch,4] next)"
        + (tail if rate else "{ scaled = Identity (h)")
        + """
            next = Add (state, state)
            y = MatMul (scaled, u)
        }"""
    )
    first = onnx.parser.parse_graph(
        """g (float[batch,6] x, float[2,batch,4] state) => (float[batch,4] h)
        { p = MatMul (x, w)  zero = Constant <value = int64 {0}> ()  one = Gather (state, zero)  s = Add (p, one)  h = Tanh (s) }"""
    )
    nodes = [*first.node, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend([onnx.numpy_helper.from_array(array(6, 4), "w"), onnx.numpy_helper.from_array(array(4, 3), "u")])
    return model


def test_a_state_and_a_single_number_are_whole_inputs_of_one_run() -> None:
    specs = {spec.name: spec for spec in input_specs(cell())}
    assert [spec.whole for spec in specs.values()] == [False, True, True]
    assert specs["x"].shape == (1, 6) and specs["state"].shape == (1, 2, None, 4) and specs["rate"].shape == (1,)
    samples = Samples({"x": array(5, 6), "state": array(5, 2, 1, 4), "rate": np.full(5, 16000)}, None)
    found = run(open_session(cell()), samples)
    assert found["y"].shape == (5, 1, 3) or found["y"].shape == (5, 3)
    np.testing.assert_allclose(found["next"].reshape(5, 2, 1, 4), 2 * samples.inputs["state"], rtol=1e-6)


@pytest.mark.parametrize("shapes", [["float[batch,6] x", "float[1,batch,4] z"], ["float[2,6] x", "float[2,4] z"], ["float[n,6] x"]])
def test_inputs_that_agree_stay_stacked(shapes: list[str]) -> None:
    name = shapes[0].split()[-1]
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> m ({", ".join(shapes)}) => (float y) {{ y = Relu ({name}) }}'
    )
    assert not any(spec.whole for spec in input_specs(model))


def test_made_up_inputs_take_the_branch_that_the_model_tests_for() -> None:
    model = cell()
    assert compared_values(model)["rate"] == 16000
    assert random_feeds(model, {"x": (1, 6), "state": (2, 1, 4), "rate": ()})["rate"] == 16000
    data = load_data(None, input_specs(model), input_shapes={"state": (2, 1, 4)}, model=model)
    assert set(np.unique(data.pool.samples().inputs["rate"])) == {16000}


def test_made_up_lengths_are_those_of_the_whole_sequence() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> m (int64[batch,7] tokens, int32[batch] input_lengths) => (int64 y)
        { y = Identity (tokens) }"""
    )
    made = load_data("synthetic:256", input_specs(model), model=model).pool.samples().inputs
    assert set(np.unique(made["input_lengths"])) == {7} and made["tokens"].max() > 7


def test_token_numbers_are_not_all_padding() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> m (int64[batch,7] ids) => (bool[batch,7] y) <int64 zero = {0}>
        { y = Equal (ids, zero) }"""
    )
    assert compared_values(model) == {}


@pytest.mark.parametrize("setting", ["w8a8", "w4a8,coarse=l1:0.3"])
def test_a_model_with_a_state_is_compressed_and_verified(setting: str, tmp_path: Path) -> None:
    path = tmp_path / "cell.onnx"
    onnx.save(cell(), path)
    applied = hwc_onnx.apply_plan(path, plan=hwc_onnx.uniform_plan(path, setting), data="synthetic:256")
    report = hwc_onnx.verify(applied.save(tmp_path / "small.onnx").path, against=path)
    assert all(check.passed for check in report.checks), report.checks


def test_open_sizes_of_whole_inputs_come_from_their_arrays() -> None:
    model = cell(rate=False)
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_param = ""
    arrays = {"x": array(5, 6), "state": array(5, 2, 1, 4)}
    assert shapes_from_data(model, arrays, None) == {"state": (2, 1, 4)}


def test_outputs_with_the_sequence_first_are_run_one_sample_at_a_time() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> m (float[batch,4,time] x) => (float[time,batch,4] y)
        { y = Transpose <perm = [2, 0, 1]> (x) }"""
    )
    session = open_session(model)
    assert session.fixed_batch == 1
    values = array(5, 4, 7)
    np.testing.assert_array_equal(run(session, Samples({"x": values}, None))["y"].reshape(5, 7, 4), values.transpose(0, 2, 1))


def test_index_limits_are_found_behind_a_gather_of_the_last_token() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> m (int64[batch,7] ids) => (float[batch,3] y) <float[9,3] table, int64 last = {-1}>
        { one = Gather <axis = 1> (ids, last)  y = Gather (table, one) }"""
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(array(9, 3), "table"))
    assert index_limits(model) == {"ids": 9}


def test_open_sizes_come_from_the_only_array_without_a_name(tmp_path: Path) -> None:
    nodes = [onnx.helper.make_node("Relu", ["image"], ["out"])]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", "width"]) for name in ("image", "out")]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "open", ends[:1], ends[1:]))
    np.savez(tmp_path / "one.npz", array(5, 7))
    np.savez(tmp_path / "two.npz", array(5, 7), array(5, 7))
    assert shapes_from_data(model, tmp_path / "one.npz", None) == {"image": (1, 7)}
    assert shapes_from_data(model, tmp_path / "two.npz", None) is None
