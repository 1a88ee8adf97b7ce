"""Files of dialect qonnx run in the qonnx package, which makes the same integers; and they are read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("qonnx", reason="qonnx belongs to the extra dev")

from qonnx.core.onnx_exec import execute_onnx
from qonnx.custom_op.general.intquant import int_quant

from hwc_onnx import api
from hwc_onnx.accuracy.runner import open_session
from hwc_onnx.errors import RuntimeFailure
from hwc_onnx.export import file_bytes, serializable, write_model
from hwc_onnx.graph.loading import load_model
from hwc_onnx.graph.quant_nodes import QUANT_DOMAIN, Quant, quant_nodes, with_qdq
from hwc_onnx.graph.read_qdq import read_qdq
from hwc_onnx.quantization.quantizer import QuantizedWeight
from hwc_onnx.rewrite import quant_nodes as writing
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from hwc_onnx.runtimes.elsewhere import for_qonnx, in_qonnx
from hwc_onnx.workspace import load_samples
from tests.dialects.written import PAIRS, constant, equal_but_for_ties, expected, step, within_a_step, written
from tests.rewrite.quantized_case import QuantizedCase, relative, run_at
from tests.rewrite.small_models import NAMES

ROOT = Path(__file__).parents[2]


def outputs(file: onnx.ModelProto, feeds: dict[str, NDArray]) -> NDArray:
    (found,) = in_qonnx(file, open_session(with_qdq(file), 1, "disable")).run(feeds)
    return np.asarray(found)


@pytest.mark.parametrize("name", NAMES)
def test_qonnx_equals_the_integer_reference(name: str) -> None:
    quantized = QuantizedCase.of(name)
    for weight_bits, activation_bits in PAIRS:
        file = serializable(written(quantized, "qonnx", weight_bits, activation_bits))
        found = outputs(file, quantized.case.feeds)
        wanted, size = expected(quantized, "qonnx", weight_bits, activation_bits), step(quantized, "qonnx", activation_bits)
        assert within_a_step(found, wanted, size), (weight_bits, activation_bits)


def test_a_quant_node_one_bit_narrower_fails_the_oracle() -> None:
    quantized = QuantizedCase.of("chain")
    file = serializable(written(quantized, "qonnx", 8, 4))
    node = next(node for node in quant_nodes(file) if node.input[0] == "z")
    file.graph.initializer.append(numpy_helper.from_array(np.array(3.0, np.float32), "narrower"))
    node.input[3] = "narrower"
    found = outputs(file, quantized.case.feeds)
    assert not equal_but_for_ties(found, expected(quantized, "qonnx", 8, 4), step(quantized, "qonnx", 4))


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_has_the_same_integers_in_qonnx_and_every_file_comes_back(name: str) -> None:
    quantized = QuantizedCase.of(name)
    for weight_bits, activation_bits in ((8, 8), (3, 4), (2, 4), (16, 8)):
        before = written(quantized, "qonnx", weight_bits, activation_bits)
        file = serializable(before)
        assert not [node for node in file.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Clip") and node.name not in {n.name for n in quantized.case.model.graph.node}]
        again = load_model(file)
        assert again.quant_nodes == len(quant_nodes(file)) > 0
        first, second = read_qdq(before), read_qdq(again.proto)
        assert first.weight_bits == second.weight_bits and first.activation_bits == second.activation_bits
        assert first.weight_density == second.weight_density
        twin = run_at(again.proto, quantized.case.feeds, "disable")
        assert np.array_equal(twin, run_at(before, quantized.case.feeds, "disable"))
        for node in quant_nodes(file):
            if any(tensor.name == node.input[0] for tensor in file.graph.initializer):
                values, scale, zero, bits = (numpy_helper.to_array(constant(file, part)) for part in node.input)
                assert np.array_equal(int_quant(values, scale, zero, bits, 1, 0, "ROUND"), values)


def test_a_mirrored_two_bit_channel_has_zero_point_minus_one() -> None:
    quantized = QuantizedCase.of("chain")
    weights = dict(quantized.weights(2))
    codes = np.array(weights["c1"].codes)
    codes[0], codes[1] = np.resize([-1, 0, 2], codes[0].shape), np.resize([-2, 0, 1], codes[1].shape)
    weights["c1"] = QuantizedWeight(codes, weights["c1"].params, weights["c1"].bias, 1.0)
    model = insert_qdq(quantized.case.model, quantized.graph, weights, quantized.activations(8), "qonnx")
    file = serializable(model)
    node = next(node for node in quant_nodes(file) if node.output[0] == "w1")
    values, scale, zero, bits = (numpy_helper.to_array(constant(file, part)) for part in node.input)
    assert bits == 2 and zero.reshape(-1)[:2].tolist() == [-1.0, 0.0]
    assert np.array_equal(np.rint(int_quant(values, scale, zero, bits, 1, 0, "ROUND") / scale), codes)
    assert relative(outputs(file, quantized.case.feeds), run_at(model, quantized.case.feeds, "disable")) <= 0.02


def test_a_file_that_reads_back_otherwise_is_not_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Broken twin: a reader that is off by one in one weight."""
    model = written(QuantizedCase.of("chain"), "qonnx", 4, 8)

    def spoiled(proto: onnx.ModelProto) -> onnx.ModelProto:
        found = with_qdq(proto)
        tensor = next(tensor for tensor in found.graph.initializer if tensor.name == "w1_quantized")
        codes = numpy_helper.to_array(tensor).copy()
        codes.flat[0] += 1
        tensor.CopyFrom(numpy_helper.from_array(codes, tensor.name))
        return found

    monkeypatch.setattr(writing, "with_qdq", spoiled)
    with pytest.raises(RuntimeFailure, match=r"tensor 'w1': its Quant node has another integers"):
        write_model(model, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_file_bytes_are_those_of_the_quant_nodes(tmp_path: Path) -> None:
    model = written(QuantizedCase.of("residual"), "qonnx", 4, 8)
    file = write_model(model, tmp_path / "m.onnx")
    assert file.file_bytes == file_bytes(model) > file_bytes(written(QuantizedCase.of("residual"), "ort", 4, 8))
    assert write_model(load_model(file.path).proto, tmp_path / "again.onnx").sha256 == file.sha256


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-40, 40, width=32), min_size=1, max_size=40),
    st.sampled_from([0.25, 0.1, 1.0, 0.3125, 7e-3]),
    st.integers(-3, 12),
    st.integers(2, 8),
    st.booleans(),
    st.booleans(),
)
def test_our_quant_node_rounds_as_the_package_does(
    values: list[float], scale: float, zero: int, bits: int, signed: bool, narrow: bool
) -> None:
    x, s, z = np.array(values, np.float32), np.array(scale, np.float32), np.array(zero, np.float32)
    ours = Quant(s, z, bits, signed, narrow)
    found = (ours.integers(x).astype(np.float32) - z) * s
    assert np.array_equal(found, int_quant(x, s, z, np.array(bits, np.float32), int(signed), int(narrow), "ROUND"))


