"""The recorded results of ZigZag and AccelForge beside what hwc-onnx says of the same layer on the same accelerator."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zigzag_rules import as_zigzag_counts

from hwc_onnx.cost import LayerMapping, LayerOptions, LoopDims, evaluate_mapping
from hwc_onnx.cost.accelerator import AcceleratorProfile
from hwc_onnx.cost.mapper import mapped_on
from hwc_onnx.cost.profile import parse_profile
from hwc_onnx.cost.steps import StepEnergies
from hwc_onnx.cost.types import NodeCost
from hwc_onnx.cost.window import rows_moved
from hwc_onnx.errors import MappingError

REFERENCE = Path(__file__).parent / "reference"
sys.path.insert(0, str(REFERENCE))
from architectures import ARCHITECTURES, Architecture  # noqa: E402 - plain data beside the other tools' runners


@dataclass(frozen=True)
class Pair:
    """One layer on one architecture. `reference` is the best energy of any tool, `zigzag_s` CPU time of its search."""

    case: str
    architecture: str
    zigzag: float
    accelforge: float | None
    exact: bool
    zigzag_s: float
    complete: bool
    own: NodeCost
    own_s: float
    same: float | None = None
    same_raw: float = 1.0
    counts: float = 0.0
    refused: str = ""
    fraction: bool = False

    @property
    def reference(self) -> float:
        """The best energy of any other tool."""
        return min(self.zigzag, self.accelforge or self.zigzag)


def profile_of(architecture: Architecture) -> AcceleratorProfile:
    """The architecture as an accelerator file of hwc-onnx: energies per bit of the one width that everything has."""
    bits = architecture.word_bits
    memories = []
    for memory in architecture.memories:
        energy = memory.energy / bits
        inside = memory.scope == "pe"
        entry = {
            "name": memory.name, "operands": list(memory.operands), "spans": [] if inside else "all",
            "bytes": None if memory.words is None else memory.words * bits // 8,
            "kind": "dram" if memory.words is None else "register" if inside else "buffer",
            "read_pj_per_bit": energy, "write_pj_per_bit": energy, "pack": [bits],
            "accumulator": inside and memory.operands == ("O",), "home": memory.name == "buffer",
        }  # fmt: skip
        memories.append(entry)
    axes = [{"name": n, "size": a.size, "dims": list(a.dims)} for n, a in (("rows", architecture.rows), ("columns", architecture.columns))]
    content = {
        "schema": 1, "name": architecture.name, "description": "of the comparison with other tools", "node_nm": 65,
        "unit": "normalised", "reference_mac_pj": 1.0, "frequency_mhz": 200,
        "mac": {"law": "fixed", "bits": bits, "min_bits": bits, "energy_pj": architecture.mac_energy, "accumulator_bits": bits},
        "array": {"axes": axes, "hop_pj_per_bit": 0.0}, "memories": memories,
        "vector": {"op_pj": 0.0, "lookup_pj": 0.0, "lanes": 1}, "residency": {"activations": "never"}, "sources": {},
        "assumed": ["node_nm", "frequency_mhz", "reference_mac_pj", "mac", "array", "memories", "vector", "residency"],
    }  # fmt: skip
    return parse_profile(content, architecture.name)


def options_of(architecture: Architecture) -> LayerOptions:
    """Everything at the one width, nothing but the layer itself."""
    return LayerOptions(architecture.word_bits, architecture.word_bits, channel_constants=False)


def pairs(zigzag: Path, accelforge: Path, only: str) -> Iterator[Pair | str]:
    """Every recorded pair in turn; a line of text for one that has no result."""
    third = {_key(record): record for record in _results(accelforge)}
    for record in _results(zigzag):
        if only not in record["case"]:
            continue
        if "energy" not in record:
            yield f"{record['case']} on {record['architecture']}: {record['error']}"
            continue
        yield _pair(record, third.get(_key(record), {}).get("energy"))


def _pair(record: dict[str, Any], accelforge: float | None) -> Pair:
    architecture = ARCHITECTURES[record["architecture"]]
    profile, options = profile_of(architecture), options_of(architecture)
    dims = LoopDims(**record["dims"], stride=tuple(record["stride"]), dilation=tuple(record["dilation"]))
    rows_moved.cache_clear()
    energies = StepEnergies(profile, None)
    started = time.process_time()
    own = mapped_on(energies, dims, options)
    own_s = time.process_time() - started
    # a mapping whose unrolling is not a fraction can be counted by both tools without rounding
    whole = record if record["exact"] else record.get("best_exact", record)
    stated = whole["mapping"]
    inside = {o: dict(zip(stated["memories"][o], held, strict=True)) for o, held in stated["inside"].items()}
    temporal = tuple((d, int(n)) for d, n in reversed(stated["temporal"]))
    mapping = LayerMapping(stated["spatial_integer"], temporal, inside)
    found = Pair(
        record["case"], architecture.name, record["energy"], accelforge, bool(record["exact"]), record["cpu_seconds"],
        record["search_complete"], own, own_s,
    )  # fmt: skip
    try:
        same = evaluate_mapping(dims, mapping, profile, options)
    except MappingError as error:
        # a tile of ZigZag's that fits only where units are a fraction
        return replace(found, refused=str(error))
    loaded = as_zigzag_counts(same, dims, mapping, architecture)
    energy = same.macs * architecture.mac_energy + sum(
        words * next(m.energy for m in architecture.memories if m.name == name) for (name, _), words in loaded.items()
    )
    recorded = {key: whole["accesses"].get(key[0], {}).get(key[1], {"read": 0, "write": 0}) for key in loaded}
    theirs = {key: counts["read"] + counts["write"] for key, counts in recorded.items()}
    worst = max(abs(words - theirs[key]) / max(words, theirs[key], 1.0) for key, words in loaded.items())
    found = replace(found, fraction=not whole["exact"])
    return replace(found, same=energy / whole["energy"], same_raw=same.total / whole["energy"], counts=worst)


def _results(path: Path) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = json.loads(path.read_text())["results"] if path.exists() else []
    return results


def _key(record: dict[str, Any]) -> tuple[str, str]:
    return record["case"], record["architecture"]
