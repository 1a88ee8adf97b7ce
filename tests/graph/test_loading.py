from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwc_onnx.errors import ModelError
from hwc_onnx.graph.loading import load_model
from tests import tiny_models


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def with_external(model: onnx.ModelProto, folder: Path, location: str = "weights.bin") -> Path:
    onnx.save_model(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    proto = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    return save(proto, folder / "model.onnx")


def test_load_file_and_proto_agree(tmp_path: Path) -> None:
    model = tiny_models.chain()
    loaded = load_model(save(model, tmp_path / "m.onnx"))
    assert loaded.proto == load_model(model).proto == model
    assert loaded.path == tmp_path / "m.onnx"
    assert len(loaded.digest) == 64


def test_load_external_data_beside_model_is_read(tmp_path: Path) -> None:
    model = tiny_models.chain()
    loaded = load_model(with_external(tiny_models.chain(), tmp_path))
    values = tiny_models.feeds(model)
    np.testing.assert_array_equal(tiny_models.run(loaded.proto, values)[0], tiny_models.run(model, values)[0])


def test_load_external_data_changed_changes_digest(tmp_path: Path) -> None:
    path = with_external(tiny_models.chain(), tmp_path)
    first = load_model(path).digest
    blob = bytearray((tmp_path / "weights.bin").read_bytes())
    blob[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(blob)
    assert load_model(path).digest != first


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname", ""])
def test_load_external_data_outside_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "outside.bin").write_bytes(b"\0" * 100_000)
    folder = tmp_path / "inner"
    folder.mkdir()
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_model(with_external(tiny_models.chain(), folder, location))


def test_load_external_data_behind_link_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = with_external(tiny_models.chain(), folder)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    (folder / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_model(path)


def test_load_external_data_missing_or_short_is_refused(tmp_path: Path) -> None:
    path = with_external(tiny_models.chain(), tmp_path)
    blob = tmp_path / "weights.bin"
    blob.write_bytes(blob.read_bytes()[:40])
    with pytest.raises(ModelError, match="truncated"):
        load_model(path)
    blob.unlink()
    with pytest.raises(ModelError, match="missing"):
        load_model(path)


def test_load_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load_model(tmp_path / "none.onnx")


def test_load_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be read.*--data"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("val.npz", r"--data .*val\.npz"),
        ("net.PT", r"torch\.onnx\.export"),
        ("net.tflite", "tf2onnx"),
        ("net.xml", "ONNX file that it was made of"),
        ("net.bytes", r"export the model again as \.onnx"),
    ],
)
def test_what_is_no_model_is_told_what_to_do(tmp_path: Path, name: str, advice: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04" + b"\0" * 50)
    with pytest.raises(ModelError, match=f"not an ONNX model.*{advice}"):
        load_model(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"hello, this is no model", b"PK\x03\x04" + b"\0" * 50])
def test_load_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX model"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 0.999])
def test_load_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    data = tiny_models.chain().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=r"truncated or damaged"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_load_weight_not_finite_is_refused(bad: float) -> None:
    model = tiny_models.chain()
    values = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    values.ravel()[3] = bad
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values, "c0"))
    with pytest.raises(ModelError, match=r"weight 'c0' holds 1 NaN or infinite values of 216"):
        load_model(model)


@pytest.mark.parametrize(("op", "value", "usable"), [
    ("Add", -np.inf, True), ("Add", np.inf, False), ("Add", np.nan, False), ("Where", np.nan, True), ("Mul", -np.inf, False), ("MatMul", -np.inf, False),
])  # fmt: skip
@pytest.mark.parametrize("constant", [False, True])
def test_load_what_a_constant_may_hold_depends_on_who_reads_it(op: str, value: float, usable: bool, constant: bool) -> None:
    table = np.where(np.triu(np.ones((4, 4)), 1), value, 0.0).astype(np.float32)
    tensor = onnx.numpy_helper.from_array(table, "" if constant else "table")
    inputs = ["keep", "x", "table"] if op == "Where" else ["x", "table"]
    nodes = [helper.make_node("Constant", [], ["table"], value=tensor)] if constant else []
    nodes += [helper.make_node(op, inputs, ["masked"]), helper.make_node("Softmax", ["masked"], ["y"])]
    keep = onnx.numpy_helper.from_array(np.tril(np.ones((4, 4), bool)), "keep")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4, 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "masks", values[:1], values[1:], [keep] if constant else [keep, tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    if usable:
        assert load_model(model).proto.graph.node[-1].op_type == "Softmax"
    else:
        with pytest.raises(ModelError, match=r"weight 'table' holds 6 NaN or infinite values of 16"):
            load_model(model)


def test_load_infinite_bound_of_clip_is_accepted() -> None:
    model = tiny_models.chain()
    model.graph.initializer.append(helper.make_tensor("bound", TensorProto.FLOAT, [], [float("inf")]))
    assert load_model(model).proto.graph.initializer[-1].name == "bound"
