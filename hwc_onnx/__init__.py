"""hwc-onnx: hardware-aware compression of ONNX models, without retraining.

The calls below are loaded when first used, so that `import hwc_onnx` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwc_onnx.api import (
        apply_plan,
        check_data,
        compare,
        compress,
        evaluate,
        inspect,
        plan_comparison,
        plan_work,
        profile,
        sensitivity,
        uniform_plan,
        verify,
        why,
    )
    from hwc_onnx.job.own_study import open_problem
    from hwc_onnx.plan import CompressionPlan, LayerConfig
    from hwc_onnx.search.sampler import PlanObjective, StrategySampler

    __version__: str

_HOME = {
    "compress": "hwc_onnx.api",
    "compare": "hwc_onnx.api",
    "profile": "hwc_onnx.api",
    "inspect": "hwc_onnx.api",
    "evaluate": "hwc_onnx.api",
    "apply_plan": "hwc_onnx.api",
    "uniform_plan": "hwc_onnx.api",
    "check_data": "hwc_onnx.api",
    "plan_comparison": "hwc_onnx.api",
    "plan_work": "hwc_onnx.api",
    "fix": "hwc_onnx.api",
    "verify": "hwc_onnx.api",
    "sensitivity": "hwc_onnx.api",
    "why": "hwc_onnx.api",
    "open_problem": "hwc_onnx.job.own_study",
    "PlanObjective": "hwc_onnx.search.sampler",
    "StrategySampler": "hwc_onnx.search.sampler",
    "CompressionPlan": "hwc_onnx.plan",
    "LayerConfig": "hwc_onnx.plan",
}

__all__ = [
    "CompressionPlan",
    "LayerConfig",
    "PlanObjective",
    "StrategySampler",
    "__version__",
    "apply_plan",
    "check_data",
    "compare",
    "compress",
    "evaluate",
    "fix",
    "inspect",
    "open_problem",
    "plan_comparison",
    "plan_work",
    "profile",
    "sensitivity",
    "uniform_plan",
    "verify",
    "why",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("hwc-onnx")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'hwc_onnx' has no attribute '{name}'; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
