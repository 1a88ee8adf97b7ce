"""Weights outside the message: confined to the model's folder, mapped when large, and never copied by the way."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

import hwc_onnx
from hwc_onnx import candidate
from hwc_onnx.accuracy.runner import open_session
from hwc_onnx.accuracy.runner import run as run_session
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.database import Stitched
from hwc_onnx.errors import ModelError, RuntimeFailure
from hwc_onnx.export import write_model
from hwc_onnx.graph import external, loading
from hwc_onnx.graph.loading import load_model
from hwc_onnx.job import applying
from hwc_onnx.normalize import merge
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.recovery.statistics import MomentsBuilder
from hwc_onnx.rewrite.passes import Pass
from hwc_onnx.rewrite.passes import run as run_passes
from hwc_onnx.rewrite.remove_channels import remove_channels
from hwc_onnx.workspace import open_model
from tests import tiny_models
from tests.loading import exporter_models as models


def outside(folder: Path, location: str, **facts: object) -> Path:
    """A model whose first weight [8, 3, 3, 3] lies at `location`; its 864 bytes are in w.bin."""
    model = tiny_models.chain()
    weight = model.graph.initializer[0]
    (folder / "w.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **facts}.items():
        weight.external_data.add(key=key, value=str(value))
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything counts as large."""
    monkeypatch.setattr(loading, "MAP_BYTES", 0)
    monkeypatch.setattr(external, "SPILL_BYTES", 64)
    monkeypatch.setattr(external, "BLOCK_BYTES", 64)


@pytest.mark.parametrize(
    ("location", "facts", "words"),
    [
        ("../w.bin", {}, "outside the model's folder"),
        ("/etc/hostname", {}, "outside the model's folder"),
        ("", {}, "outside the model's folder"),
        ("w\0.bin", {}, "outside the model's folder"),
        ("link.bin", {}, "outside the model's folder"),
        ("away/w.bin", {}, "outside the model's folder"),
        ("missing.bin", {}, "missing or no regular file"),
        ("pipe", {}, "missing or no regular file"),
        ("w.bin", {"offset": 4}, "truncated: the tensor ends at byte 868, the file at 864"),
        ("w.bin", {"offset": -4}, "offset -4"),
        ("w.bin", {"offset": "four"}, "whole numbers"),
        ("w.bin", {"length": 10}, "length 10, but shape 8x3x3x3 takes 864"),
        ("w.bin", {"length": 2**70}, "takes 864"),
    ],
)
def test_external_data_that_must_not_be_read(location: str, facts: dict[str, object], words: str, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(864))
    os.symlink("/etc/hostname", folder / "link.bin")
    os.symlink(tmp_path, folder / "away")
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelError, match=words):
        load_model(outside(folder, location, **facts))


def test_a_link_that_stays_inside_is_read(tmp_path: Path) -> None:
    path = outside(tmp_path, "link.bin")
    os.symlink("w.bin", tmp_path / "link.bin")
    expected = numpy_helper.to_array(tiny_models.chain().graph.initializer[0])
    np.testing.assert_array_equal(numpy_helper.to_array(load_model(path).proto.graph.initializer[0]), expected)


def test_a_model_in_memory_cannot_point_to_files(tmp_path: Path) -> None:
    model = onnx.load(outside(tmp_path, "w.bin"), load_external_data=False)
    with pytest.raises(ModelError, match="give the model's path"):
        load_model(model)


@pytest.mark.usefixtures("mapped")
@pytest.mark.parametrize("name", ["opset9", "unfused_norms", "float16", "token_ids", "local_function", "if_on_data"])
def test_mapped_weights_give_the_same_normal_form(name: str, tmp_path: Path) -> None:
    model = models.MODELS[name]()
    expected = {tensor.name: external.tensor_values(tensor) for tensor in normalize(model).graph.initializer}
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    loaded = load_model(tmp_path / "m.onnx")
    assert external.any_mapped(loaded.proto)
    found = normalize(loaded.proto)
    assert external.any_mapped(found)
    assert {tensor.name for tensor in found.graph.initializer} == set(expected)
    for tensor in found.graph.initializer:
        np.testing.assert_array_equal(external.tensor_values(tensor), expected[tensor.name])


