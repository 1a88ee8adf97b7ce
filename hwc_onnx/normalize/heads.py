"""Attention between heads, written out in plain operators.

    y = softmax(softcap(scale q k^T) + bias) v,    softcap(s) = c tanh(s / c)

for queries q [N, H, S, D], keys k [N, H, T, D] and values v [N, H, T, E]. Source: Vaswani et al., "Attention Is All You
Need", NeurIPS 2017, equation (1); the cap: Gemma Team, "Gemma 2", 2024, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.normalize.writing import Writer

HIDDEN = float(np.finfo(np.float32).min)
"""Added to the score of a key that is never attended: its share of a sum with an attended key is exactly 0."""

QUERY_ORDER = (0, 2, 1, 3)
"""[N, S, H, D] to [N, H, S, D], and back."""

KEY_ORDER = (0, 2, 3, 1)
"""[N, T, H, D] to [N, H, D, T]."""


@dataclass(frozen=True)
class Heads:
    """Names of queries [N, H, S, D], keys turned [N, H, D, T], values [N, H, T, E] and of a bias that broadcasts to
    [N, H, S, T] (empty: none); `emptied` says that the bias can hide all keys of a query, whose result is then 0.
    """

    queries: str
    keys: str
    values: str
    scale: float
    bias: str = ""
    emptied: bool = False
    softcap: float = 0.0


@dataclass(frozen=True)
class Scores:
    """Names of the scores [N, H, S, T] as they come, capped, with the bias, and as probabilities; of the result."""

    plain: str
    capped: str
    biased: str
    probabilities: str
    result: str


def attend(writer: Writer, heads: Heads, out: str = "") -> Scores:
    """Write the formula above; the result [N, H, S, E] is called `out` if that is given."""
    plain = writer.node("MatMul", [heads.queries, heads.keys], "scores")
    if heads.scale != 1.0:
        plain = writer.node("Mul", [plain, writer.number(heads.scale, "scale")], "scaled")
    capped = plain
    if heads.softcap > 0:
        cap = writer.number(heads.softcap, "cap")
        bounded = writer.node("Tanh", [writer.node("Div", [plain, cap], "shrunk")], "bounded")
        capped = writer.node("Mul", [bounded, cap], "capped")
    biased = writer.node("Add", [capped, heads.bias], "biased") if heads.bias else capped
    shares = writer.node("Softmax", [biased], "shares", axis=-1)
    if heads.emptied:
        empty = writer.node("IsNaN", [shares], "empty")
        shares = writer.node("Where", [empty, writer.number(0.0, "zero"), shares], "settled")
    return Scores(plain, capped, biased, shares, writer.node("MatMul", [shares, heads.values], "attended", out))


def split_heads(writer: Writer, name: str, heads: int, role: str, order: tuple[int, ...] = QUERY_ORDER) -> str:
    """[N, S, H D] to [N, H, S, D], or to another order of [N, S, H, D]."""
    cut = writer.node("Reshape", [name, writer.sizes([0, 0, heads, -1], f"{role}_sizes")], f"{role}_cut")
    return writer.node("Transpose", [cut], f"{role}_heads", perm=list(order))


def join_heads(writer: Writer, name: str, out: str) -> None:
    """[N, H, S, E] to [N, S, H E]."""
    turned = writer.node("Transpose", [name], "joined", perm=list(QUERY_ORDER))
    writer.node("Reshape", [turned, writer.sizes([0, 0, -1], "joined_sizes")], "", out)


def causal(queries: int, keys: int, past: int = 0) -> NDArray[np.bool_]:
    """[S, T]: query i attends key j if j <= i + past."""
    return np.tri(queries, keys, past, dtype=np.bool_)


def constant_bias(writer: Writer, attended: NDArray[np.bool_]) -> str:
    """A bias of 0 where keys are attended and HIDDEN elsewhere; stored as the booleans, which several nodes can share."""
    zero, hidden = writer.number(0.0, "zero"), writer.number(HIDDEN, "hidden")
    return writer.node("Where", [writer.constant(attended, "attended"), zero, hidden], "bias")
