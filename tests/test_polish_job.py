"""`--polish` through the front doors: what is recorded, the same bytes again from the plan, and where it is refused."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import hwc_onnx
from hwc_onnx import api
from hwc_onnx.errors import UsageError
from hwc_onnx.report.applied_table import applied_tables
from hwc_onnx.report.console import tables_text
from hwc_onnx.report.payloads import applied_payload
from hwc_onnx.report.result_table import result_tables
from tests.cli.tiny_case import tiny_case

MODEL, SAMPLES = tiny_case(np.random.default_rng(0))


def schema(name: str) -> Any:
    return json.loads(files("hwc_onnx").joinpath(f"{name}.schema.json").read_text())


def applied(**options: Any) -> api.Applied:
    return api.apply_plan(MODEL, plan=api.uniform_plan(MODEL, "w2a8"), data=SAMPLES, **options)


@pytest.mark.parametrize("recovery", ["full", "sequential"])
def test_apply_tells_what_a_polish_gained_and_its_plan_gives_the_same_bytes(recovery: str, tmp_path: Path) -> None:
    first = applied(recovery=recovery, polish=True)
    assert first.polished is not None
    assert first.plan.calibration.polish == first.polished.kept
    assert first.polished.note() in first.notes
    payload = applied_payload(first, first.save(tmp_path / "out.onnx"), [])
    jsonschema.validate(payload, schema("apply"))
    shown = tables_text(applied_tables(payload))
    assert ("codes changed" in shown) == first.polished.kept
    assert [layer["key"] for layer in payload["polish"]["layers"]] == list(first.plan.layers)
    again = api.apply_plan(MODEL, plan=first.plan, data=SAMPLES)
    assert again.proto.SerializeToString() == first.proto.SerializeToString()


def test_what_is_kept_measures_better_than_without() -> None:
    """Either recovery may leave something to polish; what is kept is what measured better."""
    both = [applied(recovery=recovery, polish=True).polished for recovery in ("full", "sequential")]
    assert all(found is not None and found.kept == (found.after.damage < found.before.damage) for found in both)
    assert any(found is not None and found.kept for found in both)


def test_without_polish_nothing_is_told_and_nothing_changes() -> None:
    plain, turned_off = applied(), applied(polish=False)
    assert plain.polished is None and not plain.plan.calibration.polish
    assert plain.proto.SerializeToString() == turned_off.proto.SerializeToString()


@pytest.mark.parametrize("recovery", ["none", "ranges"])
def test_polish_of_layers_that_nothing_repaired_is_refused(recovery: str) -> None:
    with pytest.raises(UsageError, match="polish"):
        applied(recovery=recovery, polish=True)


def test_compress_polishes_its_finalists(tmp_path: Path) -> None:
    result = hwc_onnx.compress(
        MODEL, data=SAMPLES, output=tmp_path / "out.onnx", trials=6, max_drop=60.0, gate="point", weight_bits=(2, 3), polish=True
    )
    payload = result.to_json()
    jsonschema.validate(payload, schema("result"))
    assert payload["output"]["kind"] == "compressed" and result.plan is not None
    assert payload["polish"]["layers"] and result.plan.calibration.polish == payload["polish"]["kept"]
    assert any(note.startswith("polish: ") for note in payload["notes"])
    assert ("codes changed" in tables_text(result_tables(payload))) == payload["polish"]["kept"]
    assert hwc_onnx.verify(tmp_path / "out.onnx", against=MODEL).passed
