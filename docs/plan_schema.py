"""Writes hwc_onnx/plan.schema.json from the plan's class: run by `make docs`, checked by a test."""

from __future__ import annotations

import json
from pathlib import Path

from hwc_onnx.plan import CompressionPlan

if __name__ == "__main__":
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **CompressionPlan.model_json_schema(by_alias=True),
    }
    target = Path(__file__).parents[1] / "hwc_onnx" / "plan.schema.json"
    target.write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")
