"""A model file is written whole, clean and with the outside of the model it came from, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from hwc_onnx import export
from hwc_onnx.errors import RuntimeFailure, UsageError
from hwc_onnx.export import file_bytes, write_model
from hwc_onnx.graph.loading import load_model
from tests.rewrite.quantized_case import QuantizedCase, relative


def test_write_model_opens_with_three_lines_of_onnxruntime(tmp_path: Path) -> None:
    quantized = QuantizedCase.of("residual")
    written = write_model(quantized.written(4, 4), tmp_path / "m.onnx", {"hwc.plan": "abc"})
    session = onnxruntime.InferenceSession(str(written.path))
    found = session.run(None, quantized.case.feeds)[0]
    assert relative(found, quantized.reference(4, 4)) < 0.05


def test_write_model_reports_bytes_and_digest_of_the_file(tmp_path: Path) -> None:
    model = QuantizedCase.of("chain").written(3, 5)
    written = write_model(model, tmp_path / "m.onnx")
    data = written.path.read_bytes()
    assert written.file_bytes == len(data) == file_bytes(model)
    assert written.sha256 == hashlib.sha256(data).hexdigest()
    assert write_model(model, tmp_path / "again.onnx").sha256 == written.sha256


def test_write_model_keeps_foreign_metadata_and_declarations(tmp_path: Path) -> None:
    quantized = QuantizedCase.of("chain")
    quantized.case.model.metadata_props.add(key="author", value="someone")
    quantized.case.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    model = onnx.load(write_model(quantized.written(8, 8), tmp_path / "m.onnx", {"hwc.seed": "3"}).path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["author"] == "someone" and metadata["hwc.seed"] == "3"
    assert list(model.graph.input) == list(quantized.case.model.graph.input)
    assert list(model.graph.output) == list(quantized.case.model.graph.output)


def test_write_model_leaves_out_what_nothing_reads(tmp_path: Path) -> None:
    model = QuantizedCase.of("chain").case.model
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1000, np.float32), "unread"))
    model.graph.node.append(onnx.helper.make_node("Relu", ["x"], ["dead"]))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("gone", 1, [3]))
    kept = onnx.load(write_model(model, tmp_path / "m.onnx").path)
    assert "unread" not in {tensor.name for tensor in kept.graph.initializer}
    assert "dead" not in {name for node in kept.graph.node for name in node.output}
    assert not kept.graph.value_info


def test_write_model_foreign_metadata_key_is_our_bug(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must begin with 'hwc\.'"):
        write_model(QuantizedCase.of("chain").case.model, tmp_path / "m.onnx", {"author": "x"})


def test_write_model_folder_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write_model(QuantizedCase.of("chain").case.model, tmp_path / "missing" / "m.onnx")


def test_write_model_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "m.onnx"
    target.write_bytes(b"earlier result")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RuntimeFailure, match="No space left"):
        write_model(QuantizedCase.of("chain").case.model, target)
    assert target.read_bytes() == b"earlier result"
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_write_model_invalid_model_is_not_written(tmp_path: Path) -> None:
    model = QuantizedCase.of("chain").case.model
    model.graph.node[0].input[1] = "nowhere"
    with pytest.raises(RuntimeFailure, match="not valid ONNX"):
        write_model(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_write_model_larger_than_a_message_lies_in_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = QuantizedCase.of("chain").case.model
    monkeypatch.setattr(export, "LARGEST", 100)
    monkeypatch.setattr(export, "OUTSIDE_BYTES", 64)
    (tmp_path / "m.onnx").write_bytes(b"earlier result")
    written = write_model(model, tmp_path / "m.onnx", {"hwc.seed": "3"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    loaded = load_model(written.path)
    assert loaded.digest == written.sha256 and loaded.file_bytes <= written.file_bytes
    feeds = QuantizedCase.of("chain").case.feeds
    found = onnxruntime.InferenceSession(str(written.path)).run(None, feeds)[0]
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]
    np.testing.assert_array_equal(found, expected)


def test_write_model_in_two_on_a_full_disk_leaves_the_old_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "LARGEST", 100)
    (tmp_path / "m.onnx").write_bytes(b"earlier model")
    (tmp_path / "m.onnx.data").write_bytes(b"earlier weights")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "stored_blocks", lambda tensor: full(0))
    monkeypatch.setattr(export, "OUTSIDE_BYTES", 64)
    with pytest.raises(RuntimeFailure, match="No space left"):
        write_model(QuantizedCase.of("chain").case.model, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == b"earlier model"
    assert (tmp_path / "m.onnx.data").read_bytes() == b"earlier weights"
    assert len(list(tmp_path.iterdir())) == 2
