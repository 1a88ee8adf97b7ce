"""Tables of `doctor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from hwc_onnx.report.console import table, wrapped
from hwc_onnx.report.quantities import size

LEVELS = ("disable", "basic", "extended", "all")


def doctor_tables(payload: Mapping[str, Any]) -> list[RenderableType]:
    """Versions, optional packages, machine, widths by optimisation level, and what is missing."""
    machine = table("Machine", "", "", left=2)
    memory = payload["memory_bytes"]
    cache = payload["cache"]
    for name, value in (
        ("platform", payload["platform"]),
        ("Python", payload["python"]),
        ("processor", payload["cpu_features"]),
        ("providers", ", ".join(payload["providers"])),
        ("threads used", str(payload["threads"])),
        ("memory", "unknown" if memory is None else size(memory)),
        ("cache", "none" if cache["path"] is None else f"{cache['path']}, {size(cache['bytes'])} (may be deleted)"),
        *(("environment", f"{name}={value}") for name, value in payload["environment"].items()),
    ):
        machine.add_row(name, value)
    installed = table("Versions", "package", "version", left=2)
    for name, version in payload["versions"].items():
        installed.add_row(name, version)
    if payload["commit"] is not None:
        installed.add_row("commit", payload["commit"])
    lines: list[RenderableType] = [installed, "", _optional(payload), "", machine, "", _widths(payload)]
    lines += [wrapped(text) for text in advice(payload)]
    return lines


def advice(payload: Mapping[str, Any]) -> list[str]:
    """What to do about what was found, one sentence each."""
    said = []
    failed = [probe for probe in payload["probes"] if probe["failures"]]
    for probe in failed:
        level, why = next(iter(probe["failures"].items()))
        said.append(f"W{probe['weight_bits']} A{probe['activation_bits']} at level {level}: {why}")
    if failed:
        said.append("limit the search to what opens, with --weight-bits and --activation-bits, or upgrade onnxruntime")
    if not payload["wide_products"]:
        said.append(
            "this processor may saturate sums of 8-bit products: give --portable, or compare with a processor that has VNNI"
        )
    for extra in payload["extras"]:
        if not extra["installed"]:
            said.append(f"not installed: {extra['purpose']}; pip install 'hwc-onnx[{extra['extra']}]'")
    return said or ["everything is in place"]


def _optional(payload: Mapping[str, Any]) -> RenderableType:
    made = table("Optional", "package", "version", "for", left=3)
    for extra in payload["extras"]:
        made.add_row(extra["package"], extra["version"] or "no", extra["purpose"])
    return made


def _widths(payload: Mapping[str, Any]) -> RenderableType:
    made = table("Opens and agrees, by level", "widths", *LEVELS)
    for probe in payload["probes"]:
        cells = ["no" if level in probe["failures"] else "yes" for level in LEVELS]
        made.add_row(f"W{probe['weight_bits']} A{probe['activation_bits']}", *cells)
    return made
