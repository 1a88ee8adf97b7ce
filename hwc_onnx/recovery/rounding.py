"""Round many versions of one layer at once.

All versions (widths, code ranges, masks) of a layer share the matrix of the problem, so they are stacked as further
rows and go through OBS rounding and coordinate descent together. Each version yields variants: rounded; then descended;
and, where rows are short, searched. Where codes are few, they move in pairs too, of each row those of the code range that
has the least error by then.

Rows do not touch one another, so those of a large layer go some at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.closest import SHORT, closest_codes
from hwc_onnx.recovery.coordinate import Descent
from hwc_onnx.recovery.obs import obs_round, rows_of, slices
from hwc_onnx.recovery.pairs import move_pairs
from hwc_onnx.recovery.quadratic import Quadratic
from hwc_onnx.recovery.scales import refit_scale, search_scale
from hwc_onnx.recovery.statistics import F64

STACK_BYTES = 8 << 20
"""Rows that are worked on at once; there are some ten arrays of this size for each code range."""
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
    """What to round: compensated rows `values`, their mask `keep` (None: dense) and the code ranges worth trying."""

    values: F64
    keep: NDArray[np.bool_] | None
    ranges: Sequence[tuple[int, int]]

    @property
    def narrow(self) -> bool:
        """Whether codes move in pairs."""
        return all(high - low <= NARROW for low, high in self.ranges)

    def part(self, at: slice) -> Job:
        """Some of the rows."""
        return replace(self, values=self.values[:, at], keep=None if self.keep is None else self.keep[:, at])


def round_jobs(
    problem: Quadratic,
    jobs: Sequence[Job],
    settle: Callable[[F64], F64],
    power_of_two: bool = False,
    tied: bool = False,
) -> list[list[Variant]]:
    """Variants of every job; `settle` makes scales [groups, rows] storable, the first are searched among powers of two.

    Codes of wide layers are looked for in single precision: it decides which neighbour a code takes, nothing else. Where scales
    are `tied`, a row has one scale and one code range in all groups.
    """
    problem, unit = problem.scaled(problem.target.shape[2] >= WIDE)
    groups, rows, width = problem.target.shape
    at_once = max(1, STACK_BYTES // (groups * width * problem.target.itemsize))
    parts = [
        _stacked(problem.part(at), [job.part(at) for job in jobs], settle, power_of_two, tied, unit) for at in slices(rows, at_once)
    ]
    if len(parts) == 1:
        return parts[0]
    return [[_joined(pieces) for pieces in zip(*job, strict=True)] for job in zip(*parts, strict=True)]


def _joined(pieces: Sequence[Variant]) -> Variant:
    """One variant of all rows."""
    scales = [piece.scale for piece in pieces if piece.scale is not None]
    return Variant(np.concatenate([piece.codes for piece in pieces], axis=1), np.concatenate(scales, axis=1))


def _stacked(
    problem: Quadratic, jobs: Sequence[Job], settle: Callable[[F64], F64], power_of_two: bool, tied: bool, unit: float
) -> list[list[Variant]]:
    """Variants of every job, as many jobs at once as go into `STACK_BYTES`."""
    kind = problem.target.dtype
    jobs = [replace(job, values=(job.values / unit).astype(kind)) for job in jobs]

    def settled(scale: F64) -> F64:
        found: F64 = (settle(scale.astype(np.float64) * unit) / unit).astype(scale.dtype)
        return found

    size = max(1, problem.target.nbytes)
    found: list[list[Variant]] = []
    together: list[Job] = []
    for job in jobs:
        if together and size * sum(len(one.ranges) for one in (*together, job)) > STACK_BYTES:
            found += _round(problem, together, settled, power_of_two, tied, unit)
            together = []
        together.append(job)
    return found + _round(problem, together, settled, power_of_two, tied, unit) if together else found


def _round(
    problem: Quadratic, jobs: Sequence[Job], settle: Callable[[F64], F64], power_of_two: bool, tied: bool, unit: float
) -> list[list[Variant]]:
    rows = problem.target.shape[1]
    diagonal = np.einsum("gdd->gd", problem.matrix)

    def each(scale: F64) -> F64:
        return np.concatenate([settle(scale[:, at]) for at in slices(scale.shape[1], rows)], axis=1)

    versions = [(job, bounds) for job in jobs for bounds in job.ranges]
    values = np.concatenate([job.values for job, _ in versions], axis=1)
    low, high = (
        np.repeat(np.array([bounds[side] for _, bounds in versions], dtype=values.dtype), rows)[None, :] for side in (0, 1)
    )
    keep = None
    if any(job.keep is not None for job in jobs):
        dense = np.ones(problem.target.shape, dtype=bool)
        keep = np.concatenate([dense if job.keep is None else job.keep for job, _ in versions], axis=1)
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
    if codes.shape[2] <= SHORT:
        target = np.concatenate([problem.target] * len(versions), axis=1)
        for _ in range(ROUNDS):
            codes = closest_codes(target, problem.matrix, scale, low, high, keep)
            scale = each(refit_scale(codes, scale, target, problem.matrix))
        stages.append((codes, scale))

    def variants(stage: F64, scales: F64) -> list[Variant]:
        return [
            Variant(stage[:, at].astype(np.int8), scales[:, at].astype(np.float64) * unit)
            for at in slices(stage.shape[1], rows)
        ]

    by_stage = [variants(*stage) for stage in stages]
    places = np.cumsum([0, *(len(job.ranges) for job in jobs)])
    found = [[one for stage in by_stage for one in stage[first:last]] for first, last in pairwise(places)]
    narrow = [number for number, job in enumerate(jobs) if job.narrow and codes.shape[2] > SHORT]
    if narrow:
        error = descent.error(scale).reshape(len(codes), -1, rows)
        if tied:
            error = np.broadcast_to(error.sum(axis=0), error.shape)
        best = [places[number] + error[:, slice(*places[number : number + 2])].argmin(axis=1) for number in narrow]
        chosen = np.concatenate(best, axis=1) * rows + np.tile(np.arange(rows), len(narrow))
        paired = variants(*_paired(problem, descent, scale, low, high, keep, chosen, each))
        for number, one in zip(narrow, paired, strict=True):
            found[number].append(one)
    return found


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
    """Codes and scales [groups, n, ...] after pairs of codes of the `chosen` rows [groups, n], whole versions in number, have
    moved, and single ones once more.
    """
    each_row = chosen % problem.target.shape[1]
    least, most = low[0, chosen], high[0, chosen]
    mask = None if keep is None else rows_of(keep, chosen)
    at = np.take_along_axis(scale, chosen, axis=1)
    gradient = before.gradient(at, chosen)
    target = rows_of(problem.target, each_row)
    moved = move_pairs(rows_of(before.codes, chosen), at, target, problem.matrix, least, most, mask, gradient=gradient)
    products = (rows_of(problem.pull, each_row) - gradient) / at[:, :, None]
    descent = Descent(moved, problem.target, problem.matrix, least, most, mask, problem.pull, products)
    at = each(descent.refit(at))
    descent.sweep(at)
    return descent.codes, each(descent.refit(at))


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
