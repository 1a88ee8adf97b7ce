"""Which zeros spare which action: the operands that an accelerator watches, each counted once.

A gate and a skip may watch different operands; zeros of different operands are independent, so their shares multiply.
An operand that is skipped leaves nothing to gate, and where the array skips a pattern, the weights' other zeros spare nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from hwc_onnx.cost.accelerator import AcceleratorProfile, Operand

ACTIONS = ("mac", "read_I", "read_W", "psum")


class Watched(NamedTuple):
    """An action happens for the share of the pattern, if `listed`, x densities of `skipped` x (residual + (1 - residual) x
    densities of `gated`).
    """

    listed: bool
    skipped: tuple[Operand, ...]
    gated: tuple[Operand, ...]


def serves(profile: AcceleratorProfile, pattern: str) -> bool:
    """Whether an accelerator skips a pattern of this name ("2:4", "1x4"), or has a format made for its kind."""
    kinds = {storage.kind for memory in profile.memories for storage in memory.formats.values()}
    return pattern in profile.sparsity.patterns or ("nm" if ":" in pattern else "blocks") in kinds


def watched(profile: AcceleratorProfile, pattern: str | None) -> dict[str, Watched]:
    """What is watched for each action, and for "cycle", the time that skipping leaves; `pattern` is that of the weights."""
    gate, skip = profile.sparsity.gate, profile.sparsity.skip
    listed = pattern in profile.sparsity.patterns
    found = {}
    for action in (*ACTIONS, "cycle"):
        skips = skip is not None and (action == "cycle" or action in skip.saves)
        skipped = tuple(o for o in skip.operands if not (listed and o == "W")) if skip is not None and skips else ()
        gates = gate is not None and action in gate.saves
        beside = (*skipped, "W") if listed else skipped
        gated = tuple(o for o in gate.operands if o not in beside) if gate is not None and gates else ()
        found[action] = Watched(listed, skipped, gated)
    return found