def test_rounding_to_even_after_the_zero_point_differs_at_ties_alone() -> None:
    """What the page says of odd zero points, and the broken twin of the test above."""
    x, scale = np.array([0.5, 1.5, 0.51], np.float32), np.array(1.0, np.float32)
    node = Quant(scale, np.array(1.0, np.float32), 8, False, False).integers(x)
    assert node.tolist() == [2, 2, 2] and (np.rint(x) + 1).tolist() == [1, 3, 2]


def foreign(source: str = "x", opset: int = 17, attributes: dict | None = None, **constants: NDArray) -> onnx.ModelProto:
    """A model of another tool: one Quant node on `source`, or on a constant, and a product."""
    given_attributes = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **(attributes or {})}
    nodes = [
        helper.make_node("Quant", [source, "s", "z", "b"], ["q"], name="quant", domain=QUANT_DOMAIN, **given_attributes),
        helper.make_node("MatMul", ["x", "q"] if source != "x" else ["q", "w"], ["y"], name="product"),
    ]
    tensors = {"s": np.float32(0.5), "z": np.float32(0), "b": np.float32(4), "w": np.eye(4, dtype=np.float32), **constants}
    graph = helper.make_graph(
        nodes,
        "m",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.asarray(values, np.float32), name) for name, values in tensors.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(QUANT_DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize(
    ("attributes", "constants"),
    [
        ({}, {}),
        ({"signed": 0}, {"z": np.float32(3)}),
        ({"narrow": 1}, {}),
        ({"signed": 0, "narrow": 1}, {"b": np.float32(8)}),
    ],
)
def test_quant_nodes_of_other_tools_are_read_and_compute_the_same(attributes: dict, constants: dict) -> None:
    model = foreign(attributes=attributes, **constants)
    loaded = load_model(model)
    assert loaded.quant_nodes == 1 and not quant_nodes(loaded.proto)
    x = np.random.default_rng(0).uniform(-6, 6, (32, 4)).astype(np.float32)
    theirs = execute_onnx(for_qonnx(model, {"x": x}), {"x": x})["y"]
    assert np.array_equal(run_at(loaded.proto, {"x": x}, "disable"), theirs)
    widths = 4 if "b" not in constants else 8
    assert dict(read_qdq(loaded.proto).activation_bits) == {"x": widths}


def test_a_weight_with_zero_points_is_read_with_its_width() -> None:
    weight = np.random.default_rng(1).uniform(-1, 1, (4, 4)).astype(np.float32)
    scale, zero = np.full((1, 4), 0.1, np.float32), np.array([[8, 7, 9, 8]], np.float32)
    model = foreign("w", attributes={"signed": 0}, w=weight, s=scale, z=zero)
    loaded = load_model(model)
    x = np.eye(4, dtype=np.float32)
    theirs = execute_onnx(for_qonnx(model, {"x": x}), {"x": x})["y"]
    assert np.array_equal(run_at(loaded.proto, {"x": x}, "disable"), theirs)
    assert np.unique(theirs).size > 5


@pytest.mark.parametrize(
    "model",
    [
        foreign(attributes={"rounding_mode": "FLOOR"}),
        foreign(b=np.float32(12)),
        foreign(b=np.float32(3.5)),
        foreign(s=np.full((1, 4), 0.5)),
        foreign(z=np.float32(0.5)),
        foreign(opset=12),
    ],
    ids=["rounding", "width", "half a bit", "scale per channel", "half a zero point", "opset"],
)
def test_what_has_no_form_in_qdq_stays_as_it_is(model: onnx.ModelProto) -> None:
    assert with_qdq(model) is model
    loaded = load_model(model)
    assert loaded.quant_nodes == 0 and len(quant_nodes(loaded.proto)) == 1


@pytest.mark.parametrize(("name", "setting", "bound"), [("resnet20", "w3a4", 1e-6), ("vit_tiny", "w8a8", 0.03)])
def test_sample_networks_compute_the_same_in_qonnx(name: str, setting: str, bound: float, tmp_path: Path) -> None:
    source, data = ROOT / "sample_models" / f"{name}.onnx", ROOT / "sample_models" / "fashion_mnist.npz"
    plan = api.uniform_plan(source, setting)
    applied = api.apply_plan(source, plan=plan, data="synthetic:400", recovery="none", dialect="qonnx")
    file, loaded = onnx.load(applied.save(tmp_path / "m.onnx").path), load_model(tmp_path / "m.onnx")
    inputs = load_samples(data, loaded.proto, None, None).pool.samples().take(slice(0, 8)).inputs
    assert relative(outputs(file, inputs), run_at(loaded.proto, inputs, "disable")) <= bound
    assert api.profile(tmp_path / "m.onnx").cost.total == pytest.approx(applied.cost.total, rel=1e-9)
