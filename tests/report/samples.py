"""Small results, made by hand, that tables and schemas are tested with."""

from __future__ import annotations

from typing import Any

from hwc_onnx.cost.profile import load_profile
from hwc_onnx.cost.types import COMPONENTS, Accumulator, ModelCost, NodeCost, Term
from hwc_onnx.report.profile_payload import profile_payload


def result_payload() -> dict[str, Any]:
    """A result.json of a run that met its goal."""
    triple = {"float": 4.0e8, "baseline_int8": 1.0e8, "compressed": 3.9e7}
    return {
        "schema": 1,
        "model": {"path": "resnet20.onnx", "sha256": "0" * 64},
        "output": {
            "path": "demo/resnet20.hwc.onnx",
            "sha256": "1" * 64,
            "kind": "compressed",
            "file_bytes": 123_456,
            "original_file_bytes": 1_095_000,
            "baseline_file_bytes": 300_000,
        },
        "run_dir": "demo/resnet20.hwc",
        "accelerator": {"name": "edge-flex", "sha256": "2" * 64},
        "data": "real",
        "splits": {"calibration": 1024, "search": 3976, "holdout": 10_000},
        "metric": {
            "name": "top1",
            "original": 0.9321,
            "baseline_int8": 0.9318,
            "baseline_drop_points": 0.02,
            "baseline_drop_ci95": [-0.05, 0.09],
            "compressed": 0.9254,
            "drop_points": 0.67,
            "drop_ci95": [0.41, 0.93],
            "search_drop_points": 0.55,
            "limit_points": 1.0,
            "gate": "upper",
            "n_holdout": 10_000,
            "at_disable_all": 0.9254,
            "at_enable_all": 0.9255,
        },
        "looks": [],
        "energy_pj": triple,
        "energy_unit": "pJ",
        "reduction_vs_int8": 0.61,
        "reduction_vs_float": 0.9025,
        "compared_accelerators": [
            {
                "name": "eyeriss-v2-sparse",
                "energy_pj": triple,
                "energy_unit": "pJ",
                "reduction_vs_int8": 0.61,
                "reduction_vs_float": 0.9025,
            }
        ],
        "coverage": {"macs": 1.0, "traffic": 1.0},
        "latency_s": {"float": 0.004, "baseline_int8": 0.001, "compressed": 0.0004},
        "accelerator_bytes": {"float": 546_000, "baseline_int8": 273_000, "compressed": 90_000},
        "memory_bytes": {"float": 546_000 + 98_304, "baseline_int8": 273_000 + 49_152, "compressed": 90_000 + 32_768},
        "macs": {"float": 3.1e7, "baseline_int8": 3.1e7, "compressed": 2.2e7},
        "search": {
            "sampler": "composite",
            "seed": 0,
            "evaluations": 200,
            "image_forwards": 800_000,
            "seconds": 183.2,
            "database_seconds": 41.0,
            "stopped_by": "trials",
            "origin": "local_search",
            "gained": {"seed": 0.55, "local_search": 0.06},
        },
        "notes": [],
        "goal_met": True,
        "exit_code": 0,
        "versions": {"hwc-onnx": "0.1.0"},
    }


def model_cost(scale: float = 1.0) -> ModelCost:
    """Two nodes, a layer and a pooling, whose parts sum to the totals."""
    conv = dict.fromkeys(COMPONENTS, 1000.0 * scale)
    pool = {**dict.fromkeys(COMPONENTS, 0.0), "vector": 50.0 * scale}
    accesses = {"activation_buffer": {"I": {"read": 100.0, "write": 0.0}, "O": {"read": 0.0, "write": 20.0}}}
    mapping = {
        "spatial": {"rows": {"C": 8}, "columns": {"K": 8}},
        "temporal": [["OY", 4], ["OX", 3]],
        "tiles": [{"memory": "weight_registers", "operand": "W", "loops": 2, "words": 1}],
        "dims": {"B": 1, "G": 1, "K": 8, "C": 8, "OY": 4, "OX": 3, "FY": 1, "FX": 1},
        "bits": {"I": 8, "W": 8, "O": 8},
        "density": {"I": 1.0, "W": 0.5, "O": 1.0},
        "input": "dram",
        "weights": "dram",
        "output": "stays on chip",
    }
    terms = tuple(
        Term(
            name,
            f"something of {name}",
            1000.0,
            "words",
            scale,
            1.0,
            1.0,
            "memories.dram.read_pj_per_bit",
            ("so it is",),
        )
        for name in COMPONENTS
    )
    nodes = (
        NodeCost(
            "conv1_output",
            "Conv",
            9216,
            conv,
            100.0,
            1e-6,
            "mapped",
            accesses,
            mapping,
            0.5,
            "dram",
            terms,
            Accumulator(24, 26, False),
        ),
        NodeCost("pool_output", "MaxPool", 0, pool, 10.0, 1e-7, "vector"),
    )
    energy = {name: conv[name] + pool[name] for name in COMPONENTS}
    return ModelCost(nodes, energy, "pJ", 110.0, 1.1e-6, 1.0, 0.98, 288, 9216, (("odd", "unknown operator"),))


def profiled(name: str = "edge-flex", scale: float = 1.0, explain: str | bool | None = None) -> dict[str, Any]:
    """The payload of `model_cost` on a shipped accelerator; INT8 costs 4 and float 16 times as much."""
    costs = model_cost(scale), model_cost(4.0), model_cost(16.0)
    return profile_payload(load_profile(name), *costs, 0.1, explain=explain)
