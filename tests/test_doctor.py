"""What `doctor` says of this machine, from real sessions, and what it advises."""

from __future__ import annotations

import configparser
import importlib.util
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import onnx
import pytest

from hwc_onnx import doctor
from hwc_onnx.accuracy.runner import LEVELS
from hwc_onnx.doctor import WIDTHS, examine, folder_bytes, probe_model
from hwc_onnx.errors import RuntimeFailure
from hwc_onnx.report.console import tables_text
from hwc_onnx.report.doctor_table import advice, doctor_tables


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return examine()


def test_every_width_opens_here_and_the_payload_keeps_its_schema(found: dict[str, Any]) -> None:
    jsonschema.validate(found, json.loads(files("hwc_onnx").joinpath("doctor.schema.json").read_text()))
    assert [(probe["weight_bits"], probe["activation_bits"]) for probe in found["probes"]] == list(WIDTHS)
    assert all(probe["failures"] == {} for probe in found["probes"])
    text = tables_text(doctor_tables(found))
    assert max(map(len, text.splitlines())) <= 100 and "W2 A4" in text
    assert "CPUExecutionProvider" in found["providers"] and "CPUExecutionProvider" in text
    for extra in found["extras"]:
        assert extra["installed"] == (importlib.util.find_spec({"pillow": "PIL"}.get(extra["package"], extra["package"])) is not None)
        assert (extra["version"] or "no") in text and extra["package"] in text


def test_optional_runtimes_are_listed_with_the_extra_that_installs_them(found: dict[str, Any]) -> None:
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    assert {"openvino", "qonnx"} <= {extra["package"] for extra in found["extras"]}
    for extra in found["extras"]:
        assert extra["package"] in setup["options.extras_require"][extra["extra"]]
    missing = [{**extra, "installed": False, "version": None} for extra in found["extras"]]
    said = advice({**found, "extras": missing})
    assert all(any(f"hwc-onnx[{name}]" in line for line in said) for name in ("openvino", "qonnx"))
    assert "openvino  no" in tables_text(doctor_tables({**found, "extras": missing}))


def test_the_commit_is_shown_where_it_is_known(found: dict[str, Any]) -> None:
    assert "commit" in tables_text(doctor_tables({**found, "commit": "0123456789ab"}))
    assert "commit" not in tables_text(doctor_tables({**found, "commit": None}))


def test_a_width_that_opens_at_some_levels_only_is_told(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any]) -> None:
    honest = doctor.open_session

    def refusing(proto: onnx.ModelProto, level: str) -> Any:
        nibbles = any(tensor.data_type == onnx.TensorProto.INT4 for tensor in proto.graph.initializer)
        if nibbles and level == LEVELS[-1]:
            raise RuntimeFailure("no kernel for INT4")
        return honest(proto, level=level)

    monkeypatch.setattr(doctor, "open_session", refusing)
    probes = [probe.payload() for probe in doctor.probe_widths()]
    assert {probe["weight_bits"] for probe in probes if probe["failures"]} == {2, 3, 4}
    said = advice({**found, "probes": probes})
    assert any("W4 A8 at level all: no kernel for INT4" in line for line in said)
    assert any("--weight-bits" in line for line in said)


def test_what_is_missing_is_named_with_its_command(found: dict[str, Any]) -> None:
    extras = [{"extra": "images", "purpose": "folders of images as data", "installed": False}]
    said = advice({**found, "extras": extras, "wide_products": False})
    assert any("pip install 'hwc-onnx[images]'" in line for line in said) and any("--portable" in line for line in said)
    assert advice({**found, "extras": [], "wide_products": True, "probes": []}) == ["everything is in place"]


def test_the_probe_is_a_valid_model_and_folders_are_added_up(tmp_path: Path) -> None:
    onnx.checker.check_model(probe_model(), full_check=True)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"123")
    (tmp_path / "b").write_bytes(b"4567")
    assert folder_bytes(tmp_path) == 7