@pytest.mark.usefixtures("mapped")
def test_scaling_block_by_block_is_noticed_when_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = merge.map_blocks
    monkeypatch.setattr(
        merge, "map_blocks", lambda values, change: right(values, lambda rows, _: change(rows, slice(0, len(rows))))
    )
    onnx.save(models.unfused_norms(), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    normalize(load_model(tmp_path / "m.onnx").proto)
    assert "left out" in caplog.text and "normalization changed output" in caplog.text


@pytest.mark.usefixtures("mapped")
def test_mapped_model_is_profiled_applied_and_written(tmp_path: Path) -> None:
    model = models.batch_arithmetic()
    energy = hwc_onnx.profile(model).cost.total
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert hwc_onnx.profile(tmp_path / "m.onnx").cost.total == energy
    plan = hwc_onnx.uniform_plan(tmp_path / "m.onnx", "w8a8")
    x = np.random.default_rng(0).standard_normal((280, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    applied = hwc_onnx.apply_plan(tmp_path / "m.onnx", plan=plan, data=tmp_path / "data.npz", recovery="ranges")
    written = applied.save(tmp_path / "out.onnx")
    assert load_model(written.path).digest == written.sha256
    found = onnxruntime.InferenceSession(str(written.path)).run(None, {"x": x[:4]})[0]
    expected = onnxruntime.InferenceSession(str(tmp_path / "m.onnx")).run(None, {"x": x[:4]})[0]
    assert np.abs(found - expected).max() <= 0.05 * np.abs(expected).max()


@pytest.mark.usefixtures("mapped")
def test_channels_of_a_mapped_model_are_removed_as_of_any_other(tmp_path: Path) -> None:
    model = models.batch_arithmetic()
    copied = onnx.ModelProto.FromString(model.SerializeToString())
    onnx.save(copied, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    plan = hwc_onnx.uniform_plan(model, "w8a8,coarse=l1:0.3")
    x = np.random.default_rng(0).standard_normal((280, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    whole, mapped = (
        hwc_onnx.apply_plan(source, plan=plan, data=tmp_path / "data.npz", recovery="none")
        for source in (model, tmp_path / "m.onnx")
    )
    assert external.any_mapped(mapped.proto) and not external.any_mapped(whole.proto)
    same_constants(mapped.proto, whole.proto)
    assert any(record.kept_channels for record in mapped.plan.achieved.values())
    before = open_model(tmp_path / "m.onnx")
    keep = {group.root: np.arange(1) for group in before.graph.channel_groups if group.locked_because is None}
    removal = Pass("remove channels", lambda proto: remove_channels(proto, before.graph, keep))
    removed = run_passes(before.proto, [removal])
    assert external.any_mapped(removed)
    damage = Pass("lose a node", lambda proto: without_first_node(remove_channels(proto, before.graph, keep)))
    with pytest.raises(RuntimeFailure, match="lose a node"):
        run_passes(before.proto, [damage])


@pytest.mark.usefixtures("mapped")
def test_plain_rounding_takes_no_moments_and_keeps_codes_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_moments(*_: object) -> None:
        raise AssertionError("moments are gathered")

    model = models.batch_arithmetic()
    copied = onnx.ModelProto.FromString(model.SerializeToString())
    onnx.save(copied, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    plan = hwc_onnx.uniform_plan(model, "w8a8")
    whole = hwc_onnx.apply_plan(model, plan=plan, recovery="none")
    kept: list[bool] = []
    monkeypatch.setattr(MomentsBuilder, "add", no_moments)
    monkeypatch.setattr(
        applying, "assemble", lambda *args: kept.extend(stored_outside(args[2])) or candidate.assemble(*args)
    )
    mapped = hwc_onnx.apply_plan(tmp_path / "m.onnx", plan=plan, recovery="none")
    assert kept and all(kept)
    same_constants(mapped.proto, whole.proto)
    with pytest.raises(AssertionError, match="moments are gathered"):
        hwc_onnx.apply_plan(tmp_path / "m.onnx", plan=plan, recovery="full")


def test_sessions_of_large_weights_restore_them_one_by_one_and_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.batch_arithmetic()
    small = hwc_onnx.apply_plan(model, plan=hwc_onnx.uniform_plan(model, "w4a8"), recovery="none").proto
    samples = Samples({"x": np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)}, None)
    usual = open_session(small, 1)
    monkeypatch.setattr(external, "SPILL_BYTES", 64)
    assert any(external.is_large(tensor) for tensor in small.graph.initializer) and not external.any_mapped(small)
    frugal = open_session(small, 1)
    orders = [session.ort.get_session_options().execution_order for session in (usual, frugal)]
    assert orders == [onnxruntime.ExecutionOrder.DEFAULT, onnxruntime.ExecutionOrder.PRIORITY_BASED]
    expected = run_session(usual, samples)
    for name, values in run_session(frugal, samples).items():
        np.testing.assert_array_equal(values, expected[name])


def same_constants(found: onnx.ModelProto, expected: onnx.ModelProto) -> None:
    """Equal integers, and scales that differ at most by the order in which a session added up."""
    mine, theirs = (
        {tensor.name: external.tensor_values(tensor) for tensor in proto.graph.initializer} for proto in (found, expected)
    )
    assert set(mine) == set(theirs)
    for name, values in theirs.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(mine[name], values, rtol=1e-5)
        else:
            np.testing.assert_array_equal(mine[name], values)


def stored_outside(stitched: Stitched) -> list[bool]:
    large = [weight.codes for weight in stitched.weights.values() if weight.codes.nbytes >= external.SPILL_BYTES]
    return [external.lies_in_file(codes) for codes in large]


def without_first_node(proto: onnx.ModelProto) -> onnx.ModelProto:
    del proto.graph.node[0]
    return proto


def test_a_model_in_memory_that_no_message_holds_is_spilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAX_BYTES", 1000)
    monkeypatch.setattr(external, "SPILL_BYTES", 500)
    model = models.batch_arithmetic()
    loaded = load_model(model)
    assert external.any_mapped(loaded.proto)
    for before, after in zip(model.graph.initializer, loaded.proto.graph.initializer, strict=True):
        np.testing.assert_array_equal(external.tensor_values(after), numpy_helper.to_array(before))
    monkeypatch.undo()
    written = write_model(normalize(loaded.proto), tmp_path / "m.onnx")
    assert load_model(written.path).digest == written.sha256


def test_one_file_above_two_gib_says_how_to_save_it(tmp_path: Path) -> None:
    with open(tmp_path / "m.onnx", "wb") as file:
        file.truncate(2**31 + 1)
    with pytest.raises(ModelError, match="save_as_external_data=True"):
        load_model(tmp_path / "m.onnx")
