from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwc_onnx.accuracy.inputs import input_specs
from hwc_onnx.accuracy.runner import LEVELS, batch_size, cpu_features, open_session, run, usable_threads
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError, RuntimeFailure
from tests.accuracy.linear_model import CLASSES, classifier, labelled, weights


def samples(count: int) -> Samples:
    return Samples({"image": labelled(count)[0]}, None)


@pytest.mark.parametrize("level", [*LEVELS, "fake_quant"])
def test_run_every_level_equals_numpy(level):
    given = samples(10)
    found = run(open_session(classifier(), 1, level), given)["logits"]
    np.testing.assert_allclose(found, given.inputs["image"].reshape(10, -1) @ weights(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_run_fixed_batch_pads_the_last_batch(count):
    given = samples(count)
    session = open_session(classifier(batch=4), 1)
    assert session.fixed_batch == 4
    found = run(session, given)["logits"]
    assert found.shape == (count, CLASSES)
    np.testing.assert_allclose(found, given.inputs["image"].reshape(count, -1) @ weights(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_run_any_batch_same_rows(batch):
    given = samples(10)
    session = open_session(classifier(), 1)
    np.testing.assert_allclose(
        run(session, given, batch)["logits"], run(session, given)["logits"], rtol=1e-5, atol=1e-5
    )


def test_batch_size_is_the_models_own_or_shrinks_with_the_input():
    assert batch_size(open_session(classifier(batch=4), 1)) == 4
    small = open_session(classifier(), 1)
    large = replace(small, inputs=(replace(small.inputs[0], shape=(None, 3, 224, 224)),))
    assert 1 <= batch_size(large) < batch_size(small) <= 64


def _model(shape_out: list[object], nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, shape_out)],
        [helper.make_tensor("s", TensorProto.INT64, [2], [-1, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def test_run_output_with_several_rows_per_sample_is_split():
    model = _model(["m", 3], [helper.make_node("Reshape", ["a", "s"], ["b"])])
    values = np.arange(30, dtype=np.float32).reshape(5, 6)
    found = run(open_session(model, 1), Samples({"a": values}, None))["b"]
    np.testing.assert_array_equal(found, values.reshape(5, 2, 3))


def test_run_output_without_batch_axis_is_refused():
    model = _model([], [helper.make_node("ReduceSum", ["a"], ["b"], keepdims=0)])
    with pytest.raises(RuntimeFailure, match=r"output 'b'.*first axis follows the batch"):
        run(open_session(model, 1), Samples({"a": np.zeros((5, 6), np.float32)}, None))


def test_open_session_missing_file_names_path_and_reason():
    with pytest.raises(RuntimeFailure, match=r"/nowhere/m\.onnx: ONNX Runtime .* cannot open it"):
        open_session("/nowhere/m.onnx")


def test_open_session_unknown_operator_quotes_the_runtime():
    model = _model(["n", 6], [helper.make_node("Frobnicate", ["a"], ["b"], domain="nobody")])
    with pytest.raises(RuntimeFailure, match="nobody"):
        open_session(model)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"picture": np.zeros((4, 1, 8, 8), np.float32)}, r"input 'image' \(found picture\)"),
        ({"image": np.zeros((4, 1, 8, 8))}, "is float64, the model's input is float32"),
        ({"image": np.zeros((4, 1, 8, 9), np.float32)}, r"shape \[N, 1, 8, 9\].*\[N, 1, 8, 8\]"),
        ({"image": np.zeros((4, 8, 8), np.float32)}, r"shape \[N, 8, 8\]"),
    ],
)
def test_run_samples_that_do_not_fit_are_refused(arrays, words):
    with pytest.raises(DataError, match=words):
        run(open_session(classifier(), 1), Samples(arrays, None))


def test_input_specs_leave_out_initializers_and_open_sizes():
    specs = input_specs(classifier())
    assert [(spec.name, spec.shape, spec.dtype) for spec in specs] == [
        ("image", (None, 1, 8, 8), np.dtype(np.float32)),
    ]


def test_cpu_features_name_the_machine():
    import platform

    assert cpu_features().startswith(platform.machine())


@pytest.mark.parametrize(("stated", "threads"), [("1", 1), ("0", 1), ("100000", None), ("", None), ("many", None)])
def test_threads_are_limited_by_the_environment_but_never_raised(
    stated: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HWC_ONNX_THREADS", raising=False)
    cores = usable_threads()
    monkeypatch.setenv("HWC_ONNX_THREADS", stated)
    assert usable_threads() == (cores if threads is None else threads)
