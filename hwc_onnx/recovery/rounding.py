"""Round many versions of one layer at once.

All versions (widths, code ranges, masks) of a layer share the matrix of the problem, so they are stacked as further
rows and go through OBS rounding and coordinate descent together. Each version yields variants: rounded; then descended;
then moved in pairs, where codes are few; and, where rows are short, searched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.closest import SHORT, closest_codes
from hwc_onnx.recovery.coordinate import Descent
from hwc_onnx.recovery.obs import obs_round
from hwc_onnx.recovery.pairs import move_pairs
from hwc_onnx.recovery.quadratic import Quadratic
from hwc_onnx.recovery.scales import refit_scale, search_scale
from hwc_onnx.recovery.statistics import F64

STACK_BYTES = 8 << 20
ROUNDS = 2
WIDE = 128
"""Inputs from which on codes are looked for in single precision."""
NARROW = 15
"""Most codes above the lowest of the rows whose codes move in pairs: four bits."""


@dataclass(frozen=True)
class Variant:
    """Integer `codes` [groups, rows, d] with `scale` [groups, rows], or real values with scale None."""

    codes: NDArray[np.int8] | F64
    scale: F64 | None

    def values(self) -> F64:
        """The rows as real numbers."""
        codes = self.codes.astype(np.float64)
        return codes if self.scale is None else codes * self.scale[:, :, None]


@dataclass(frozen=True)
class Job:
    """One version to make: compensated rows `values`, their mask `keep` (None: dense) and the code range."""

    values: F64
    keep: NDArray[np.bool_] | None
    low: int
    high: int


def round_jobs(
    problem: Quadratic, jobs: Sequence[Job], settle: Callable[[F64], F64], power_of_two: bool = False
) -> list[list[Variant]]:
    """Two or three variants of every job; `settle` makes scales [groups, rows] storable, the first are searched among powers of two.

    Codes of wide layers are looked for in single precision: it decides which neighbour a code takes, nothing else.
    """
    problem, unit = problem.scaled(problem.target.shape[2] >= WIDE)
    kind = problem.target.dtype
    jobs = [Job((job.values / unit).astype(kind), job.keep, job.low, job.high) for job in jobs]

    def settled(scale: F64) -> F64:
        found: F64 = (settle(scale.astype(np.float64) * unit) / unit).astype(scale.dtype)
        return found

    size = max(1, problem.target.nbytes)
    at_once = max(1, STACK_BYTES // size)
    found: list[list[Variant]] = []
    for first in range(0, len(jobs), at_once):
        found += _round(problem, jobs[first : first + at_once], settled, power_of_two, unit)
    return found


def _round(
    problem: Quadratic, jobs: Sequence[Job], settle: Callable[[F64], F64], power_of_two: bool, unit: float
) -> list[list[Variant]]:
    rows, count = problem.target.shape[1], len(jobs)
    diagonal = np.einsum("gdd->gd", problem.matrix)

    def each(scale: F64) -> F64:
        return np.concatenate([settle(scale[:, i * rows : (i + 1) * rows]) for i in range(count)], axis=1)

    values = np.concatenate([job.values for job in jobs], axis=1)
    low, high = (
        np.repeat(np.array([getattr(job, side) for job in jobs], dtype=values.dtype), rows)[None, :] for side in ("low", "high")
    )
    keep = None
    if any(job.keep is not None for job in jobs):
        dense = np.ones(problem.target.shape, dtype=bool)
        keep = np.concatenate([dense if job.keep is None else job.keep for job in jobs], axis=1)
    first = search_scale(values, diagonal, low, high, power_of_two=power_of_two)
    scale = each(first.astype(values.dtype))
    codes = obs_round(values, problem.factor, keep, scale, low, high, rows)
    descent = Descent(codes, problem.target, problem.matrix, low, high, keep, problem.pull)
    scale = each(descent.refit(scale))
    stages = [(codes, scale)]
    for _ in range(ROUNDS):
        descent.sweep(scale)
        scale = each(descent.refit(scale))
    codes = descent.codes
    stages.append((codes, scale))
    narrow = np.flatnonzero((high - low)[0] <= NARROW)
    if len(narrow) and codes.shape[2] > SHORT:
        stages.append(_paired(problem, descent, scale, low, high, keep, narrow, each))
    if codes.shape[2] <= SHORT:
        target = np.concatenate([problem.target] * count, axis=1)
        for _ in range(ROUNDS):
            codes = closest_codes(target, problem.matrix, scale, low, high, keep)
            scale = each(refit_scale(codes, scale, target, problem.matrix))
        stages.append((codes, scale))
    return [
        [
            Variant(
                stage[:, i * rows : (i + 1) * rows].astype(np.int8),
                scales[:, i * rows : (i + 1) * rows].astype(np.float64) * unit,
            )
            for stage, scales in stages
        ]
        for i in range(count)
    ]


def _paired(
    problem: Quadratic,
    before: Descent,
    scale: F64,
    low: F64,
    high: F64,
    keep: NDArray[np.bool_] | None,
    chosen: NDArray[np.int64],
    each: Callable[[F64], F64],
) -> tuple[F64, F64]:
    """Codes and scales after pairs of codes of the `chosen` rows have moved, and single ones once more."""
    codes, scale = before.codes.copy(), scale.copy()
    target = np.take(problem.target, chosen % problem.target.shape[1], axis=1)
    form = (len(codes), len(chosen))
    least, most = np.broadcast_to(low[:, chosen], form), np.broadcast_to(high[:, chosen], form)
    mask = None if keep is None else keep[:, chosen]
    at = scale[:, chosen]
    gradient = before.gradient(scale, chosen)
    moved = move_pairs(codes[:, chosen], at, target, problem.matrix, least, most, mask, gradient=gradient)
    products = (np.take(problem.pull, chosen % problem.pull.shape[1], axis=1) - gradient) / at[:, :, None]
    descent = Descent(moved, problem.target, problem.matrix, least, most, mask, problem.pull, products)
    scale[:, chosen] = descent.refit(scale[:, chosen])
    scale = each(scale)
    descent.sweep(scale[:, chosen])
    codes[:, chosen] = descent.codes
    scale[:, chosen] = descent.refit(scale[:, chosen])
    return codes, each(scale)


def polish(
    problem: Quadratic,
    variant: Variant,
    keep: NDArray[np.bool_] | None,
    low: F64,
    high: F64,
    settle: Callable[[F64], F64],
) -> Variant:
    """The variant descended under another problem (one with rounding noise, say), from where it stands."""
    assert variant.scale is not None
    start = variant.codes.astype(np.float64)
    descent = Descent(start, problem.target, problem.matrix, low, high, keep, problem.pull)
    scale = settle(descent.refit(variant.scale))
    for _ in range(ROUNDS):
        if not descent.sweep(scale):
            break
    return Variant(descent.codes.astype(np.int8), settle(descent.refit(scale)))
