"""Tables and payloads of `accel`: which accelerators there are, and each constant with its unit and source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from hwc_onnx.cost.profile import AcceleratorProfile
from hwc_onnx.report.console import table
from hwc_onnx.report.payloads import SCHEMA

ASSUMED = "assumed"
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
    """Every constant of a profile: field path, value, unit, and its source or "assumed"."""
    content = profile.model_dump(
        by_alias=True, mode="json", exclude={"name", "description", "sources", "assumed", "schema_version", "unit"}
    )
    constants = [
        {"field": field, "value": value, "unit": _unit(field, profile.unit), "source": _source(field, profile)}
        for field, value in _flat(content)
    ]
    return {"schema": SCHEMA, **_head(profile), "constants": constants}


def check_payload(profile: AcceleratorProfile, file: str) -> dict[str, Any]:
    """What a valid file holds: how many figures have a source, and how many are assumed."""
    sources = [item["source"] for item in show_payload(profile)["constants"] if isinstance(item["value"], int | float)]
    return {
        "schema": SCHEMA,
        "file": file,
        "valid": True,
        "name": profile.name,
        "sha256": profile.digest(),
        "figures": len(sources),
        "assumed": sources.count(ASSUMED),
    }


def list_tables(payload: dict[str, Any]) -> list[RenderableType]:
    """One line for each accelerator."""
    made = table(None, "accelerator", "description", left=2)
    made.columns[0].no_wrap = True
    for item in payload["accelerators"]:
        made.add_row(item["name"], item["description"])
    return [made, "\n`hwc-onnx accel show NAME` prints every constant with its source"]


def show_tables(payload: dict[str, Any]) -> list[RenderableType]:
    """Every constant; sources that several fields share are numbered below the table."""
    made = table(f"{payload['name']}: {payload['description']}\n", "field", "value", "unit", "source", left=4)
    numbers: dict[str, int] = {}
    for item in payload["constants"]:
        source = item["source"]
        mark = source if source in (ASSUMED, "") else f"[{numbers.setdefault(source, len(numbers) + 1)}]"
        made.add_row(item["field"], _value(item["value"]), item["unit"], mark)
    shown: list[RenderableType] = [made, ""]
    return shown + [f"[{number}] {source}" for source, number in numbers.items()]


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
    return unit if energy_unit == "pJ" else unit.replace("pJ", "MAC")


def _source(field: str, profile: AcceleratorProfile) -> str:
    """The source of the longest entry that covers this field; "assumed"; or "" for a choice that needs none."""
    covering = [
        entry for entry in [*profile.sources, *profile.assumed] if field == entry or field.startswith(entry + ".")
    ]
    if not covering:
        return ""
    return profile.sources.get(max(covering, key=len), ASSUMED)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
