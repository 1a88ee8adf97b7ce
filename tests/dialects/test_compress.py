"""The whole search in another dialect: measured as ONNX Runtime opens it, written as its runtime wants it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import hwc_onnx
from hwc_onnx.cli.main import cli
from hwc_onnx.errors import VerifyError
from hwc_onnx.events import Event, Note
from hwc_onnx.graph.quant_nodes import quant_nodes
from hwc_onnx.level_agreement import Check
from hwc_onnx.runtimes.tensorrt_rules import check_rules
from tests.cli.tiny_case import tiny_case

MODEL, SAMPLES = tiny_case(np.random.default_rng(0))


def compress(folder: Path, **options: object) -> tuple[hwc_onnx.result.Result, list[str]]:
    heard: list[Event] = []
    chosen = {"trials": 3, "max_drop": 60.0, "gate": "point"} | options
    result = hwc_onnx.compress(MODEL, data=SAMPLES, output=folder / "out.onnx", on_event=heard.append, **chosen)
    return result, [event.text for event in heard if isinstance(event, Note)]


@pytest.mark.parametrize("dialect", ["openvino", "qcdq", "qonnx", "tensorrt"])
def test_compress_writes_the_dialect_and_says_how_it_was_measured(dialect: str, tmp_path: Path) -> None:
    result, notes = compress(tmp_path, dialect=dialect)
    assert result.plan.dialect == dialect
    said = [note for note in notes if note.startswith(f"dialect {dialect}: ")]
    assert len(said) == (0 if dialect == "qcdq" else 1)
    file = onnx.load(tmp_path / "out.onnx")
    assert bool(quant_nodes(file)) is (dialect == "qonnx")
    assert bool(quant_nodes(onnx.load(next(tmp_path.glob("*.hwc")) / "best.onnx"))) is (dialect == "qonnx")
    if dialect == "tensorrt":
        assert all(rule.met for rule in check_rules(file)) and "9 published rules are met" in said[0]
    assert result.to_json()["output"]["file_bytes"] == (tmp_path / "out.onnx").stat().st_size
    saved = result.save(tmp_path / "saved.onnx")
    assert saved.read_bytes() == (tmp_path / "out.onnx").read_bytes()
    assert hwc_onnx.verify(tmp_path / "out.onnx", against=MODEL).passed
    measured = hwc_onnx.evaluate(tmp_path / "out.onnx", data=SAMPLES)
    assert 0.0 <= measured.value <= 1.0


def test_a_file_that_its_runtime_refuses_is_not_called_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken twin: the dialect's check fails."""
    from hwc_onnx import verification

    monkeypatch.setattr(verification, "dialect_check", lambda file, rows: Check("dialect openvino", False, "OpenVINO fails"))
    with pytest.raises(VerifyError, match=r"dialect openvino: OpenVINO fails"):
        compress(tmp_path, dialect="openvino")


def test_apply_takes_a_dialect_and_refuses_an_unknown_one(tmp_path: Path) -> None:
    model = tmp_path / "tiny.onnx"
    onnx.save(MODEL, model)
    run = ["apply", str(model), "--uniform", "w4a8", "--data", "synthetic", "-o", str(tmp_path / "out.onnx")]
    found = CliRunner().invoke(cli, [*run, "--dialect", "qonnx"])
    assert found.exit_code == 0 and quant_nodes(onnx.load(tmp_path / "out.onnx"))
    assert "ONNX Runtime has no Quant nodes" in " ".join(found.output.split())
    refused = CliRunner().invoke(cli, [*run, "--dialect", "qonx"])
    assert refused.exit_code == 2
    narrow = CliRunner().invoke(cli, [*run[:3], "w4a4", *run[4:], "--dialect", "tensorrt"])
    assert narrow.exit_code == 4
