"""Tables and payloads of `accel`: which accelerators there are, the shape of one, and each constant with its source."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

from rich.console import RenderableType

from hwc_onnx.cost.laws import mac_energy, mac_lanes
from hwc_onnx.cost.levels import NATIVE, instances, levels
from hwc_onnx.cost.profile import AcceleratorProfile
from hwc_onnx.errors import ProfileError
from hwc_onnx.report.console import table
from hwc_onnx.report.payloads import SCHEMA

ASSUMED = "assumed"
WIDTHS = (2, 4, 8, 16)
"""bit: operand widths of the table of MAC energies."""

_WIDTH = 78
_UNITS = (
    ("_pj_per_bit", "pJ/bit"),
    ("_pj", "pJ"),
    ("_mw", "mW"),
    ("_mhz", "MHz"),
    ("_nm", "nm"),
    ("bytes", "bytes"),
    ("bits_per_cycle", "bits/cycle"),
    ("bits", "bits"),
)


def list_payload(profiles: Sequence[AcceleratorProfile]) -> dict[str, Any]:
    """Name, description and digest of each profile."""
    return {"schema": SCHEMA, "accelerators": [_head(profile) for profile in profiles]}


def show_payload(profile: AcceleratorProfile) -> dict[str, Any]:
    """The hierarchy, the energy of one MAC from each memory and at each width, and every constant with its source."""
    mac = profile.mac
    return {
        "schema": SCHEMA,
        **_head(profile),
        "frequency_mhz": profile.frequency_mhz,
        "mac": {
            "law": mac.law,
            "bits": mac.bits,
            "min_bits": mac.min_bits,
            "accumulator_bits": mac.accumulator_bits,
            "energy": mac_energy(mac, NATIVE, NATIVE),
            "widths": [
                {
                    "activation_bits": activation,
                    "weight_bits": weight,
                    "energy": mac_energy(mac, activation, weight),
                    "macs_per_cycle": mac_lanes(mac, activation, weight),
                }
                for activation in WIDTHS
                for weight in WIDTHS
            ],
        },
        "array": [axis.model_dump(mode="json") for axis in profile.array.axes],
        "memories": list(_memories(profile)),
        "constants": _constants(profile),
    }


def _memories(profile: AcceleratorProfile) -> Iterator[dict[str, Any]]:
    """Shape of each memory, and what one MAC costs whose operands come from it."""
    mac = mac_energy(profile.mac, NATIVE, NATIVE)
    for memory, level in zip(profile.memories, levels(profile), strict=True):
        yield {
            "name": memory.name,
            "operands": list(memory.operands),
            "spans": memory.spans if memory.spans == "all" else list(memory.spans),
            "instances": instances(profile, memory),
            "bytes": memory.bytes,
            "pack": memory.pack if memory.pack == "exact" else list(memory.pack),
            "notes": _notes(profile, memory.name),
            "read_I": level.read_i,
            "read_W": level.read_w,
            "psum": level.psum,
            "total": level.total,
            "relative_to_mac": level.total / mac if mac else None,
        }


def _notes(profile: AcceleratorProfile, name: str) -> list[str]:
    memory = profile.memory(name)
    marks = (("home", memory.home), ("double-buffered", memory.double_buffered))
    formats = (f"{tensor} {storage.kind}" for tensor, storage in memory.formats.items())
    weights = memory.pack_weights
    apart = [] if weights is None else [f"W {_granules(weights if weights == 'exact' else list(weights))}"]
    return [mark for mark, holds in marks if holds] + apart + list(formats)


def _constants(profile: AcceleratorProfile, *, stated: bool = False) -> list[dict[str, Any]]:
    """Every constant, or those that the file states: field path, value, unit, and its source or "assumed"."""
    content = profile.model_dump(
        by_alias=True,
        mode="json",
        exclude={"name", "description", "sources", "assumed", "schema_version", "unit"},
        exclude_unset=stated,
    )
    return [
        {"field": field, "value": value, "unit": _unit(field, profile.unit), "source": _source(field, profile)}
        for field, value in _flat(content)
    ]


def check_payload(profile: AcceleratorProfile, file: str) -> dict[str, Any]:
    """What a valid file states: how many figures have a source, and how many are assumed. A mapping has no figures."""
    sources = [
        item["source"]
        for item in _constants(profile, stated=True)
        if _is_figure(item["value"]) and not item["field"].startswith("mapping.")
    ]
    return {
        "schema": SCHEMA,
        "file": file,
        "valid": True,
        "name": profile.name,
        "sha256": profile.digest(),
        "figures": len(sources),
        "assumed": sources.count(ASSUMED),
    }


def refusal_payload(error: ProfileError, file: str) -> dict[str, Any]:
    """What is wrong with a file."""
    return {"schema": SCHEMA, "file": file, "valid": False, "problems": list(error.mistakes)}


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def template_payload(text: str) -> dict[str, Any]:
    """The commented file."""
    return {"schema": SCHEMA, "template": text}


def list_tables(payload: dict[str, Any]) -> list[RenderableType]:
    """One line for each accelerator."""
    made = table(None, "accelerator", "description", left=2)
    made.columns[0].no_wrap = True
    for item in payload["accelerators"]:
        made.add_row(item["name"], item["description"])
    return [made, "\n`hwc-onnx accel show NAME` prints every constant with its source"]


def show_tables(payload: dict[str, Any]) -> list[RenderableType]:
    """The hierarchy as a drawing, energies of one MAC, and every constant; shared sources are numbered below the table."""
    unit = _energy_unit(payload)
    made = table(None, "field", "value", "unit", "source", left=4)
    numbers: dict[str, int] = {}
    for item in payload["constants"]:
        source = item["source"]
        mark = source if source in (ASSUMED, "") else f"[{numbers.setdefault(source, len(numbers) + 1)}]"
        made.add_row(item["field"], _value(item["value"]), item["unit"], mark)
    head = f"{payload['name']}: {payload['description']}"
    shown: list[RenderableType] = [
        *textwrap.wrap(head, _WIDTH),
        f"{payload['node_nm']:g} nm, {payload['frequency_mhz']:g} MHz, energies in {unit}",
        "",
        *_drawing(payload),
        f"\nEnergy of one MAC of {NATIVE} x {NATIVE} bits from each memory, {unit}\n",
        _level_table(payload),
        f"\nOne MAC by bits of input (down) and weight (across): {unit} / MACs per cycle and PE\n",
        _width_table(payload),
        "\nConstants\n",
        made,
        "",
    ]
    return shown + [f"[{number}] {source}" for source, number in numbers.items()]


def _drawing(payload: dict[str, Any]) -> Iterator[str]:
    """One line for each memory, from the multiplier outwards; a star marks the operands it holds, a bar those that pass."""
    mac, memories = payload["mac"], payload["memories"]
    widths = f"{mac['bits']}" if mac["min_bits"] == mac["bits"] else f"{mac['min_bits']}..{mac['bits']}"
    names = max(len(memory["name"]) for memory in memories)
    yield "  I  W  O"
    yield f"  |  |  |  multiplier, {mac['law']}, {widths} bits, sums of {mac['accumulator_bits']} bits"
    spans: Any = None
    for memory in memories:
        if memory["spans"] != spans:
            spans = memory["spans"]
            yield from textwrap.wrap(_place(payload, memory), _WIDTH, subsequent_indent="  ")
        held = "".join(f"  {'*' if operand in memory['operands'] else '|'}" for operand in "IWO")
        words = [f"{memory['name']:<{names}}  {_capacity(memory['bytes']):>9}  {_granules(memory['pack'])}"]
        yield f"{held}  {', '.join([*words, *memory['notes']])}"


def _place(payload: dict[str, Any], memory: dict[str, Any]) -> str:
    """Which part of the array has one of a memory."""
    if memory["spans"] == "all":
        return "one for the array"
    if memory["spans"]:
        return f"one for all {' and '.join(memory['spans'])}, {memory['instances']} in the array"
    axes = " x ".join(f"{axis['name']} {axis['size']} ({' '.join(axis['dims'])})" for axis in payload["array"])
    return f"in each PE of {axes}: {prod(axis['size'] for axis in payload['array'])}"


def _capacity(size: int | None) -> str:
    """Bytes of a memory in units of 1024."""
    if size is None:
        return "unlimited"
    return f"{size / 1024:.4g} KB" if size >= 1024 else f"{size} B"


def _granules(pack: Any) -> str:
    return "any width" if pack == "exact" else f"{' '.join(str(granule) for granule in pack)} bit"


def _level_table(payload: dict[str, Any]) -> RenderableType:
    """What the operands of one MAC cost at each memory, beside the MAC."""
    made = table(None, "from", "read I", "read W", "partial sum", "together", "x MAC")
    energy = payload["mac"]["energy"]
    made.add_row("the MAC itself", "", "", "", _figure(energy), "1" if energy else "")
    for memory in payload["memories"]:
        parts = (memory["read_I"], memory["read_W"], memory["psum"], memory["total"], memory["relative_to_mac"])
        made.add_row(memory["name"], *("" if part is None else _figure(part) for part in parts))
    return made


def _width_table(payload: dict[str, Any]) -> RenderableType:
    """Energy and speed of one MAC for each pair of operand widths."""
    made = table(None, "bits", *(str(weight) for weight in WIDTHS))
    found = {(item["activation_bits"], item["weight_bits"]): item for item in payload["mac"]["widths"]}
    for activation in WIDTHS:
        cells = (found[activation, weight] for weight in WIDTHS)
        made.add_row(
            str(activation), *(f"{_figure(cell['energy'])} / {_figure(cell['macs_per_cycle'])}" for cell in cells)
        )
    return made


def check_tables(payload: dict[str, Any]) -> list[RenderableType]:
    """One line that says the file is valid."""
    return [
        f"{payload['file']}: valid accelerator '{payload['name']}', {payload['figures']} figures, "
        f"{payload['figures'] - payload['assumed']} with a source and {payload['assumed']} assumed"
    ]


def _head(profile: AcceleratorProfile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "description": profile.description,
        "node_nm": profile.node_nm,
        "energy_unit": profile.unit,
        "sha256": profile.digest(),
    }


def _flat(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(field path, value) of each leaf; an entry of a list of mappings is called by its `name`."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if key != "name":
                yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(content, list) and content and isinstance(content[0], Mapping):
        for entry in content:
            yield from _flat(entry, f"{path}.{entry.get('name', '')}")
    elif content is not None:
        yield path, content


def _unit(field: str, energy_unit: str) -> str:
    last = field.rsplit(".", 1)[-1]
    unit = next((unit for ending, unit in _UNITS if last.endswith(ending)), "")
    return unit if energy_unit == "pJ" or field == "reference_mac_pj" else unit.replace("pJ", "MAC")


def _source(field: str, profile: AcceleratorProfile) -> str:
    """The source of the longest entry that covers this field; "assumed"; or "" for a choice that needs none."""
    covering = [
        entry for entry in [*profile.sources, *profile.assumed] if field == entry or field.startswith(entry + ".")
    ]
    if not covering:
        return ""
    return profile.sources.get(max(covering, key=len), ASSUMED)


def _energy_unit(payload: dict[str, Any]) -> str:
    return "pJ" if payload["energy_unit"] == "pJ" else "MAC"


def _figure(value: float) -> str:
    """Four significant digits, no exponent."""
    return f"{value:.4g}" if value == 0 or 1e-4 <= value < 1e4 else f"{value:.0f}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
