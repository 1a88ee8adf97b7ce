"""verify says where a file runs; a file that its dialect's runtime does not take, or computes otherwise, fails."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hwc_onnx import api
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.export import write_model
from hwc_onnx.graph.quant_nodes import quant_nodes
from hwc_onnx.report.console import tables_text
from hwc_onnx.report.payloads import verify_payload
from hwc_onnx.report.verify_table import verify_tables
from hwc_onnx.runtimes import capabilities, elsewhere
from hwc_onnx.runtimes.elsewhere import installed
from hwc_onnx.verification import VerifyReport, verify
from tests.dialects.written import constant, written
from tests.rewrite.quantized_case import QuantizedCase

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "hwc_onnx" / "verify.schema.json").read_text())

openvino = pytest.mark.skipif(not installed("openvino"), reason="openvino belongs to the extra dev")
qonnx = pytest.mark.skipif(not installed("qonnx"), reason="qonnx belongs to the extra dev")


def checked(tmp_path: Path, dialect: str, bits: tuple[int, int] = (8, 8), everywhere: bool = True) -> VerifyReport:
    quantized = QuantizedCase.of("pooling", batch=16)
    file = write_model(written(quantized, dialect, *bits), tmp_path / "m.onnx")
    samples = Samples(quantized.case.feeds, None)
    return verify(file.path, quantized.case.model, samples, threads=1, everywhere=everywhere)


def status(report: VerifyReport) -> dict[tuple[str, str], str]:
    return {(row.runtime, row.level): row.status for row in report.capabilities}


def failed(report: VerifyReport) -> dict[str, str]:
    return {check.name: check.found for check in report.checks if not check.passed}


@openvino
@qonnx
@pytest.mark.parametrize(
    ("dialect", "onnxruntime", "ov", "qx", "rules"),
    [
        ("ort", "runs", "runs", "not tried", "broken"),
        ("openvino", "runs", "runs", "not tried", "broken"),
        ("qcdq", "runs", "runs", "not tried", "broken"),
        ("qonnx", "as QDQ", "fails", "runs", "met"),
        ("tensorrt", "runs", "runs", "not tried", "met"),
    ],
)
def test_each_dialect_in_each_runtime(tmp_path: Path, dialect: str, onnxruntime: str, ov: str, qx: str, rules: str) -> None:
    report = checked(tmp_path, dialect)
    found = status(report)
    assert report.passed and report.dialect == dialect
    assert [found["ONNX Runtime", level] for level in ("disable", "basic", "extended", "all")] == [onnxruntime] * 4
    assert found["OpenVINO", "float32"] == ov and found["qonnx", "node by node"] == qx
    assert found["TensorRT rules", "integer types"] == rules
    assert (found["TensorRT rules", "operators"] == "broken") is (dialect == "qonnx")
    payload = verify_payload(report, "m.onnx", "original.onnx")
    jsonschema.validate(payload, SCHEMA)
    text = tables_text(verify_tables(payload))
    assert "TensorRT rules" in text and installed("openvino") in text
    # a file that is not for TensorRT has its broken rules in one row, named and not alarming
    assert ("not met" in text) is (dialect != "tensorrt") and "broken" not in text


def test_runtimes_that_are_not_installed_are_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "installed", lambda name: "" if name in ("openvino", "qonnx") else installed(name))
    report = checked(tmp_path, "qonnx")
    found = {(row.runtime, row.status, row.found) for row in report.capabilities}
    assert ("OpenVINO", "not installed", "pip install openvino") in found
    assert ("qonnx", "not installed", "pip install qonnx") in found
    assert report.passed
    text = next(check.found for check in report.checks if check.name == "dialect qonnx")
    assert text == "qonnx is not installed: computed in ONNX Runtime alone"
    jsonschema.validate(verify_payload(report, "m.onnx", "original.onnx"), SCHEMA)


@openvino
def test_without_everywhere_only_the_runtime_of_the_dialect_is_tried(tmp_path: Path) -> None:
    found = {row.runtime for row in checked(tmp_path, "openvino", everywhere=False).capabilities}
    assert found == {"ONNX Runtime", "OpenVINO"}
    assert {row.runtime for row in checked(tmp_path, "ort", everywhere=False).capabilities} == {"ONNX Runtime"}
    assert {row.runtime for row in checked(tmp_path, "tensorrt", everywhere=False).capabilities} == {"ONNX Runtime", "TensorRT rules"}


@openvino
def test_a_file_that_openvino_does_not_compile_fails_in_its_dialect_alone(tmp_path: Path) -> None:
    quantized = QuantizedCase.of("left_weight", batch=16)
    for dialect, names in (("qcdq", []), ("openvino", ["dialect openvino"])):
        model = written(quantized, "qcdq", 8, 8)
        next(entry for entry in model.metadata_props if entry.key == "hwc.dialect").value = dialect
        report = verify(model, quantized.case.model, Samples(quantized.case.feeds, None), threads=1, everywhere=True)
        assert list(failed(report)) == names and status(report)["OpenVINO", "float32"] == "fails"


@openvino
@qonnx
@pytest.mark.parametrize("dialect", ["openvino", "qonnx"])
def test_a_runtime_that_computes_otherwise_fails_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    """Broken twin: a runtime whose outputs are a quarter too large."""
    real = {"openvino": elsewhere.in_openvino, "qonnx": elsewhere.in_qonnx}[dialect]

    def wrong(*arguments):
        session = real(*arguments)
        return replace(session, call=lambda feeds: [value * np.float32(1.25) for value in session.call(feeds)])

    monkeypatch.setattr(capabilities, f"in_{dialect}", wrong)
    report = checked(tmp_path, dialect)
    assert list(failed(report)) == [f"dialect {dialect}"] and "differs" in failed(report)[f"dialect {dialect}"]


def test_a_file_of_dialect_tensorrt_with_a_zero_point_fails_and_names_the_node(tmp_path: Path) -> None:
    quantized = QuantizedCase.of("pooling", batch=16)
    model = written(quantized, "tensorrt", 8, 8)
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    constant(model, node.input[2]).CopyFrom(numpy_helper.from_array(np.array(1, np.int8), node.input[2]))
    report = verify(model, quantized.case.model, Samples(quantized.case.feeds, None), threads=1)
    assert list(failed(report)) == ["dialect tensorrt"]
    assert "zero points" in failed(report)["dialect tensorrt"] and node.name in failed(report)["dialect tensorrt"]


def test_a_qonnx_file_without_quant_nodes_fails(tmp_path: Path) -> None:
    quantized = QuantizedCase.of("pooling", batch=16)
    model = written(quantized, "qonnx", 8, 8)
    assert not quant_nodes(model)
    report = verify(model, quantized.case.model, Samples(quantized.case.feeds, None), threads=1)
    assert failed(report) == {"dialect qonnx": f"qonnx {installed('qonnx')} not tried: the file has no Quant nodes"}


def test_a_qonnx_file_is_verified_by_path_and_from_memory_alike(tmp_path: Path) -> None:
    quantized = QuantizedCase.of("residual", batch=16)
    path = write_model(written(quantized, "qonnx", 3, 4), tmp_path / "m.onnx").path
    samples = Samples(quantized.case.feeds, None)
    first = verify(path, quantized.case.model, samples, threads=1)
    second = verify(onnx.load(path), quantized.case.model, samples, threads=1)
    assert first == second and first.passed and dict(first.weight_bits) == {3: 3}
    assert first.file_bytes == path.stat().st_size
    assert "Quant nodes read as" in next(check.found for check in first.checks if check.name == "opens at all levels")


@pytest.mark.parametrize("dialect", ["openvino", "qcdq", "qonnx", "tensorrt"])
def test_apply_says_how_the_file_was_measured_and_keeps_the_dialect_in_the_plan(tmp_path: Path, dialect: str) -> None:
    from tests.tiny_models import chain

    applied = api.apply_plan(chain(), plan=api.uniform_plan(chain(), "w4a8"), data="synthetic:256", recovery="none", dialect=dialect)
    said = [note for note in applied.notes if note.startswith(f"dialect {dialect}: ")]
    assert len(said) == (0 if dialect == "qcdq" else 1)
    applied.save(tmp_path / "m.onnx")
    applied.save_plan(tmp_path / "plan.json")
    again = api.apply_plan(chain(), plan=tmp_path / "plan.json", data="synthetic:256")
    assert again.plan.dialect == dialect
    assert again.save(tmp_path / "again.onnx").sha256 == write_model(onnx.load(tmp_path / "m.onnx"), tmp_path / "same.onnx").sha256
    assert api.verify(tmp_path / "m.onnx", against=chain(), accelerator=None).passed
    assert api.profile(tmp_path / "m.onnx").cost.total == pytest.approx(applied.cost.total, rel=1e-9)
