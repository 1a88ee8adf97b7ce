"""How the factors and widths of a term come about, in words with the numbers filled in."""

from __future__ import annotations

import math

from hwc_onnx.cost.accelerator import Format, Mac
from hwc_onnx.cost.formats import element_bits, pattern_bits
from hwc_onnx.cost.query import LayerQuery
from hwc_onnx.cost.setting import LayerSetting
from hwc_onnx.graph.zero_pattern import Blocks, Pattern, name_of, share_of

Words = tuple[str, ...]


def law_words(mac: Mac, activation_bits: int, weight_bits: int, relative: float) -> Words:
    """What widths other than the multiplier's own make of the energy of a MAC; nothing where it stays."""
    if relative == 1.0:
        return ()
    wide = max(activation_bits, weight_bits) > mac.bits
    how = "wider than the multiplier" if wide else f"law {mac.law}"
    return (f"{activation_bits} x {weight_bits} bits, {how}: a MAC costs {relative:.6g} of one at {mac.bits} bits",)


def share_words(query: LayerQuery, setting: LayerSetting, action: str) -> Words:
    """How often an action happens, residual energy included; nothing where it always does."""
    happens = query.probabilities(setting)[action]
    if happens == 1.0:
        return ()
    return (f"{_cause(query, setting, action, query.residual(action))} = {happens:.6g} of the energy",)


def psum_words(query: LayerQuery, setting: LayerSetting, together: float) -> Words:
    """How many products meet a partial sum at a time, and how often one of them is there."""
    found: Words = ()
    if together != 1.0:
        found = (f"{together:.6g} products meet one sum at a time",)
    share = query.probabilities(setting)["psum"]
    if share == 1.0:
        return found
    residual = query.residual("psum")
    spared = f"1 - (1 - {share:.6g})^{together:.6g}" if together != 1.0 else f"{share:.6g}"
    value = residual + (1.0 - residual) * (1.0 - (1.0 - share) ** together)
    cause = _cause(query, setting, "psum", 0.0)
    if together == 1.0 and not residual:
        return (f"{cause} = {value:.6g} of the energy",)
    why = f"{residual:.6g} + {1.0 - residual:.6g} x ({spared})" if residual else spared
    return (*found, f"{cause}; a sum is touched with {why} = {value:.6g} of the energy")


def width_words(
    asked: int,
    stored: int,
    density: float,
    storage: Format | None,
    pattern: Pattern | None,
    channels: int | None = None,
) -> Words:
    """How many bits one element takes: the granule it is packed in, and the format that leaves out zeros."""
    found: Words = () if asked == stored else (f"{asked} bits take {stored}",)
    if storage is None:
        return found
    bits = element_bits(stored, density, storage, pattern, channels)
    if storage.selectable and bits == stored:
        return (*found, f"{storage.kind} saves nothing at density {density:.6g}")
    return (*found, f"{storage.kind}: {_formula(stored, density, storage, pattern, channels)} = {bits:.6g} bits")


def _formula(stored: int, density: float, storage: Format, pattern: Pattern | None, channels: int | None) -> str:
    run = storage.run_bits
    if storage.kind == "bitmask":
        return f"1 + {density:.6g} x {stored}"
    if storage.kind == "csc":
        return f"{density:.6g} x ({stored} + {run})"
    if storage.kind == "rlc":
        pairs = f"{density:.6g} / (1 - (1 - {density:.6g})^{1 << run})" if density > 0.0 else f"1 / {1 << run}"
        return f"{pairs} x ({run} + {stored} + 1/3)"
    if pattern is None:
        return f"{stored}"
    if isinstance(pattern, Blocks):
        each = pattern_bits(0, "blocks", pattern, channels)
        return f"{pattern.share:.6g} x {stored} + {each:.6g}"
    return f"{_kept(pattern, channels)} x ({stored} + {math.ceil(math.log2(pattern[1]))})"


def _kept(pattern: tuple[int, int], channels: int | None) -> str:
    """The share that an N:M pattern leaves, as a fraction where all runs are whole."""
    share = share_of(pattern, channels)
    return f"{pattern[0]}/{pattern[1]}" if share == pattern[0] / pattern[1] else f"{share:.6g}"


def _cause(query: LayerQuery, setting: LayerSetting, action: str, residual: float) -> str:
    """What spares an action, and the product that says how often it happens."""
    seen = query.watched(setting.nm)[action]
    densities: dict[str, float] = {"I": setting.activation_density, "W": setting.weight_density}
    said, factors = [], []
    if setting.nm is not None and seen.listed and share_of(setting.nm, setting.dims.C) != 1.0:
        if isinstance(setting.nm, Blocks):
            said.append(f"{setting.nm.share:.6g} of the weights lie in blocks {name_of(setting.nm)} that are there")
            factors.append(f"{setting.nm.share:.6g}")
        else:
            kept, group = setting.nm
            said.append(f"{kept} of {group} weights are there")
            factors.append(_kept(setting.nm, setting.dims.C))
    if seen.skipped:
        said.append(f"skipped where {' x '.join(seen.skipped)} = 0")
        factors += [f"{densities[operand]:.6g}" for operand in seen.skipped]
    if seen.gated:
        said.append(f"gated where {' x '.join(seen.gated)} = 0")
        of = " x ".join(f"{densities[operand]:.6g}" for operand in seen.gated)
        spent = f"{residual:.6g} + {1.0 - residual:.6g} x {of}" if residual else of
        factors.append(f"({spent})" if residual and factors else spent)
    return f"{', '.join(said)}: {' x '.join(factors)}"
