"""The schemas that ship with the package accept what is written, and notice what is wrong."""

from __future__ import annotations

import copy
import json
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from hwc_onnx.plan import CompressionPlan, LayerConfig
from tests.report.samples import profiled, result_payload


def schema(name: str) -> dict[str, Any]:
    loaded = json.loads(files("hwc_onnx").joinpath(f"{name}.schema.json").read_text())
    assert isinstance(loaded, dict)
    return loaded


NAMES = sorted(
    entry.name.removesuffix(".schema.json")
    for entry in files("hwc_onnx").iterdir()
    if entry.name.endswith(".schema.json")
)


@pytest.mark.parametrize("name", NAMES)
def test_schema_is_valid_and_versioned(name: str) -> None:
    loaded = schema(name)
    jsonschema.Draft202012Validator.check_schema(loaded)
    assert '"const": 1' in json.dumps(loaded)


def test_result_schema_accepts_a_result() -> None:
    jsonschema.validate(result_payload(), schema("result"))


@pytest.mark.parametrize(
    "path", [("metric", "drop_ci95"), ("energy_pj", "compressed"), ("search", "stopped_by"), ("goal_met",)]
)
def test_result_schema_notices_a_missing_field(path: tuple[str, ...]) -> None:
    payload: Any = copy.deepcopy(result_payload())
    inner = payload
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    with pytest.raises(jsonschema.ValidationError, match=path[-1]):
        jsonschema.validate(payload, schema("result"))


def test_profile_schema_accepts_one_and_several() -> None:
    one = profiled(explain="conv1_output")
    assert "terms" in one["nodes"][0] and "terms" not in one["nodes"][1]
    jsonschema.validate(one, schema("profile"))
    jsonschema.validate([one, one], schema("profile"))
    assert sum(node["energy_pj"]["total"] for node in one["nodes"]) == pytest.approx(
        one["totals"]["energy_pj"]["total"]
    )


@pytest.mark.parametrize("path", [("totals", "inferences_per_joule"), ("accumulators", "bits"), ("static_power_mw",)])
def test_profile_schema_notices_a_missing_field(path: tuple[str, ...]) -> None:
    payload = profiled()
    inner: Any = payload
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload, schema("profile"))


def test_plan_schema_is_the_one_of_the_class() -> None:
    assert schema("plan") == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **CompressionPlan.model_json_schema(by_alias=True),
    }, "run: python docs/plan_schema.py"


def test_plan_schema_accepts_a_plan_and_refuses_an_unknown_field() -> None:
    plan = json.loads(CompressionPlan.uniform(["conv1"], LayerConfig(weight_bits=4)).to_json())
    jsonschema.validate(plan, schema("plan"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**plan, "bits": 3}, schema("plan"))
