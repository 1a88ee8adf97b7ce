"""Bad input: one clear message with the right words, the right exit code, no traceback, earlier files untouched."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tests.cli.running import Case, Run, hwc


def refused(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code, f"{result.exit_code}: {result.stdout}{result.stderr}"
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr, f"{word!r} is not in {result.stderr!r}"


def model_with(case: Case, folder: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    proto = onnx.load(case.model)
    change(proto)
    path = folder / "changed.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def data_with(case: Case, folder: Path, **changes: NDArray[np.generic] | None) -> Path:
    arrays = {**np.load(case.data, allow_pickle=False), **changes}
    path = folder / "changed.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def compress(case: Case, folder: Path, *options: object, model: object = None, data: object = None) -> Result:
    arguments = [model or case.model, "--data", data or case.data, "-o", folder / "out.onnx", "--trials", 2, "--quiet"]
    result = hwc("compress", *arguments, *options)
    assert not (folder / "out.onnx").exists()
    return result


def test_model_missing(case: Case, tmp_path: Path) -> None:
    refused(compress(case, tmp_path, model=tmp_path / "none.onnx"), 4, "none.onnx")


def test_model_not_onnx(case: Case, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("this is not a model")
    refused(hwc("inspect", tmp_path / "text.onnx"), 4, "text.onnx", "ONNX")


def test_model_truncated(case: Case, tmp_path: Path) -> None:
    (tmp_path / "half.onnx").write_bytes(Path(case.model).read_bytes()[:3000])
    refused(hwc("inspect", tmp_path / "half.onnx"), 4, "half.onnx")


def test_model_with_unknown_domain(case: Case, tmp_path: Path) -> None:
    def strange(proto: onnx.ModelProto) -> None:
        proto.graph.node[1].domain = "acme.custom"
        proto.graph.node[1].op_type = "Magic"
        proto.opset_import.append(helper.make_opsetid("acme.custom", 1))

    refused(compress(case, tmp_path, model=model_with(case, tmp_path, strange)), 4, "acme.custom")


def test_model_without_weighted_layer(case: Case, tmp_path: Path) -> None:
    def relu_only(proto: onnx.ModelProto) -> None:
        del proto.graph.node[:]
        proto.graph.node.append(helper.make_node("Flatten", ["x"], ["logits"]))
        del proto.graph.initializer[:]

    model = model_with(case, tmp_path, relu_only)
    refused(compress(case, tmp_path, model=model), 4, "layer", "nothing to compress")
    assert hwc("inspect", model).exit_code == 0


def test_model_with_nan_weight(case: Case, tmp_path: Path) -> None:
    def poison(proto: onnx.ModelProto) -> None:
        weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "w2")
        values = numpy_helper.to_array(weight).copy()
        values[0, 0, 0, 0] = np.nan
        weight.CopyFrom(numpy_helper.from_array(values, "w2"))

    refused(hwc("profile", model_with(case, tmp_path, poison)), 4, "w2", "NaN")


def test_dynamic_shape_that_nothing_settles(case: Case, tmp_path: Path) -> None:
    def dynamic(proto: onnx.ModelProto) -> None:
        shape = proto.graph.input[0].type.tensor_type.shape
        shape.dim[2].dim_param, shape.dim[3].dim_param = "height", "width"
        # a pool over all positions takes any size, where Flatten would leave only one
        flatten = next(node for node in proto.graph.node if node.op_type == "Flatten")
        proto.graph.node.insert(4, helper.make_node("GlobalAveragePool", [flatten.input[0]], ["pooled"]))
        flatten = next(node for node in proto.graph.node if node.op_type == "Flatten")
        flatten.input[0] = "pooled"
        weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "w3")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[:, :8], "w3"))

    refused(hwc("inspect", model_with(case, tmp_path, dynamic)), 4, "x", "--input-shape")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda x, y: {"x": None, "image": x}, ["x"], id="input name missing"),
        pytest.param(lambda x, y: {"x": x[:, :, :7]}, ["x", "8"], id="wrong shape"),
        pytest.param(lambda x, y: {"x": x.astype(str)}, ["x"], id="wrong type"),
        pytest.param(lambda x, y: {"y": y + 100}, ["label"], id="labels out of range"),
        pytest.param(lambda x, y: {"y": y[:-1]}, ["label"], id="labels of another length"),
        pytest.param(lambda x, y: {"x": np.where(x > 2.5, np.nan, x).astype(np.float32)}, ["NaN"], id="NaN in data"),
        pytest.param(lambda x, y: {"y": np.roll(y, 1)}, ["chance"], id="score at chance"),
        pytest.param(lambda x, y: {"x": x[:100], "y": y[:100]}, ["64"], id="too few samples"),
    ],
)
def test_data_that_does_not_fit(
    change: Callable[[NDArray[np.float32], NDArray[np.int64]], dict[str, NDArray[np.generic] | None]],
    words: list[str],
    case: Case,
    tmp_path: Path,
) -> None:
    arrays = np.load(case.data, allow_pickle=False)
    data = data_with(case, tmp_path, **change(arrays["x"], arrays["y"]))
    refused(compress(case, tmp_path, data=data), 4, *words)


def test_data_missing(case: Case, tmp_path: Path) -> None:
    refused(compress(case, tmp_path, data=tmp_path / "none.npz"), 4, "none.npz")


def test_data_with_pickled_objects(case: Case, tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", x=np.array([{"a": 1}], dtype=object))
    refused(compress(case, tmp_path, data=tmp_path / "objects.npz"), 4, "objects.npz")


def profile_text() -> str:
    return files("hwc_onnx.accel_profiles").joinpath("edge-flex.yaml").read_text()


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("energy_pj: 0.297", "enrgy_pj: 0.297", ["mac.enrgy_pj", "did you mean 'energy_pj'"]),
        ("frequency_mhz: 500\n", "", ["frequency_mhz", "missing"]),
        ("frequency_mhz: 500", "frequency_mhz: fast", ["frequency_mhz", "fast"]),
        ("schema: 1", "schema: 2", ["schema"]),
    ],
)
def test_accelerator_file_with_a_wrong_field(
    before: str, after: str, words: list[str], case: Case, tmp_path: Path
) -> None:
    assert before in profile_text()
    file = tmp_path / "chip.yaml"
    file.write_text(profile_text().replace(before, after, 1))
    refused(hwc("accel", "check", file), 4, "chip.yaml", *words)
    refused(hwc("profile", case.model, "--accel", file), 4, "chip.yaml", *words)


def test_accelerator_unknown(case: Case) -> None:
    refused(hwc("profile", case.model, "--accel", "edge-flx"), 4, "did you mean 'edge-flex'")


def test_plan_unknown_field(case: Case, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"schema": 1, "layers": {}, "bits": 3}')
    refused(hwc("apply", case.model, "--plan", tmp_path / "plan.json"), 4, "plan.json", "bits")


def test_plan_for_other_layers(case: Case, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"schema": 1, "layers": {"conv99": {}}}')
    refused(hwc("apply", case.model, "--plan", tmp_path / "plan.json"), 4, "conv99")


@pytest.mark.parametrize("spec", ["w4", "w1a8", "w4a8,fine=magnitud:0.5", "w4a8,fine=magnitude:1.5"])
def test_uniform_setting_that_cannot_be_read(spec: str, case: Case) -> None:
    refused(hwc("apply", case.model, "--uniform", spec), 2, spec)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--granularity", "fine", "--algorithms", "l1"], ["l1", "fine"]),
        (["--sampler", "compsite"], ["compsite", "composite"]),
        (["--metric", "top2"], ["top2", "top1"]),
        (["--include", "nothing*"], ["nothing*"]),
        (["--dialect", "qonnxx"], ["qonnxx", "ort"]),
        (["--algorithms", "magnitud"], ["magnitud", "magnitude"]),
    ],
)
def test_options_that_cannot_be(options: list[str], words: list[str], case: Case, tmp_path: Path) -> None:
    refused(compress(case, tmp_path, *options), 2, *words)


def test_resume_without_a_run(case: Case, tmp_path: Path) -> None:
    refused(compress(case, tmp_path, "--resume"), 2, "resume")


def test_output_in_a_folder_that_does_not_exist(case: Case, tmp_path: Path) -> None:
    result = hwc("compress", case.model, "--data", case.data, "-o", tmp_path / "none" / "out.onnx", "--quiet")
    refused(result, 2, "out.onnx", "-o")


def test_output_that_is_the_input(case: Case) -> None:
    before = Path(case.model).read_bytes()
    refused(hwc("apply", case.model, "--uniform", "w8a8", "--data", case.data, "-o", case.model), 2, "tiny.onnx")
    assert Path(case.model).read_bytes() == before


def test_full_disk_leaves_the_earlier_file(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.onnx"
    output.write_bytes(b"earlier")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused(
        hwc("apply", case.model, "--uniform", "w8a8", "--data", case.data, "-o", output), 1, "out.onnx", "No space left"
    )
    assert output.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]


def test_faithful_with_another_sampler_is_a_contradiction(case: Case, tmp_path: Path) -> None:
    refused(compress(case, tmp_path, "--faithful", "--sampler", "tpe"), 2, "--faithful", "tpe")


def test_compressed_file_is_not_compressed_again(compressed: Run, case: Case, tmp_path: Path) -> None:
    refused(compress(case, tmp_path, model=compressed.output), 4, "already quantized")


def test_what_is_wrong_with_labels_or_accelerator_is_said_before_anything_is_calibrated(case: Case, tmp_path: Path) -> None:
    y = np.load(case.data)["y"]
    spoilt = data_with(case, tmp_path, y=y + 1)
    for command in (("apply", "--uniform", "w8a8"), ("why",), ("sensitivity",), ("compress",)):
        result = hwc(command[0], case.model, *command[1:], "--data", spoilt)
        assert "samples through" not in result.stderr
        refused_after_notes(result, 4, "changed.npz", "labels go from", "subtract 1")
        result = hwc(command[0], case.model, *command[1:], "--data", case.data, "--accel", "nope")
        assert "samples through" not in result.stderr
        refused_after_notes(result, 4, "nope")


def test_one_hot_labels_are_refused_with_what_to_give(case: Case, tmp_path: Path) -> None:
    y = np.load(case.data)["y"]
    spoilt = data_with(case, tmp_path, y=np.eye(int(y.max()) + 1, dtype=np.float32)[y])
    result = hwc("apply", case.model, "--uniform", "w8a8", "--data", spoilt, "-o", tmp_path / "out.onnx")
    refused_after_notes(result, 4, "changed.npz", "one-hot", "argmax")
    assert "samples through" not in result.stderr
    result = hwc("apply", case.model, "--uniform", "w8a8", "--data", spoilt, "--metric", "mse", "-o", tmp_path / "out.onnx")
    assert result.exit_code == 0, result.stderr


def refused_after_notes(result: Result, code: int, *words: str) -> None:
    """As `refused`, where progress may have been told before."""
    assert result.exit_code == code, f"{result.exit_code}: {result.stdout}{result.stderr}"
    assert "Traceback" not in result.stderr and result.stdout == ""
    for word in words:
        assert word in result.stderr, f"{word!r} is not in {result.stderr!r}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y.astype(str), "labels are <U"),
        (lambda y: y.astype(np.float32), "look like the numbers of 4 classes"),
        (lambda y: y[:, None], "y.ravel()"),
    ],
)
def test_labels_in_another_form_are_refused_with_what_to_give(
    case: Case, tmp_path: Path, change: Callable[[NDArray[np.generic]], NDArray[np.generic]], words: str
) -> None:
    spoilt = data_with(case, tmp_path, y=change(np.load(case.data)["y"]))
    for command in (("apply", case.model, "--uniform", "w8a8"), ("data", "check", case.model)):
        refused_after_notes(hwc(*command, "--data", spoilt), 4, words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--uniform", "w4a8,fine=block4:"), "ratio '' is no number"),
        (("--uniform", "w4a8,fine=block4:nan"), "ratio 'nan' is no number"),
        (("--uniform", "w4a8", "--repairs", "none,bias"), "none stands alone"),
        (("--uniform", "w4a8", "--plan", "p.json"), "not both"),
    ],
)
def test_settings_that_contradict_themselves_are_usage_errors(case: Case, options: tuple[str, ...], words: str) -> None:
    result = hwc("apply", case.model, "--data", case.data, *options)
    assert result.exit_code == 2 and words in result.stderr and "Traceback" not in result.stderr
