"""Verification passes an honest file and names what is wrong with a spoiled one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError, ModelError, UsageError
from hwc_onnx.export import write_model
from hwc_onnx.graph.loading import load_model
from hwc_onnx.graph.read_qdq import BITS_KEY
from hwc_onnx.verification import SOURCE_KEY, VerifyReport, verify
from tests.rewrite.quantized_case import QuantizedCase


def original_file(tmp_path: Path, quantized: QuantizedCase) -> Path:
    quantized.case.model.metadata_props.add(key="author", value="someone")
    return write_model(quantized.case.model, tmp_path / "original.onnx").path


def failed(report: VerifyReport) -> list[str]:
    return [check.name for check in report.checks if not check.passed]


@pytest.fixture
def quantized() -> QuantizedCase:
    return QuantizedCase.of("pooling", batch=16)


def test_verify_honest_file_passes_and_is_counted(tmp_path: Path, quantized: QuantizedCase) -> None:
    original = original_file(tmp_path, quantized)
    metadata = {SOURCE_KEY: load_model(original).digest}
    file = write_model(quantized.written(6, 8), tmp_path / "m.onnx", metadata)
    report = verify(file.path, original, Samples(quantized.case.feeds, None), threads=1)
    assert report.passed and failed(report) == []
    assert [result.level for result in report.levels] == ["disable", "basic", "extended", "all"]
    assert report.file_bytes == file.file_bytes and report.original_bytes == original.stat().st_size
    assert dict(report.weight_bits) == {6: 3} and dict(report.activation_bits) == {8: 7}
    assert 0.5 < report.weight_density < 1 and report.relative_error < 0.2 and report.real_samples


def test_verify_without_samples_uses_random_ones(tmp_path: Path, quantized: QuantizedCase) -> None:
    original = original_file(tmp_path, quantized)
    report = verify(quantized.written(8, 8), original, threads=1)
    assert report.n_samples == 16 and not report.real_samples and report.levels[-1].opens


def test_verify_file_named_after_another_source_fails(tmp_path: Path, quantized: QuantizedCase) -> None:
    original = original_file(tmp_path, quantized)
    file = write_model(quantized.written(8, 8), tmp_path / "m.onnx", {SOURCE_KEY: "0" * 64})
    assert failed(verify(file.path, original, threads=1)) == ["made from this original"]


def test_verify_of_exchanged_models_is_refused(tmp_path: Path, quantized: QuantizedCase) -> None:
    original = original_file(tmp_path, quantized)
    file = write_model(quantized.written(8, 8), tmp_path / "m.onnx", {SOURCE_KEY: "0" * 64})
    with pytest.raises(UsageError, match="give the compressed file first"):
        verify(original, file.path, threads=1)
    assert verify(file.path, file.path, threads=1).checks  # two written files can be compared


def test_verify_declared_width_that_does_not_hold_fails(tmp_path: Path, quantized: QuantizedCase) -> None:
    original = original_file(tmp_path, quantized)
    model = quantized.written(6, 8)
    for entry in model.metadata_props:
        if entry.key == BITS_KEY:
            entry.value = json.dumps(json.loads(entry.value) | {"w1": 4})
    report = verify(model, original, threads=1)
    assert failed(report) == ["declared widths hold"]
    assert "w1: declared 4, stored 8" in next(check.found for check in report.checks if not check.passed)


def test_verify_changed_output_name_fails(tmp_path: Path, quantized: QuantizedCase) -> None:
    original = original_file(tmp_path, quantized)
    model = quantized.written(8, 8)
    model.graph.node[-1].output[0] = model.graph.output[0].name = "other"
    report = verify(model, original, threads=1)
    assert failed(report) == ["outputs unchanged"] and report.agreement == 0.0


def test_verify_lost_metadata_and_fixed_batch_fail(tmp_path: Path, quantized: QuantizedCase) -> None:
    original = original_file(tmp_path, quantized)
    model = quantized.written(8, 8)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 16
    del model.metadata_props[:]
    report = verify(model, original, Samples(quantized.case.feeds, None), threads=1)
    assert failed(report) == ["inputs unchanged", "foreign metadata kept"]


def test_verify_lost_bias_of_a_dead_channel_fails(tmp_path: Path) -> None:
    quantized = QuantizedCase.of("chain", batch=16)
    original = original_file(tmp_path, quantized)
    model = quantized.written(8, 8)
    for name, values in (("w1_quantized", np.int8(0)), ("w1_scale", np.float32(1e-12)), ("b1", np.float32(3.0))):
        tensor = next(entry for entry in model.graph.initializer if entry.name == name)
        array = numpy_helper.to_array(tensor).copy()
        array[...] = values
        tensor.CopyFrom(numpy_helper.from_array(array, name))
    assert "levels compute the same" in failed(verify(model, original, threads=1))


def test_verify_file_that_does_not_open_at_a_level_fails_and_quotes_the_runtime(tmp_path: Path) -> None:
    quantized = QuantizedCase.of("residual")
    original = original_file(tmp_path, quantized)
    model = quantized.written(8, 8)
    scale = next(entry for entry in model.graph.initializer if entry.name == "w1_scale")
    scale.CopyFrom(numpy_helper.from_array(np.ones(3, np.float32), "w1_scale"))
    report = verify(model, original, threads=1)
    assert "opens at all levels" in failed(report)
    assert not report.passed and any(result.message for result in report.levels)


def test_verify_output_that_is_not_finite_fails(tmp_path: Path, quantized: QuantizedCase) -> None:
    original = original_file(tmp_path, quantized)
    model = onnx.ModelProto()
    model.CopyFrom(quantized.case.model)
    (flatten,) = (node for node in model.graph.node if node.output[0] == "y")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.0), "nought"))
    model.graph.node.insert(len(model.graph.node) - 1, onnx.helper.make_node("Div", ["z", "nought"], ["infinite"]))
    flatten = next(node for node in model.graph.node if node.output[0] == "y")
    flatten.input[0] = "infinite"
    assert "outputs are finite" in failed(verify(model, original, threads=1))


def test_verify_samples_that_do_not_fit_are_refused(tmp_path: Path, quantized: QuantizedCase) -> None:
    original = original_file(tmp_path, quantized)
    with pytest.raises(DataError, match="x"):
        verify(quantized.written(8, 8), original, Samples({"x": np.zeros((4, 2, 6, 6), np.float32)}, None))


def test_verify_missing_file_is_a_model_error(tmp_path: Path, quantized: QuantizedCase) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.onnx"):
        verify(tmp_path / "nowhere.onnx", original_file(tmp_path, quantized))


def test_verify_difference_from_the_original_is_held_to_a_limit(tmp_path: Path, quantized: QuantizedCase) -> None:
    original, samples = original_file(tmp_path, quantized), Samples(quantized.case.feeds, None)
    apart = verify(quantized.written(4, 8), original, samples, threads=1).relative_error
    assert 0 < apart < 1
    for limit, good in ((1.01 * apart, True), (0.99 * apart, False)):
        report = verify(quantized.written(4, 8), original, samples, threads=1, most_different=limit)
        assert [check.passed for check in report.checks if check.name == "outputs near the original's"] == [good]
    with pytest.raises(UsageError, match=r"max_difference: outputs are compared on samples.*give some with --data"):
        verify(quantized.written(4, 8), original, threads=1, most_different=0.1)
    with pytest.raises(UsageError, match="max_difference: 0; give a share"):
        verify(quantized.written(4, 8), original, samples, threads=1, most_different=0.0)


def test_verify_another_model_is_not_run_on_inputs_that_it_does_not_take(tmp_path: Path, quantized: QuantizedCase) -> None:
    original = original_file(tmp_path, quantized)
    other = quantized.written(8, 8)
    name = other.graph.input[0].name
    for node in other.graph.node:
        for place, read in enumerate(node.input):
            node.input[place] = "another" if read == name else read
    other.graph.input[0].name = "another"
    report = verify(other, original, threads=1)
    assert "inputs unchanged" in failed(report) and not report.levels
    assert any("not the original's" in check.found for check in report.checks)


def test_verify_limit_that_nothing_was_compared_with_fails(tmp_path: Path, quantized: QuantizedCase) -> None:
    original, samples = original_file(tmp_path, quantized), Samples(quantized.case.feeds, None)
    other = quantized.written(8, 8)
    other.graph.input[0].type.tensor_type.shape.dim[1].dim_value += 1
    report = verify(other, original, samples, threads=1, most_different=0.5)
    assert {"inputs unchanged", "outputs near the original's"} <= set(failed(report)) and not report.levels
