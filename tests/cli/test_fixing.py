"""Inputs that become constants, against the original fed with the same values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import hwc_onnx
from hwc_onnx.errors import ModelError, UsageError
from hwc_onnx.graph.fixed_inputs import deciding_inputs
from tests import tiny_models
from tests.cli.running import hwc

RATES = (8, 16)


def choosing(nested: bool = False) -> onnx.ModelProto:
    """Two linear layers, of which the input `rate` chooses one; `scale` multiplies the result."""
    rng = np.random.default_rng(0)

    def branch(name: str, extra: bool) -> onnx.GraphProto:
        weight = numpy_helper.from_array(rng.normal(size=(6, 4)).astype(np.float32), f"{name}_w")
        nodes = [helper.make_node("MatMul", ["x", f"{name}_w"], [f"{name}_m"])]
        last = f"{name}_m"
        if extra:
            plain = helper.make_graph([helper.make_node("Relu", [last], ["t"])], "t", [], [out("t")])
            turned = helper.make_graph([helper.make_node("Neg", [last], ["e"])], "e", [], [out("e")])
            nodes += [helper.make_node("Less", ["rate", "limit"], ["less"])]
            nodes += [helper.make_node("If", ["less"], [f"{name}_r"], then_branch=plain, else_branch=turned)]
            last = f"{name}_r"
        return helper.make_graph(nodes, name, [], [out(last)], [weight])

    def out(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    graph = helper.make_graph(
        [
            helper.make_node("Equal", ["rate", "wide"], ["same"]),
            helper.make_node("If", ["same"], ["y0"], then_branch=branch("a", nested), else_branch=branch("b", nested)),
            helper.make_node("Mul", ["y0", "scale"], ["y"]),
        ],
        "choosing",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6]),
            helper.make_tensor_value_info("rate", TensorProto.INT64, []),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1, 4]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in (("wide", 16), ("limit", 9))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("rate", RATES)
def test_the_fixed_model_computes_what_the_original_does_for_these_values(rate: int, nested: bool) -> None:
    model = choosing(nested)
    x, scale = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32), np.array([[1, 2, 3, 4]], np.float32)
    expected = {r: tiny_models.run(model, {"x": x, "rate": np.array(r), "scale": scale}, ["y"])[0] for r in RATES}
    fixed = hwc_onnx.fix(model, {"rate": rate, "scale": scale})
    assert fixed.left == ("x",) and {node.op_type for node in fixed.proto.graph.node} <= {"MatMul", "Mul", "Relu", "Neg", "Identity"}
    (found,) = tiny_models.run(fixed.proto, {"x": x}, ["y"])
    np.testing.assert_array_equal(found, expected[rate])
    other = next(r for r in RATES if r != rate)
    assert not np.allclose(found, expected[other])
    assert [value.name for value in model.graph.input] == ["x", "rate", "scale"]


def test_a_model_that_chooses_its_layers_is_pointed_here_and_then_compressed(tmp_path: Path) -> None:
    path, data = tmp_path / "m.onnx", tmp_path / "d.npz"
    onnx.save(choosing(), path)
    np.savez(data, x=np.random.default_rng(2).normal(size=(400, 6)).astype(np.float32))
    assert deciding_inputs(choosing()) == ["rate"]
    result = hwc("apply", path, "--uniform", "w8a8", "--data", data)
    assert result.exit_code == 4 and "hwc-onnx fix MODEL --input rate=VALUE" in result.stderr
    result = hwc("fix", path, "--input", "rate=16", "--input", "scale=1", "-o", tmp_path / "f.onnx", "--json")
    assert result.exit_code == 0, result.stderr
    assert [one["value"] for one in json.loads(result.stdout)["fixed"]] == [16, [[1.0] * 4]]
    result = hwc("apply", tmp_path / "f.onnx", "--uniform", "w8a8", "--data", data, "-o", tmp_path / "c.onnx")
    assert result.exit_code == 0, result.stderr


def test_fix_payload_follows_its_schema(tmp_path: Path, schema) -> None:
    onnx.save(choosing(), tmp_path / "m.onnx")
    result = hwc("fix", tmp_path / "m.onnx", "--input", "rate=16", "-o", tmp_path / "f.onnx", "--json")
    schema("fix", json.loads(result.stdout))


@pytest.mark.parametrize(("rate", "odd"), [(16, False), (61, True)])
def test_a_value_that_the_model_does_not_ask_for_is_said(rate: int, odd: bool, tmp_path: Path) -> None:
    model = choosing()
    model.graph.node.insert(0, helper.make_node("Cast", ["rate"], ["rate_again"], to=TensorProto.INT64))
    model.graph.node[1].input[0] = "rate_again"
    onnx.save(model, tmp_path / "m.onnx")
    result = hwc("fix", tmp_path / "m.onnx", "--input", f"rate={rate}", "-o", tmp_path / "f.onnx")
    assert result.exit_code == 0
    assert ("compares rate with 16, and 61 is none" in result.stdout.replace("\n  ", " ")) == odd


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({}, UsageError, "no input is given a value"),
        ({"rat": 1}, UsageError, "no such input.*choose from x, rate, scale"),
        ({"rate": 1.5}, UsageError, "1.5 is no int64"),
        ({"rate": 2**70}, UsageError, "is no int64"),
        ({"scale": [1.0, 2.0]}, UsageError, r"shape \[2\], the input \[1, 4\]"),
        ({"scale": "much"}, UsageError, "is no float"),
        ({"x": 0}, ModelError, "its shape is open"),
        ({"scale": [[1.0], [1.0, 2.0]]}, UsageError, "no number and no array"),
        ({"scale": 1e-50}, UsageError, "is no float"),
    ],
)
def test_values_that_do_not_fit_are_refused(values: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        hwc_onnx.fix(choosing(), values)


def test_a_branch_that_chance_chooses_stays() -> None:
    model = choosing()
    draw = helper.make_node("RandomUniform", [], ["drawn"], shape=[1])
    less = helper.make_node("Less", ["drawn", "half"], ["same"])
    model.graph.node.remove(model.graph.node[0])
    for node in (less, draw):
        model.graph.node.insert(0, node)
    model.graph.initializer.append(numpy_helper.from_array(np.float32([0.5]), "half"))
    fixed = hwc_onnx.fix(model, {"rate": 16})
    assert any(node.op_type == "If" for node in fixed.proto.graph.node)


def test_only_flags_of_branches_with_layers_are_pointed_at() -> None:
    model = choosing()
    assert deciding_inputs(model) == ["rate"]
    for node in model.graph.node:
        for attribute in node.attribute:
            del attribute.g.node[1:]
            attribute.g.node[0].op_type = "Relu"
    assert deciding_inputs(model) == []
    data = choosing()
    data.graph.node[0].CopyFrom(helper.make_node("ReduceMax", ["x"], ["same"]))
    assert deciding_inputs(data) == []


def test_an_input_is_given_one_value(tmp_path: Path) -> None:
    onnx.save(choosing(), tmp_path / "m.onnx")
    result = hwc("fix", tmp_path / "m.onnx", "--input", "rate=8", "--input", "rate=16")
    assert result.exit_code == 2 and "given twice" in result.stderr


def test_one_input_stays() -> None:
    model = choosing()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(UsageError, match="all inputs"):
        hwc_onnx.fix(model, {"x": 0, "rate": 16, "scale": 1})
