"""How the energy and the speed of one multiply-accumulate follow the widths of its operands.

Each design class saves energy only down to what its circuit supports: bits below that save storage, never arithmetic.
Sources: Bit Fusion (ISCA 2018) for composable units, UNPU (ISSCC 2018) and Stripes (MICRO 2016) for one serial operand,
Loom (DAC 2018) for two, ENVISION (ISSCC 2017) for subword-parallel units, and for the gated one the fixed units of 2 to
16 bits that Bit Fusion's artefact synthesised at 45 nm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from hwc_onnx.cost.accelerator import AcceleratorProfile, Mac

EMULATED_FACTOR = 2.0
"""Passes and energy per operand of twice the native width, when the profile does not say (assumed: long multiplication)."""

GATED_EXPONENT = 1.34
"""Energy of a multiplier with its registers over its width: the product grows as the square, registers and sum linearly.

Fitted to four units of 2, 4, 8 and 16 bits (0.044, 0.093, 0.236, 0.717 pJ; Bit Fusion's artefact, 4 x 4 array, 45 nm).
"""


def stored_bits(bits: int, pack: Literal["exact"] | Sequence[int]) -> int:
    """Width at which a `bits`-wide word is stored: the narrowest granule of `pack` that holds it, else a multiple."""
    if pack == "exact":
        return bits
    fitting = [granule for granule in pack if granule >= bits]
    return min(fitting) if fitting else math.ceil(bits / max(pack)) * max(pack)


def leakage_pj_per_cycle(profile: AcceleratorProfile) -> float:
    """Static energy of one cycle in the profile's unit; nothing where the file states no power."""
    if profile.static is None:
        return 0.0
    picojoules = profile.static.power_mw * 1e-3 / (profile.frequency_mhz * 1e6) * 1e12
    if profile.unit == "pJ" or profile.reference_mac_pj is None:
        return picojoules
    return picojoules / profile.reference_mac_pj


def mac_energy(mac: Mac, activation_bits: int, weight_bits: int) -> float:
    """Energy of one MAC in the profile's unit, not gated."""
    factor = 1.0
    widths = []
    for bits in (activation_bits, weight_bits):
        if bits > mac.bits:
            factor *= _wide(mac, "energy")
            bits = mac.bits
        widths.append(max(bits, mac.min_bits))
    return mac.energy_pj * factor * _relative_energy(mac, *widths)


def mac_lanes(mac: Mac, activation_bits: int, weight_bits: int) -> float:
    """MACs one PE finishes per cycle; below 1 for operands wider than the multiplier or serial ones."""
    lanes = 1.0
    widths = []
    for bits in (activation_bits, weight_bits):
        if bits > mac.bits:
            lanes /= _wide(mac, "passes")
            bits = mac.bits
        widths.append(max(bits, mac.min_bits))
    return lanes * _relative_lanes(mac, *widths)


def _wide(mac: Mac, what: Literal["energy", "passes"]) -> float:
    """Factor for one operand wider than the multiplier; `Wide` states it for both operands together."""
    if mac.wide is None:
        return EMULATED_FACTOR
    return math.sqrt(mac.wide.energy_factor if what == "energy" else mac.wide.passes)


def _relative_energy(mac: Mac, activation: int, weight: int) -> float:
    full = mac.bits
    if mac.law == "gated_bits":
        static = mac.static_share or 0.0
        return float(static + (1.0 - static) * (max(activation, weight) / full) ** GATED_EXPONENT)
    if mac.law == "composable":
        return (_brick(activation) * _brick(weight)) / (full * full)
    if mac.law == "subword":
        lanes = full // _brick(max(activation, weight))
        return 1.0 if lanes == 1 else (1.0 + mac.overhead) / lanes
    if mac.law == "serial_weights":
        return weight / full
    if mac.law == "serial_activations":
        return activation / full
    if mac.law == "serial_both":
        return activation * weight / (full * full)
    return 1.0


def _relative_lanes(mac: Mac, activation: int, weight: int) -> float:
    full = mac.bits
    if mac.law == "composable":
        return (full * full) / (_brick(activation) * _brick(weight))
    if mac.law == "subword":
        return float(full // _brick(max(activation, weight)))
    if mac.law == "serial_weights":
        return full / weight
    if mac.law == "serial_activations":
        return full / activation
    if mac.law == "serial_both":
        return full * full / (activation * weight)
    return 1.0


def _brick(bits: int) -> int:
    """Width in a unit composed of 2-bit bricks: the next power of two, at least 2."""
    return max(2, 1 << (bits - 1).bit_length())
