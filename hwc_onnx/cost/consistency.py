"""What must hold between the fields of an accelerator file, beyond each field's own type and range."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hwc_onnx.cost.laws import stored_bits

if TYPE_CHECKING:
    from hwc_onnx.cost.accelerator import AcceleratorProfile, Gate, Memory, Skip

WIDEST = 16
"""bit: the widest operand of any network that is costed (float networks)."""

BRICKS = (2, 4, 8, 16, 32, 64)
"""bit: widths that a unit made of 2-bit bricks can have."""


class Contradictions(ValueError):
    """Fields that are right by themselves but not together; `mistakes` has one message for each."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


def check_consistency(profile: AcceleratorProfile) -> None:
    """Raise Contradictions with field path, what was found and what to do, for every rule that is broken."""
    rules = (
        _names, _repeats, _last_memory, _inner_memories, _chains, _home, _law, _unit, _zeros, _formats, _mapping, _origins
    )  # fmt: skip
    mistakes = [mistake for rule in rules for mistake in rule(profile)]
    if mistakes:
        raise Contradictions(mistakes)


def _names(profile: AcceleratorProfile) -> Iterator[str]:
    for path, entries in (("array.axes", profile.array.axes), ("memories", profile.memories)):
        names = [entry.name for entry in entries]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield _mistake(path, f"{names.count(name)} entries are called '{name}'", "give each its own name")


def _repeats(profile: AcceleratorProfile) -> Iterator[str]:
    lists: list[tuple[str, Sequence[Any]]] = [
        (f"array.axes.{axis.name}.dims", axis.dims) for axis in profile.array.axes
    ]
    for memory in profile.memories:
        where = f"memories.{memory.name}"
        lists += [(f"{where}.operands", memory.operands), (f"{where}.spans", memory.spans)]
        lists += [(f"{where}.pack", memory.pack), (f"{where}.pack_weights", memory.pack_weights or ())]
    for path, entries in lists:
        if not isinstance(entries, str) and len(set(entries)) < len(entries):
            yield _mistake(path, f"{_listed(entries)} names one entry twice", "name each once")


def _last_memory(profile: AcceleratorProfile) -> Iterator[str]:
    last = profile.memories[-1]
    where = f"memories.{last.name}"
    if last.kind != "dram" or last.bytes is not None:
        yield _mistake(
            where,
            f"the last memory must be the dram with bytes: null, found {last.kind} with bytes: {last.bytes}",
            "list memories from the multiplier outwards",
        )
    if last.spans != "all":
        yield _mistake(f"{where}.spans", "the last memory must serve the whole array", "write all")
    if set(last.operands) != {"I", "W", "O"}:
        yield _mistake(f"{where}.operands", "the last memory must hold I, W and O", "write [I, W, O]")


