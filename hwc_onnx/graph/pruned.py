"""What a plan must know of the pruning algorithm that it names: whether channels leave, and in which pattern zeros lie.

Names are looked up here without loading the algorithms (pruning/table.py); a plug-in (`module:attribute`) says so itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from hwc_onnx.graph.zero_pattern import Blocks, Pattern
from hwc_onnx.plugins import resolve

COARSE_ALGORITHMS = frozenset({"l1", "l2", "fpgm", "bernoulli", "reconstruct", "gram", "fold"})
"""Built-in algorithms that remove channels; `pruning/table.py` says where each one is."""

NM_PATTERNS: Mapping[str, tuple[int, int]] = {"nm24": (2, 4), "nm48": (4, 8)}
"""Built-in algorithms that leave N of every M weights."""

BLOCK_SIZES: Mapping[str, int] = {"block4": 4}
"""Built-in algorithms that leave whole blocks of weights, and the size of these."""


def is_coarse(algorithm: str) -> bool:
    """Whether an algorithm removes channels; a plug-in (`module:attribute`) says so itself."""
    if ":" not in algorithm:
        return algorithm in COARSE_ALGORITHMS
    return getattr(resolve("pruning algorithm", algorithm, {}), "granularity", "fine") == "coarse"


def pattern_of(algorithm: str) -> tuple[int, int] | None:
    """(N, M) for an algorithm that leaves N of every M weights, else None."""
    if ":" not in algorithm:
        return NM_PATTERNS.get(algorithm)
    found = getattr(resolve("pruning algorithm", algorithm, {}), "pattern", None)
    return None if found is None else (int(found[0]), int(found[1]))


def block_of(algorithm: str) -> int | None:
    """Weights in each block, for an algorithm whose zeros come in blocks, else None."""
    if ":" not in algorithm:
        return BLOCK_SIZES.get(algorithm)
    found = getattr(resolve("pruning algorithm", algorithm, {}), "block", None)
    return None if found is None else int(found)


def pattern_for(algorithm: str, ratio: float) -> Pattern | None:
    """The pattern in which an algorithm's zeros lie at this ratio; None where it is none."""
    size = block_of(algorithm)
    return pattern_of(algorithm) if size is None else Blocks(1.0 - ratio, size)
