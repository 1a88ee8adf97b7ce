"""An accelerator small enough to compute by hand: 2 x 2 PEs with registers, two buffers, and a DRAM."""

from __future__ import annotations

import copy
from typing import Any

from hwc_onnx.cost.accelerator import AcceleratorProfile
from hwc_onnx.cost.profile import parse_profile

CONTENT: dict[str, Any] = {
    "schema": 1,
    "name": "tiny",
    "description": "2 x 2 PEs for tests",
    "node_nm": 28,
    "unit": "pJ",
    "frequency_mhz": 100,
    "mac": {"law": "fixed", "bits": 8, "min_bits": 8, "energy_pj": 0.5, "accumulator_bits": 24},
    "array": {
        "axes": [{"name": "rows", "size": 2, "dims": ["C", "FY"]}, {"name": "columns", "size": 2, "dims": ["K", "OY"]}],
        "hop_pj_per_bit": 0.003,
    },
    "memories": [
        {"name": "i_reg", "operands": ["I"], "spans": [], "bytes": 2, "kind": "register",
         "read_pj_per_bit": 0.011, "write_pj_per_bit": 0.013},
        {"name": "w_reg", "operands": ["W"], "spans": [], "bytes": 4, "kind": "register",
         "read_pj_per_bit": 0.017, "write_pj_per_bit": 0.019},
        {"name": "o_reg", "operands": ["O"], "spans": [], "bytes": 12, "kind": "register", "accumulator": True,
         "pack": [24], "read_pj_per_bit": 0.023, "write_pj_per_bit": 0.029},
        {"name": "buffer", "operands": ["I", "O"], "bytes": 64, "kind": "buffer", "home": True, "pack": [2, 4, 8, 24],
         "read_pj_per_bit": 0.31, "write_pj_per_bit": 0.37},
        {"name": "w_buffer", "operands": ["W"], "bytes": 32, "kind": "buffer", "pack": [2, 4, 8, 16],
         "read_pj_per_bit": 0.41, "write_pj_per_bit": 0.43},
        {"name": "dram", "operands": ["I", "W", "O"], "bytes": None, "kind": "dram", "pack": "exact",
         "read_pj_per_bit": 5.0, "write_pj_per_bit": 7.0},
    ],
    "vector": {"op_pj": 0.2, "lookup_pj": 0.7, "lanes": 4},
    "residency": {"activations": "auto", "weights_bytes": 0},
    "sources": {},
    "assumed": ["node_nm", "frequency_mhz", "mac", "array", "memories", "vector", "residency", "sparsity", "static"],
}  # fmt: skip


def content(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The file's content with fields replaced; keys are dotted paths, list entries are named (None as is)."""
    made = copy.deepcopy(CONTENT)
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        at: Any = made
        for name in parents:
            at = (
                next(entry for entry in at if entry["name"] == name)
                if isinstance(at, list)
                else at.setdefault(name, {})
            )
        at[last] = value
    return made


def without(path: str) -> dict[str, Any]:
    """The file's content with one field left out."""
    made = content()
    *parents, last = path.split(".")
    at: Any = made
    for name in parents:
        at = next(entry for entry in at if entry["name"] == name) if isinstance(at, list) else at[name]
    del at[last]
    return made


def tiny(changes: dict[str, Any] | None = None) -> AcceleratorProfile:
    """The profile, with fields replaced (see `content`)."""
    return parse_profile(content(changes), "tiny")