def _inner_memories(profile: AcceleratorProfile) -> Iterator[str]:
    axes = [axis.name for axis in profile.array.axes]
    for memory in profile.memories[:-1]:
        where = f"memories.{memory.name}"
        if memory.bytes is None:
            yield _mistake(f"{where}.bytes", "only the last memory may be unlimited", "give its bytes")
        elif (room := memory.bytes * 8 // (2 if memory.double_buffered else 1)) < (need := _word_bits(profile, memory)):
            yield _mistake(
                f"{where}.bytes",
                f"{room} bits for working tiles are too small for a single word of each operand, {need} bits",
                "enlarge it or leave it out",
            )
        if memory.kind == "dram":
            yield _mistake(f"{where}.kind", "only the last memory may be dram", "write register or buffer")
        if memory.pack_weights is not None:
            yield _mistake(f"{where}.pack_weights", "only the last memory packs weights otherwise", "write it in pack")
        unknown = [axis for axis in memory.spans if axis not in axes] if memory.spans != "all" else []
        if unknown:
            yield _mistake(
                f"{where}.spans", f"no array axis {_listed(unknown)}", f"choose from {_listed(axes)}, or all"
            )


def _word_bits(profile: AcceleratorProfile, memory: Memory) -> int:
    """Bits of one word of each operand that a memory holds, at the multiplier's native width."""
    native = {"I": profile.mac.bits, "W": profile.mac.bits, "O": profile.mac.accumulator_bits}
    return sum(stored_bits(native[operand], memory.pack) for operand in memory.operands)


def _chains(profile: AcceleratorProfile) -> Iterator[str]:
    """On its way outwards every operand meets memories that serve more of the array, and more room where they do not."""
    every = {axis.name for axis in profile.array.axes}
    outwards = "list memories from the multiplier outwards"
    kinds = ("register", "buffer", "dram")
    for operand in ("I", "W", "O"):
        chain = [memory for memory in profile.memories if operand in memory.operands]
        served = [every if memory.spans == "all" else set(memory.spans) for memory in chain]
        for (inner, fewer), (outer, more) in itertools.pairwise(zip(chain, served, strict=True)):
            where, pair = f"memories.{outer.name}", f"operand {operand}: '{outer.name}', outside '{inner.name}',"
            if not fewer <= more:
                yield _mistake(f"{where}.spans", f"{pair} does not serve all of the array that it serves", outwards)
            elif kinds.index(inner.kind) > kinds.index(outer.kind):
                yield _mistake(f"{where}.kind", f"{pair} is a {outer.kind} behind a {inner.kind}", outwards)
            elif fewer == more and not inner.accumulator and (inner.bytes or 0) > (outer.bytes or float("inf")):
                yield _mistake(
                    f"{where}.bytes",
                    f"{pair} serves the same PEs with {outer.bytes} bytes, less than its {inner.bytes}",
                    f"{outwards}, or leave the smaller one out",
                )


def _home(profile: AcceleratorProfile) -> Iterator[str]:
    homes = [memory for memory in profile.memories if memory.home]
    if len(homes) > 1:
        yield _mistake("memories", f"several memories are home: {_listed([m.name for m in homes])}", "mark one")
    for home in homes:
        if not {"I", "O"} <= set(home.operands) or home.spans != "all" or home.bytes is None:
            yield _mistake(
                f"memories.{home.name}",
                "the home memory must hold I and O for the whole array, on chip",
                "fix operands and spans, or drop home",
            )
            continue
        for operand in ("I", "O"):
            chain = [memory.name for memory in profile.memories if operand in memory.operands]
            for beside in chain[chain.index(home.name) + 1 : -1]:
                yield _mistake(
                    f"memories.{home.name}.home",
                    f"'{beside}' lies between it and the dram for operand {operand}",
                    f"mark '{beside}' as home, or none",
                )
    stated = "residency" in profile.model_fields_set and "activations" in profile.residency.model_fields_set
    if not homes and stated and profile.residency.activations != "never":
        yield _mistake("residency.activations", "auto needs a memory with home: true", "mark one, write never, or leave it out")
    kept = profile.residency.weights_bytes
    room = sum(memory.bytes or 0 for memory in profile.memories if "W" in memory.operands and memory.kind == "buffer")
    if kept > room:
        yield _mistake(
            "residency.weights_bytes", f"{kept} bytes of weights, but the buffers that hold W have {room}", "lower it"
        )


def _law(profile: AcceleratorProfile) -> Iterator[str]:
    mac = profile.mac
    bricks = mac.law in ("composable", "subword")
    if bricks and mac.bits not in BRICKS:
        yield _mistake(
            "mac.bits", f"{mac.bits} cannot be made of bricks, law {mac.law}", f"write one of {_listed(BRICKS)}"
        )
    if mac.min_bits > mac.bits:
        yield _mistake("mac.min_bits", f"{mac.min_bits} is larger than mac.bits, {mac.bits}", "lower it")
    elif mac.law == "fixed" and mac.min_bits != mac.bits:
        yield _mistake(
            "mac.min_bits",
            f"{mac.min_bits} with law fixed, on which nothing below mac.bits saves",
            f"write {mac.bits}, or the law that narrow operands follow",
        )
    elif bricks and mac.min_bits not in BRICKS:
        yield _mistake(
            "mac.min_bits", f"{mac.min_bits} is no brick of law {mac.law}", f"write one of {_listed(BRICKS)}"
        )
    if mac.accumulator_bits < mac.bits:
        yield _mistake(
            "mac.accumulator_bits",
            f"{mac.accumulator_bits} is narrower than an operand of mac.bits, {mac.bits}",
            "write the width of the sum",
        )
    if mac.overhead and mac.law != "subword":
        yield _mistake(
            "mac.overhead", f"{mac.overhead} with law {mac.law}, which has none", "leave it out, or write law subword"
        )
    if mac.law == "gated_bits" and mac.static_share is None:
        yield _mistake("mac.static_share", "missing", "law gated_bits needs the share that no narrow operand saves")
    if mac.law != "gated_bits" and mac.static_share is not None:
        yield _mistake(
            "mac.static_share", f"{mac.static_share} with law {mac.law}", "leave it out, or write law gated_bits"
        )
    if mac.lanes_reduce and mac.law in ("fixed", "gated_bits"):
        yield _mistake("mac.lanes_reduce", f"true with law {mac.law}, which has one lane", "leave it out")
    if mac.wide is not None and mac.bits >= WIDEST:
        yield _mistake("mac.wide", f"no operand is wider than mac.bits, {mac.bits}", "leave it out")


def _unit(profile: AcceleratorProfile) -> Iterator[str]:
    if profile.unit == "normalised":
        if profile.reference_mac_pj is None:
            yield _mistake("reference_mac_pj", "missing", "state it for a normalised profile")
    elif profile.reference_mac_pj is not None:
        yield _mistake("reference_mac_pj", "stated, but unit is pJ", "leave it out, or write unit: normalised")


def _zeros(profile: AcceleratorProfile) -> Iterator[str]:
    for pattern in profile.sparsity.patterns:
        kept, _, group = pattern.partition(":")
        if group and int(kept) > int(group):
            yield _mistake("sparsity.patterns", f"'{pattern}' keeps more than there are", "write N:M with N <= M")
    features: tuple[tuple[str, Gate | Skip | None], ...] = (
        ("gate", profile.sparsity.gate),
        ("skip", profile.sparsity.skip),
    )
    for name, feature in features:
        if feature is None or "saves" not in feature.model_fields_set:
            continue
        for action, operand in (("read_I", "I"), ("read_W", "W"), ("psum", "O")):
            inmost = next((memory for memory in profile.memories if operand in memory.operands), None)
            if action in feature.saves and inmost is not None and inmost.spans != ():
                yield _mistake(
                    f"sparsity.{name}.saves",
                    f"{action} has nothing to save: no memory inside the PEs holds {operand}",
                    f"drop {action}, or list that memory with spans: []",
                )


def _formats(profile: AcceleratorProfile) -> Iterator[str]:
    for memory in profile.memories:
        for tensor, storage in memory.formats.items():
            where = f"memories.{memory.name}.formats.{tensor}"
            if tensor == "W" and "W" not in memory.operands:
                yield _mistake(where, f"'{memory.name}' holds no weights", "drop it, or add W to operands")
            if "run_bits" in storage.model_fields_set and storage.kind not in ("csc", "rlc"):
                yield _mistake(f"{where}.run_bits", f"{storage.kind} has no counts", "leave it out")
    if profile.sparsity.decode_pj and not any(memory.formats for memory in profile.memories):
        yield _mistake("sparsity.decode_pj", "no memory has formats to unpack", "leave it out, or write formats")


def _mapping(profile: AcceleratorProfile) -> Iterator[str]:
    """What is to be spread over the array needs an axis that takes it."""
    taken = {dim for axis in profile.array.axes for dim in axis.dims}
    lost = [dim for dim in profile.mapping.unroll if dim not in taken]
    if lost:
        yield _mistake(
            "mapping.unroll",
            f"no array axis takes {_listed(lost)}",
            f"add it to the dims of an axis, or choose from {_listed(sorted(taken))}",
        )


def _origins(profile: AcceleratorProfile) -> Iterator[str]:
    """Every number says where it comes from, and no origin is given twice or for a field that does not exist."""
    content = profile.model_dump(by_alias=True, exclude={"sources", "assumed"})
    leaves = [(path, value) for path, value in _leaves(content) if path != "schema"]
    entries = [*profile.sources, *profile.assumed]
    for kind, paths in (("sources", list(profile.sources)), ("assumed", list(profile.assumed))):
        for entry in paths:
            if not any(f".{path}.".startswith(f".{entry}.") for path, _ in leaves):
                yield _mistake(
                    f"{kind}.{entry}",
                    "there is no such field",
                    "write the path of a field, for example mac.energy_pj or memories.dram",
                )
    for entry in sorted(set(profile.sources) & set(profile.assumed)):
        yield _mistake(f"assumed.{entry}", "has an entry in sources too", "keep one of the two")
    # defaults need no origin, and a mapping is a choice
    stated = profile.model_dump(by_alias=True, exclude={"sources", "assumed", "mapping"}, exclude_unset=True)
    written = [(path, value) for path, value in _leaves(stated) if path != "schema"]
    numbers = [path for path, value in written if isinstance(value, (int, float)) and not isinstance(value, bool)]
    bare = [path for path in numbers if not any(f"{path}.".startswith(f"{entry}.") for entry in entries)]
    covered = set(numbers) - set(bare)
    for path in dict.fromkeys(_outermost(path, covered) for path in bare):
        yield _mistake(path, "no source", "add the field to sources or to assumed")


def _outermost(path: str, covered: set[str]) -> str:
    """The shortest start of a field path that no covered number shares: one message for a whole section."""
    parts = path.split(".")
    starts = (".".join(parts[:length]) for length in range(1, len(parts)))
    return next((start for start in starts if not any(f"{other}.".startswith(f"{start}.") for other in covered)), path)


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


def _listed(entries: Sequence[Any]) -> str:
    return ", ".join(str(entry) for entry in entries)


def _mistake(path: str, found: str, remedy: str) -> str:
    return f"field '{path}': {found}; {remedy}"
