"""What exporters write is read: the normal form computes the same, has the layers one expects, and takes a plan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwc_onnx
from hwc_onnx.declarations import declarations
from hwc_onnx.errors import ModelError, RuntimeFailure
from hwc_onnx.graph import domains
from hwc_onnx.graph.external import tensor_values
from hwc_onnx.graph.infer import input_shapes_of, run_for
from hwc_onnx.graph.loading import load_model
from hwc_onnx.graph.model_view import opset_of
from hwc_onnx.graph.open_sizes import settle_open_sizes
from hwc_onnx.graph.read_qdq import read_qdq
from hwc_onnx.normalize import pipeline, quantized_operators
from hwc_onnx.normalize.compare import random_feeds, same_values
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.report.payloads import verify_payload
from hwc_onnx.report.verify_table import NOT_RUN, verify_tables
from hwc_onnx.workspace import open_model
from tests.loading import exporter_models as models
from tests.tiny_models import Builder

SHAPES = {"dynamic_sequence": {"x": (1, 7, 8)}, "dynamic_image": {"x": (1, 3, 12, 10)}}
LAYERS = {
    **{f"opset{version}": 3 for version in range(7, 27)},
    "batch_arithmetic": 2, "dynamic_pad": 2, "constant_nodes": 2, "identity_chain": 4, "cast_chain": 3,
    "unfused_norms": 3, "old_batch_norm": 2, "hard_swish_and_gelu": 5, "training_leftovers": 3,
    "two_inputs_two_outputs": 4, "token_ids": 2, "local_function": 3, "if_on_data": 3, "loop": 3, "scan": 2,
    "sequence_outside_layers": 3, "sparse_weight": 2, "optional_inputs": 3, "duplicate_node_names": 2,
    "clashing_names": 5, "bfloat16_weights": 2, "float16": 3, "double": 3,
}  # fmt: skip


def same_outputs(before: onnx.ModelProto, after: onnx.ModelProto, shapes: dict[str, tuple[int, ...]] | None) -> bool:
    """Whether both compute the same on new random input."""
    feeds = random_feeds(before, input_shapes_of(before, shapes, 2), seed=7)
    names = [value.name for value in before.graph.output]
    first, second = run_for(before, feeds, names), run_for(after, feeds, names)
    return (
        first is not None and second is not None and all(same_values(first[n], second[n], 300.0) for n in names)
    )


@pytest.mark.parametrize("name", [name for name in models.MODELS if name != "double"])
def test_normal_form_computes_what_the_model_does(name: str) -> None:
    loaded = load_model(models.MODELS[name]())
    after = normalize(loaded.proto)
    onnx.checker.check_model(after)
    assert same_outputs(loaded.proto, after, None)
    assert opset_of(after) >= 13


@pytest.mark.parametrize("name", list(models.MODELS))
def test_inspect_finds_every_layer(name: str) -> None:
    assert len(hwc_onnx.inspect(models.MODELS[name]()).layers) == LAYERS[name]


@pytest.mark.parametrize("name", list(SHAPES))
def test_dynamic_sizes_are_settled_by_input_shape(name: str) -> None:
    model = getattr(models, name)()
    with pytest.raises(ModelError, match="--input-shape"):
        hwc_onnx.inspect(model)
    after = normalize(load_model(model).proto, SHAPES[name])
    assert same_outputs(model, after, SHAPES[name])


@pytest.mark.parametrize(
    "name",
    ["opset8", "two_inputs_two_outputs", "token_ids", "local_function", "if_on_data", "loop", "float16",
     "duplicate_node_names", "clashing_names", "double"],
)  # fmt: skip
def test_uniform_plan_gives_a_model_close_to_the_original(name: str, tmp_path: Path) -> None:
    model = load_model(models.MODELS[name]()).proto
    feeds = random_feeds(model, input_shapes_of(model, None, 280), seed=3)
    np.savez(tmp_path / "data.npz", **feeds)
    plan = hwc_onnx.uniform_plan(model, "w8a8")
    applied = hwc_onnx.apply_plan(model, plan=plan, data=tmp_path / "data.npz", recovery="ranges")
    names = [value.name for value in model.graph.output]
    few = {key: array[:8] for key, array in feeds.items()}
    expected = run_for(model if name != "double" else normalize(model), few, names)
    found = run_for(onnx.load(applied.save(tmp_path / "out.onnx").path), few, names)
    assert expected is not None and found is not None
    for output in names:
        error = np.abs(found[output].astype(np.float64) - expected[output]).max()
        assert error <= 0.05 * np.abs(expected[output]).max()


def test_loading_numbers_equal_node_names() -> None:
    names = [node.name for node in load_model(models.duplicate_node_names()).proto.graph.node]
    assert len(set(names)) == len(names) and names[0] == "node"


@given(st.lists(st.sampled_from(["a", "a_2", "a_3", "b", ""]), min_size=8, max_size=8))
@settings(max_examples=40, deadline=None)
def test_node_names_are_unique_after_loading(names: list[str]) -> None:
    model = models.batch_arithmetic()
    for node, name in zip(model.graph.node, names, strict=False):
        node.name = name
    found = [node.name for node in load_model(model).proto.graph.node if node.name]
    assert len(set(found)) == len(found)


def test_sizes_declared_below_one_count_as_open() -> None:
    model = models.batch_arithmetic()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert not load_model(model).proto.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value")


@pytest.mark.parametrize("name", ["qoperator_model", "integer_operators", "rounded_biases", "qdq_model"])
def test_quantized_models_are_read_back_and_not_quantized_again(name: str) -> None:
    graph = hwc_onnx.inspect(getattr(models, name)())
    assert [layer.weight_bits for layer in graph.layers] == [8] * len(graph.layers) != []
    assert {layer.activation_bits for layer in graph.layers} == {8}
    with pytest.raises(ModelError, match="already quantized"):
        hwc_onnx.uniform_plan(getattr(models, name)(), "w4a4")


@pytest.mark.parametrize("name", ["qoperator_model", "integer_operators", "rounded_biases"])
def test_a_wrong_reading_of_quantized_operators_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = quantized_operators.to_quantizers

    def wrong(proto: onnx.ModelProto) -> bool:
        result = right(proto)
        node = next(node for node in proto.graph.node if node.op_type in ("Conv", "MatMul"))
        scale = next(t for t in proto.graph.initializer if t.name == _scale_of(proto, node.input[1]))
        scale.CopyFrom(onnx.numpy_helper.from_array(1.3 * onnx.numpy_helper.to_array(scale), scale.name))
        return result

    monkeypatch.setattr(pipeline, "to_quantizers", wrong)
    with pytest.raises(RuntimeFailure, match="normalization changed output"):
        normalize(getattr(models, name)())


def _scale_of(proto: onnx.ModelProto, name: str) -> str:
    """The scale of the DequantizeLinear that makes `name`."""
    return next(node.input[1] for node in proto.graph.node if name in node.output)


def custom_domain() -> onnx.ModelProto:
    model = models.custom_domain()
    model.graph.value_info.append(models.value("t2", ["batch", 6, 8, 8]))
    return model


def test_foreign_operator_is_left_alone_and_its_channels_are_locked() -> None:
    graph = hwc_onnx.inspect(custom_domain())
    assert len(graph.layers) == 4
    assert [key for key, _ in graph.unmodelled] == ["t2"]
    for group in graph.channel_groups:
        if {"t0"} & set(group.producers):
            assert group.locked_because is not None
    with pytest.raises(ModelError, match=r"Whiten.*acme\.vision.*inspect and profile"):
        hwc_onnx.compress(custom_domain())


def test_weights_beside_a_foreign_operator_are_rounded_without_a_run(tmp_path: Path) -> None:
    model = custom_domain()
    applied = hwc_onnx.apply_plan(model, plan=hwc_onnx.uniform_plan(model, "w4a16,fine=magnitude:0.5"), recovery="none")
    written = applied.save(tmp_path / "m.onnx")
    assert applied.evaluation is None and any("Whiten" in note for note in applied.notes)
    before, after = open_model(model), open_model(written.path)
    assert {layer.weight_bits for layer in after.graph.layers} == {4}
    assert {info.bits for info in after.graph.tensors.values() if info.kind == "activation"} == {16}
    assert [node.op_type for node in after.loaded.proto.graph.node].count("Whiten") == 1
    wholes, parts = ({layer.key: layer for layer in opened.graph.layers} for opened in (before, after))
    for key, layer in wholes.items():
        assert layer.weight is not None and parts[key].weight is not None
        weight = weight_of(before.proto, layer.weight)
        axes = tuple(axis for axis in range(weight.ndim) if axis != layer.output_axis)
        found = weight_of(read_qdq(after.loaded.proto).proto, parts[key].weight)
        step = np.abs(weight).max(axis=axes, keepdims=True) / 7
        kept = found != 0
        assert (np.abs(found - weight)[kept] <= np.broadcast_to(0.5 * step, weight.shape)[kept] * (1 + 1e-5)).all()
        assert 0.5 <= 1 - kept.mean() < 0.75
    cost = hwc_onnx.profile(written.path).cost
    assert cost.total == pytest.approx(applied.cost.total, rel=1e-9)
    assert [key for key, _ in cost.unmodelled] == ["t2"]
    report = hwc_onnx.verify(written.path, against=model)
    assert report.passed and report.levels == () and report.n_samples == 0
    assert any(check.name == "not run" and "acme.vision" in check.found for check in report.checks)
    assert not hwc_onnx.verify(written.path, against=models.batch_arithmetic()).passed
    payload = verify_payload(report, "m.hwc.onnx", "m.onnx")
    assert NOT_RUN in verify_tables(payload)


@pytest.mark.parametrize(
    ("spec", "recovery", "words"),
    [
        ("w8a8", "none", "activations below 16 bits; round the weights alone"),
        ("w8a16", "full", "recovery 'full'; round the weights alone"),
        ("w8a16,fine=wanda:0.5", "none", "algorithm 'wanda'; round"),
    ],
)
def test_what_needs_a_run_is_refused_beside_a_foreign_operator(spec: str, recovery: str, words: str) -> None:
    plan = hwc_onnx.uniform_plan(custom_domain(), spec)
    with pytest.raises(ModelError, match=f"Whiten.*acme.vision.*{words}"):
        hwc_onnx.apply_plan(custom_domain(), plan=plan, recovery=recovery)


def weight_of(proto: onnx.ModelProto, name: str) -> np.ndarray:
    return next(tensor_values(tensor) for tensor in proto.graph.initializer if tensor.name == name)


def test_a_wrong_rewrite_beside_a_foreign_operator_is_noticed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = custom_domain()
    assert [node.op_type for node in domains.foreign_nodes(normalize(model))] == ["Whiten"]

    def wrong(proto: onnx.ModelProto, *_: object) -> None:
        node = next(node for node in proto.graph.node if node.op_type == "Relu")
        node.op_type = "Abs"

    monkeypatch.setattr(pipeline, "merge_affine", wrong)
    normalize(model)
    assert "left out" in caplog.text and "operand 0 of whiten2" in caplog.text


def test_an_opset_that_the_converter_cannot_raise_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no adapter")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    model = models.opset(11)
    after = normalize(model)
    assert opset_of(after) == 11
    assert same_outputs(model, after, None)


@pytest.mark.parametrize("size", [9, 10])
def test_open_size_is_found_where_a_linear_layer_fixes_it(size: int) -> None:
    """10 rows and 9 rows both give 5 behind a stride of 2; the one that can be halved is meant."""
    opened = open_model(models.dynamic_image(fixed_by_gemm=True))
    assert opened.graph.tensors["x"].shape == (1, 3, 10, 10)
    x = np.zeros((1, 3, size, size), np.float32)
    assert run_for(models.dynamic_image(fixed_by_gemm=True), {"x": x}, ["y"]) is not None


@pytest.mark.parametrize("name", list(SHAPES))
def test_open_sizes_come_from_the_data(name: str, tmp_path: Path) -> None:
    model = getattr(models, name)()
    x = np.random.default_rng(0).standard_normal((280, *SHAPES[name]["x"][1:])).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    plan = hwc_onnx.uniform_plan(model, "w8a8", data=tmp_path / "data.npz")
    applied = hwc_onnx.apply_plan(model, plan=plan, data=tmp_path / "data.npz", recovery="ranges")
    assert declarations(applied.proto, model, "input").passed
    axes = [dim.HasField("dim_value") for dim in applied.proto.graph.input[0].type.tensor_type.shape.dim]
    twice = np.zeros((2, *(size if fixed else 2 * size for size, fixed in zip(SHAPES[name]["x"][1:], axes[1:], strict=True))), np.float32)
    assert run_for(applied.proto, {"x": twice}, [applied.proto.graph.output[0].name]) is not None, "what is declared open varies"
    assert axes[0] is False and (name != "dynamic_sequence" or axes[1]), "the Reshape targets of this one are settled"
    assert hwc_onnx.profile(model, data={"x": x}).graph.tensors["x"].shape == SHAPES[name]["x"]


def test_model_with_a_found_size_is_applied_and_verified(tmp_path: Path) -> None:
    onnx.save(models.dynamic_image(fixed_by_gemm=True), tmp_path / "m.onnx")
    plan = hwc_onnx.uniform_plan(tmp_path / "m.onnx", "w8a8")
    written = hwc_onnx.apply_plan(tmp_path / "m.onnx", plan=plan, recovery="none").save(tmp_path / "out.onnx")
    report = hwc_onnx.verify(written.path, against=tmp_path / "m.onnx", accelerator=None)
    assert all(check.passed for check in report.checks), report.checks


def test_open_length_is_found_from_a_table_of_positions() -> None:
    b = Builder(["batch", "sequence", 8])
    table = b.const(b.rng.normal(0, 1, (1, 12, 8)))
    model = b.finish(b.linear(b.node("Add", "x", table), 8, 5), ["batch", "sequence", 5])
    assert open_model(model).graph.tensors["x"].shape == (1, 12, 8)


@pytest.mark.parametrize("name", list(SHAPES))
def test_open_sizes_that_nothing_fixes_stay_open(name: str) -> None:
    model = getattr(models, name)()
    settle_open_sizes(model)
    assert model == getattr(models, name)()
