"""What must hold between the fields of an accelerator file, beyond each field's own type and range."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwc_onnx.cost.accelerator import AcceleratorProfile


def check_consistency(profile: AcceleratorProfile) -> None:
    """Raise ValueError with field path, what was found and what to do, for the first rule that is broken."""
    _names(profile)
    _last_memory(profile)
    for memory in profile.memories[:-1]:
        _inner_memory(profile, memory.name)
    _chains(profile)
    _home(profile)
    _arithmetic(profile)
    _origins(profile)


def _names(profile: AcceleratorProfile) -> None:
    axes = [axis.name for axis in profile.array.axes]
    _require(len(set(axes)) == len(axes), "array.axes", "two axes have the same name", "give each its own")
    names = [memory.name for memory in profile.memories]
    _require(len(set(names)) == len(names), "memories", "two memories have the same name", "give each its own")


def _last_memory(profile: AcceleratorProfile) -> None:
    last = profile.memories[-1]
    where = f"memories.{last.name}"
    _require(
        last.kind == "dram" and last.bytes is None,
        where,
        "the last memory must be the dram with bytes: null",
        "list memories from the multiplier outwards",
    )
    _require(last.spans == "all", f"{where}.spans", "the last memory must serve the whole array", "write all")
    _require(
        set(last.operands) == {"I", "W", "O"},
        f"{where}.operands",
        "the last memory must hold I, W and O",
        "write [I, W, O]",
    )


def _inner_memory(profile: AcceleratorProfile, name: str) -> None:
    memory = profile.memory(name)
    axes = [axis.name for axis in profile.array.axes]
    where = f"memories.{name}"
    _require(memory.bytes is not None, f"{where}.bytes", "only the last memory may be unlimited", "give its bytes")
    _require(memory.kind != "dram", f"{where}.kind", "only the last memory may be dram", "write register or buffer")
    unknown = [axis for axis in memory.spans if axis not in axes] if memory.spans != "all" else []
    _require(not unknown, f"{where}.spans", f"no array axis {unknown}", f"choose from {axes} or write all")
    width = profile.mac.accumulator_bits if "O" in memory.operands else 1
    _require(
        (memory.bytes or 0) * 8 >= width,
        f"{where}.bytes",
        "too small for a single word",
        "enlarge it or leave it out",
    )


def _chains(profile: AcceleratorProfile) -> None:
    """On its way outwards every operand meets memories that serve more and more of the array."""
    every = {axis.name for axis in profile.array.axes}
    for operand in ("I", "W", "O"):
        chain = [memory for memory in profile.memories if operand in memory.operands]
        served = [every if memory.spans == "all" else set(memory.spans) for memory in chain]
        for (inner, fewer), (outer, more) in itertools.pairwise(zip(chain, served, strict=True)):
            _require(
                fewer <= more,
                f"memories.{outer.name}.spans",
                f"operand {operand}: '{outer.name}' does not serve all of the array that '{inner.name}' inside it serves",
                "list memories from the multiplier outwards",
            )


def _home(profile: AcceleratorProfile) -> None:
    homes = [memory.name for memory in profile.memories if memory.home]
    _require(len(homes) <= 1, "memories", f"several memories are home: {homes}", "mark one")
    home = profile.home
    if home is not None:
        _require(
            {"I", "O"} <= set(home.operands) and home.spans == "all" and home.bytes is not None,
            f"memories.{home.name}",
            "the home memory must hold I and O for the whole array, on chip",
            "fix operands and spans, or drop home",
        )
        for operand in ("I", "O"):
            beside = [memory.name for memory in profile.memories if operand in memory.operands][-2]
            _require(
                beside == home.name,
                f"memories.{home.name}.home",
                f"'{beside}' lies between it and the dram for operand {operand}",
                f"mark '{beside}' as home, or none",
            )
    _require(
        home is not None or profile.residency.activations == "never",
        "residency.activations",
        "auto needs a memory with home: true",
        "mark one, or write never",
    )


def _arithmetic(profile: AcceleratorProfile) -> None:
    mac = profile.mac
    _require(mac.bits >= mac.min_bits, "mac.min_bits", "larger than mac.bits", "lower it")
    _require(
        profile.unit == "pJ" or profile.reference_mac_pj is not None,
        "reference_mac_pj",
        "missing",
        "state it for a normalised profile",
    )
    for pattern in profile.sparsity.patterns:
        kept, group = map(int, pattern.split(":"))
        _require(kept <= group, "sparsity.patterns", f"'{pattern}' keeps more than there are", "write N:M with N <= M")


def _origins(profile: AcceleratorProfile) -> None:
    """Every number says where it comes from, and no origin is given for a field that does not exist."""
    content = profile.model_dump(by_alias=True, exclude={"sources", "assumed"})
    fields = {path for path, _ in _leaves(content)} - {"schema"}
    known = {"." + path for path in fields}
    for kind, entries in (("sources", list(profile.sources)), ("assumed", list(profile.assumed))):
        for entry in entries:
            _require(
                any((path + ".").startswith(f".{entry}.") for path in known),
                f"{kind}.{entry}",
                "there is no such field",
                "write the path of a field, for example mac.energy_pj or memories.dram",
            )
    for path, value in _leaves(content):
        if path in fields and isinstance(value, (int, float)) and not isinstance(value, bool):
            covered = any((path + ".").startswith(entry + ".") for entry in [*profile.sources, *profile.assumed])
            _require(covered, path, "no source", "add the field to sources or to assumed")


def _leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of all fields of a dumped profile; entries of a list of mappings are named, others share a path."""
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(content, (list, tuple)) and content:
        for entry in content:
            name = entry.get("name") if isinstance(entry, Mapping) else None
            yield from _leaves(entry, f"{path}.{name}" if name else path)
    else:
        yield path, content


def _require(condition: bool, path: str, found: str, remedy: str) -> None:
    if not condition:
        raise ValueError(f"field '{path}': {found}; {remedy}")
