"""Bits per element of a stored tensor when zeros are left out.

With n elements of b bits at density d (share of non-zeros, independent):
bitmask n(1 + d b) (SparTen, MICRO 2019); CSC n d (b + count bits) (EIE, ISCA 2016; Eyeriss v2, JETCAS 2019);
run-length coding with r-bit runs: n d / (1 - (1-d)^(2^r)) pairs of (r + b) bits, three pairs and one end bit in a
64-bit word at 16 bits (Eyeriss, JSSC 2017); N:M: n N/M (b + ceil(log2 M)), a last run shorter than M keeping up to N (NVIDIA's sparse tensor cores); with the share s of
weights in blocks of B that are not all zero: n (s b + 1/B), a bitmask with a bit for each block (as SparTen's for each element).
"""

from __future__ import annotations

import math

from hwc_onnx.cost.accelerator import Format
from hwc_onnx.graph.zero_pattern import Blocks, Pattern, share_of


def element_bits(
    bits: int, density: float, storage: Format | None, pattern: Pattern | None = None, channels: int | None = None
) -> float:
    """Mean stored bits of one element (zeros included), metadata counted.

    Args:
        bits: stored width of a non-zero element.
        density: share of elements that are not zero, 0..1.
        storage: the memory's format for this tensor, None for uncompressed.
        pattern: (N, M) when zeros follow an N:M pattern, or `Blocks`; only the formats "nm" and "blocks" need it.
        channels: input channels of each group: a last run of fewer than M may be dense (None: whole runs).
    """
    if storage is None:
        return float(bits)
    packed = _compressed(bits, density, storage, pattern, channels)
    if packed is None:
        return float(bits)
    return min(packed, float(bits)) if storage.selectable else packed


def _compressed(
    bits: int, density: float, storage: Format, pattern: Pattern | None, channels: int | None
) -> float | None:
    if storage.kind == "bitmask":
        return 1.0 + density * bits
    if storage.kind == "csc":
        return density * (bits + storage.run_bits)
    if storage.kind == "rlc":
        if density <= 0.0:
            return (bits + storage.run_bits + 1 / 3) / (1 << storage.run_bits)
        filled = 1.0 - (1.0 - density) ** (1 << storage.run_bits)
        return density / filled * (bits + storage.run_bits + 1 / 3)
    return pattern_bits(bits, storage.kind, pattern, channels)


def pattern_bits(bits: int, kind: str, pattern: Pattern | None, channels: int | None = None) -> float | None:
    """Mean stored bits of one element in a format made for a pattern; None where the zeros do not lie in one that it is made for."""
    if isinstance(pattern, Blocks):
        each = 1 / pattern.size if channels is None else math.ceil(channels / pattern.size) / channels
        return pattern.share * bits + each if kind == "blocks" else None
    if pattern is None or kind != "nm":
        return None
    return share_of(pattern, channels) * (bits + math.ceil(math.log2(pattern[1])))
