"""Rows fitted to what an activation function lets through: where a Relu gives zero, it does not matter how far below zero its input is.

Let z be what the function reads in the original and z' in the compressed network. A target that costs nothing where both are cut
off alike is z where z lies within the bounds, min(z', low) where z is below them and max(z', high) where it is above. For these
targets the rows are least squares again, and with the new rows come new targets. Their error bounds the one behind the
function from above, and is the same but where z lies within the bounds and z' does not; of all rounds, each row keeps the best.

Source: Zhang et al., Accelerating Very Deep Convolutional Networks (TPAMI 2016), section 3.2, fit through the nonlinearity with
an auxiliary variable and a penalty; here the variable is eliminated, for Relu and Clip.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.exchange import solved
from hwc_onnx.recovery.quadratic import ridge_of
from hwc_onnx.recovery.setting import RepairedRows
from hwc_onnx.recovery.statistics import F64, LayerStatistics, MomentsBuilder, Room

F32 = NDArray[np.float32]
ROUNDS = 10


@dataclass(frozen=True)
class Activated:
    """Patches of one layer behind a compressed prefix, and the bounds `low` and `high` of the function behind it.

    `inputs` [groups, n, d] is what the layer reads, `wanted` [groups, n, rows] its target without the original's `bias` [groups,
    rows], `added` [groups, n, rows] the compressed shortcut that is added to its output, if there is one.
    """

    inputs: F32
    wanted: F32
    added: F32 | None
    bias: F32
    low: float
    high: float

    def outputs(self, values: F64, bias: F64 | F32) -> F32:
        """What the function reads [groups, n, rows] for `values` [groups, rows, d] and `bias` [groups, rows]."""
        found: F32 = self.inputs @ values.astype(np.float32).transpose(0, 2, 1) + bias[:, None].astype(np.float32)
        return found if self.added is None else found + self.added

    def targets(self, values: F64, bias: F64 | F32) -> F32:
        """Targets [groups, n, rows] for the layer without the original's bias, made for these rows."""
        return self.targets_at(self.outputs(values, bias))

    def targets_at(self, now: F32) -> F32:
        """The targets for rows that make the function read `now` [groups, n, rows]."""
        found = self.wanted.copy()
        if self.low > -np.inf:
            found += np.where(self._original <= self.low, np.minimum(now, self.low) - self._original, np.float32(0))
        if self.high < np.inf:
            found += np.where(self._original >= self.high, np.maximum(now, self.high) - self._original, np.float32(0))
        return found

    def errors(self, values: F64, bias: F64 | F32) -> F64:
        """Mean squared error behind the function [groups, rows]."""
        return self.errors_at(self.outputs(values, bias))

    def errors_at(self, now: F32) -> F64:
        """Mean squared error behind the function [groups, rows] where it reads `now` [groups, n, rows]."""
        found: F64 = ((self._let_through - np.clip(now, self.low, self.high)) ** 2).mean(axis=1, dtype=np.float64)
        return found

    @cached_property
    def _original(self) -> F32:
        original: F32 = self.wanted + self.bias[:, None]
        return original if self.added is None else original + self.added

    @cached_property
    def _let_through(self) -> F32:
        return np.clip(self._original, self.low, self.high)


def fitted(
    data: Activated, values: F64, bias: F64 | F32, keep: NDArray[np.bool_] | None, centred: bool, rounds: int = ROUNDS
) -> tuple[F64, F64]:
    """Real rows [groups, rows, d] and their bias that err less behind the function than `values` with `bias` do.

    Args:
        data: the patches to fit to.
        values: where to start from; in each round a ridge of 1 % leans towards what the last one found.
        bias: [groups, rows].
        keep: a mask to keep to.
        centred: whether the bias may change too.
        rounds: of targets and least squares.
    """
    mean = data.inputs.mean(axis=1, dtype=np.float64) if centred else np.zeros((len(values), values.shape[2]))
    inputs = data.inputs - mean[:, None].astype(np.float32)
    square = (inputs.transpose(0, 2, 1) @ inputs).astype(np.float64) / inputs.shape[1]
    matrix = square + ridge_of(square) * np.eye(square.shape[1])
    inverse = np.linalg.inv(matrix)
    base, bias = np.asarray(data.bias, dtype=np.float64), np.asarray(bias, dtype=np.float64)
    now = data.outputs(values, bias)
    best, least = (values, bias), data.errors_at(now)
    for _ in range(rounds):
        targets = data.targets_at(now)
        middle = targets.mean(axis=1, dtype=np.float64)
        moment = (targets.transpose(0, 2, 1) @ inputs).astype(np.float64) / inputs.shape[1]
        aim = values + (moment - values @ square) @ inverse
        values = aim if keep is None else solved(values, aim, matrix, keep)
        if centred:
            bias = base + middle - np.einsum("grd,gd->gr", values, mean)
        now = data.outputs(values, bias)
        error = data.errors_at(now)
        better = error < least
        best = np.where(better[:, :, None], values, best[0]), np.where(better, bias, best[1])
        least = np.where(better, error, least)
    return best


def statistics(fit: Activated, heldout: Activated, values: F64, bias: F64, room: Room) -> LayerStatistics:
    """Moments, kept in `room`, of the targets made for these rows, followed by the inputs: a layer whose original rows read the
    targets alone.
    """
    found = []
    for data in (fit, heldout):
        both = np.concatenate([data.targets(values, bias), data.inputs], axis=2)
        builder = MomentsBuilder(len(both), both.shape[2], room)
        builder.add(both)
        found.append(builder.build())
    return LayerStatistics(*found)


def better_rows(old: RepairedRows, new: RepairedRows, data: Activated, tied: bool) -> RepairedRows:
    """Each row as it is in `new` where it errs less behind the function on `data`, else as in `old`; all alike where scales are
    `tied`.
    """
    before, after = (data.errors(_values(rows), _bias(rows, data)) for rows in (old, new))
    better = np.broadcast_to(after.sum() < before.sum(), after.shape) if tied else after < before
    assert old.scale is not None and new.scale is not None
    codes = np.where(better[:, :, None], new.codes, old.codes)
    bias = old.bias
    if old.bias is not None and new.bias is not None:
        bias = np.where(better.reshape(-1), new.bias, old.bias)
    return replace(old, codes=codes, scale=np.where(better, new.scale, old.scale), bias=bias)


def _values(rows: RepairedRows) -> F64:
    assert rows.scale is not None
    values: F64 = rows.codes.astype(np.float64) * rows.scale[:, :, None]
    return values


def _bias(rows: RepairedRows, data: Activated) -> F32:
    return np.zeros_like(data.bias) if rows.bias is None else rows.bias.reshape(data.bias.shape)


def start_of(rows: RepairedRows, data: Activated) -> tuple[F64, F32]:
    """Values [groups, rows, d] and bias [groups, rows] of rows with integers."""
    return _values(rows), _bias(rows, data)
