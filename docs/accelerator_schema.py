"""Writes hwc_onnx/accelerator.schema.json from the accelerator's class: run by `make docs`, checked by a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hwc_onnx.cost.accelerator import AcceleratorProfile


def schema() -> dict[str, Any]:
    """The JSON Schema of an accelerator file. Rules between fields are checked by `hwc-onnx accel check` alone."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **AcceleratorProfile.model_json_schema(by_alias=True),
        "title": "hwc-onnx accelerator file, schema 1",
    }


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "hwc_onnx" / "accelerator.schema.json"
    target.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
