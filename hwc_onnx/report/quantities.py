"""How figures are written: four significant digits, a unit that fits the size, never a bare number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hwc_onnx.accuracy.metrics import unit_of as unit_of

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_JOULES = ((1e12, "J"), (1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ"), (1.0, "pJ"))
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_WATTS = ((1.0, "W"), (1e-3, "mW"), (1e-6, "uW"))
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1.0, "B"))


def energy(value: float, unit: str = "pJ") -> str:
    """Picojoules as pJ to J; energies of a normalised profile as multiples of its MAC, with a thousand prefix."""
    if unit == "pJ":
        return _scaled(value, _JOULES)
    return f"{count(value)} MAC"


def scale_of(value: float, unit: str = "pJ", least: float = 100.0) -> tuple[float, str]:
    """A factor and its unit in which an energy is at least `least`, and as small as it can be then."""
    units = _JOULES if unit == "pJ" else tuple((factor, f"{prefix} MAC") for factor, prefix in (*_PREFIXES, (1.0, "")))
    return next(
        ((factor, name.strip()) for factor, name in units if abs(value) >= least * factor), (1.0, units[-1][1].strip())
    )


def exact(value: float) -> str:
    """A count in full; what is no whole number with seven significant digits."""
    return f"{value:.0f}" if value == round(value) else f"{value:.7g}"


def latency(seconds: float) -> str:
    """Seconds as ns to s."""
    return _scaled(seconds, _SECONDS)


def power(milliwatts: float) -> str:
    """Milliwatts as uW to W."""
    return _scaled(milliwatts * 1e-3, _WATTS)


def duration(seconds: float) -> str:
    """Elapsed time as 12 s, 3 min 05 s or 1 h 02 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(value: float) -> str:
    """Bytes as B to GB (powers of 1000)."""
    return _scaled(value, _BYTES)


PARTS = {
    "weights": "weights",
    "quantizers": "scales and zero points",
    "constants": "other constants",
    "graph": "nodes and names",
    "metadata": "metadata",
}
"""Words for the parts of a file (graph/file_parts.py)."""


def file_shares(parts: Mapping[str, int]) -> str:
    """What the bytes of a file are for, as one clause."""
    return ", ".join(f"{PARTS[name]} {size(value)}" for name, value in parts.items() if value)


def count(value: float) -> str:
    """A count with k, M, G or T."""
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.4g}{prefix}"
    return f"{value:.4g}"


def percent(fraction: float) -> str:
    """A fraction as a percentage with one decimal."""
    return f"{100.0 * fraction:.1f}%"


def change(reduction: float) -> str:
    """A reduction as a signed change: 0.6 is -60.0%."""
    return f"{round(-100.0 * reduction, 1) + 0.0:+.1f}%"


def points(value: float | None) -> str:
    """A drop in points, with its sign; a dash where it could not be measured."""
    return "-" if value is None else f"{value:+.2f}"


def original_value(name: str, value: float | None) -> str:
    """The original's own value; a dash for sqnr, which compares with the original (its drop is from INT8)."""
    return "-" if name == "sqnr" else metric_value(name, value)


def metric_value(name: str, value: float | None) -> str:
    """A metric in its own unit: shares as percentages, sqnr in dB, the rest as numbers; a dash where it could not be measured."""
    if value is None:
        return "-"
    if name == "sqnr":
        return f"{value:.5g} dB"
    return f"{100.0 * value:.2f}%" if name in ("top1", "top5", "agreement", "miou") else f"{value:.5g}"


def goal_words(result: Mapping[str, Any]) -> str:
    """Whether a run met its goal, in words: keeping the limit with the INT8 baseline is no gain."""
    if not result["goal_met"]:
        return "goal NOT met"
    return "goal met" if result["output"]["kind"] == "compressed" else "limit kept, but nothing gained beyond INT8"


_LIMITS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "energy": ("energy {} of INT8", lambda share: f"{100.0 * share:.4g}%"),
    "latency": ("latency {}", latency),
    "bytes": ("file {}", size),
    "memory": ("memory {}", size),
}


def limit_words(limits: Mapping[str, float]) -> list[str]:
    """Limits beside accuracy (`hwc_onnx.limits`), each with its unit."""
    return [words.format(written(limits[name])) for name, (words, written) in _LIMITS.items() if limits.get(name) is not None]


def _scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    for factor, unit in units:
        if abs(value) >= factor:
            return f"{value / factor:.4g} {unit}"
    factor, unit = units[-1]
    return f"{value / factor:.4g} {unit}"
