"""The exact count of one nest where the product of `access` counts too much.

Where a dimension that an operand follows has two loops outside the tile and the last pass of the outer one has a single
step, loops between the two find the tile in place. With S_q the tiles for which nothing changes within the first q
loops, W(S) their words and C_q the passes of the other dimensions outside of the first q loops, from placement p on

    words = sum over q >= p of (W(S_q) - W(S_q+1)) C_q

and where all passes are full, W(S_q) is 0 behind the first loop that the operand follows: the product remains.
"""

from __future__ import annotations

from dataclasses import replace

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.access import Nests
from hwc_onnx.cost.operands import FX, FY, OX, OY, dependence
from hwc_onnx.cost.passes import table_width
from hwc_onnx.cost.window import Cut, rows_moved


def counted_twice(nests: Nests, operand: Operand, row: int, position: int) -> bool:
    """Whether `Nests.moved` of nest `row` counts some words twice: only then is `moved` needed.

    It does if the tile can stay the same while the first loop around it goes round, and another loop follows. That loop
    must concern the operand, as it does wherever a tile is held as long as it can be.
    """
    if position >= nests.depth - 1:
        return False
    d = int(nests.loop_dims[row, position])
    follows = dependence(operand, nests.nest.dims.transposed)
    if d not in follows.plain and not (follows.windowed and d in (OY, OX, FY, FX)):
        return False
    if len(nests.loops_of(row, d, position)) < 2:
        return False
    return _start(nests, row, d, position, position + 1) is not None


def moved(nests: Nests, operand: Operand, row: int, position: int, span: tuple[int, ...]) -> float:
    """`Nests.moved` of one nest, without its excess."""
    total, before = 0.0, _words(nests, operand, row, position, position, span)
    for q in range(position, nests.depth + 1):
        after = _words(nests, operand, row, position, q + 1, span) if q < nests.depth else 0.0
        if before != after:
            total += (before - after) * _copies(nests, operand, row, q, span)
        if after == 0.0:
            break
        before = after
    return total


def _copies(nests: Nests, operand: Operand, row: int, position: int, span: tuple[int, ...]) -> float:
    """Passes of the dimensions that the operand does not follow, outside of the first `position` loops."""
    copies = 1.0
    for d in dependence(operand, nests.nest.dims.transposed).repeated:
        if nests.nest.sizes[d] > 1:
            width = table_width(nests.nest.sizes[d])
            copies *= float(nests.passes.copies(d, span)[nests.which[row] * width + nests.inside(row, d, position)])
    return copies


def _words(nests: Nests, operand: Operand, row: int, position: int, q: int, span: tuple[int, ...]) -> float:
    """Words of the tiles at `position` that do not change within the first `q` loops."""
    follows = dependence(operand, nests.nest.dims.transposed)
    words = 1.0
    for d in follows.plain:
        start = _start(nests, row, d, position, q)
        if start is None:
            return 0.0
        words *= nests.nest.sizes[d] - start
    if not follows.windowed:
        return words
    unroll = nests.unrolls[nests.which[row]]
    for axis, o, k in zip(nests.nest.axes, (OY, OX), (FY, FX), strict=True):
        starts, cuts = [], []
        for d in (o, k):
            start = _start(nests, row, d, position, q)
            if start is None:
                return 0.0
            starts.append(start)
            served = int(unroll[list(span), d].prod()) if span else 1
            cuts.append(Cut(nests.inside(row, d, position), served, int(unroll[:, d].prod())))
        # tiles begin at `starts`, so what is left is cut as a smaller layer, that many rows further on
        pad = axis.pad - starts[0] * axis.stride - starts[1] * axis.dilation
        left = replace(axis, outputs=axis.outputs - starts[0], taps=axis.taps - starts[1], pad=pad)
        words *= rows_moved(left, cuts[0], cuts[1])
    return words


def _start(nests: Nests, row: int, d: int, position: int, q: int) -> int | None:
    """First index of dimension `d` in the tiles that do not change between loops `position` and `q`; None if all do."""
    size, whole = nests.nest.sizes[d], int(nests.whole[nests.which[row], d])
    inner, outer = nests.inside(row, d, position), nests.inside(row, d, q)
    if inner == outer:
        return 0
    start = (-(-size // (whole * outer)) - 1) * whole * outer
    return start if size - start <= whole * inner else None
