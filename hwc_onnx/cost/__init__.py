"""Energy, cycles and traffic of layers and graphs on an accelerator: pure arithmetic.

The names below are for use from outside, loaded when first used; everything else is how they are made.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwc_onnx.cost.layer_mapping import LayerMapping
    from hwc_onnx.cost.mapper import LayerOptions, evaluate_mapping, map_layer
    from hwc_onnx.cost.model import CostModel
    from hwc_onnx.cost.options_table import TableOption, energy_table
    from hwc_onnx.cost.profile import list_profiles, load_profile
    from hwc_onnx.graph.loop_dims import LoopDims

_HOME = {
    "CostModel": "hwc_onnx.cost.model",
    "LayerMapping": "hwc_onnx.cost.layer_mapping",
    "LayerOptions": "hwc_onnx.cost.mapper",
    "LoopDims": "hwc_onnx.graph.loop_dims",
    "TableOption": "hwc_onnx.cost.options_table",
    "energy_table": "hwc_onnx.cost.options_table",
    "evaluate_mapping": "hwc_onnx.cost.mapper",
    "list_profiles": "hwc_onnx.cost.profile",
    "load_profile": "hwc_onnx.cost.profile",
    "map_layer": "hwc_onnx.cost.mapper",
}

__all__ = [
    "CostModel",
    "LayerMapping",
    "LayerOptions",
    "LoopDims",
    "TableOption",
    "energy_table",
    "evaluate_mapping",
    "list_profiles",
    "load_profile",
    "map_layer",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'hwc_onnx.cost' has no attribute '{name}'; it offers {', '.join(__all__)}")
