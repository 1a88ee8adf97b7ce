"""The quadratic problem that every repair of one layer solves.

With inputs x, rounding noise n of variance v on them (activation quantization) and a bias that absorbs the mean, the
expected squared output error of a row q against the original row w is, up to a constant,

    (t - q) A (t - q)^T    with  A = C_SS + v I  and  t = p + (w C_:S - p A) A^-1 = w C_:S A^-1,

where C is the covariance of x and S are the input columns that are kept. A ridge of 1 % of the mean diagonal is added
to the inverse of A in t, which then leans towards the prior p: the old weights of the kept columns, unless given.
Nothing removed and no noise gives t = w.

Source: Frantar & Alistarh, Optimal Brain Compression (NeurIPS 2022) for the layer-wise quadratic; He, Zhang & Sun
(ICCV 2017) for the least-squares refit after channel pruning. The noise term is the variance of a uniform rounding
error, carried through the same algebra.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.judging import Judge
from hwc_onnx.recovery.statistics import F64, Moments

RIDGE = 0.01

ATTEMPTS = 20
"""How often the ridge is made ten times larger until the problem can be solved."""


@dataclass(frozen=True)
class Quadratic:
    """Targets [groups, rows, d], matrix A [groups, d, d] and the upper factor U of A^-1 = U^T U [groups, d, d]."""

    target: F64
    matrix: F64
    factor: F64

    @cached_property
    def pull(self) -> F64:
        """t A [groups, rows, d]."""
        return self.target @ self.matrix

    def part(self, at: slice) -> Quadratic:
        """The problem of some rows."""
        return Quadratic(self.target[:, at], self.matrix, self.factor)

    def scaled(self, single: bool) -> tuple[Quadratic, float]:
        """The problem divided by powers of two to numbers near one, and what its target must be multiplied with.

        In single precision on request; typed as in double, since what works on it does so in either.
        """
        largest = float(np.abs(self.target).max(initial=0.0))
        size = float(np.einsum("gdd->", self.matrix)) / (len(self.matrix) * self.matrix.shape[1])
        unit = 2.0 ** np.ceil(np.log2(largest)) if largest > 0.0 else 1.0
        root = 2.0 ** np.round(np.log2(size) / 2) if size > 0.0 else 1.0
        parts = (self.target / unit, self.matrix / root**2, self.factor * root)
        if single:
            parts = tuple(cast(F64, part.astype(np.float32)) for part in parts)  # type: ignore[assignment]
        return Quadratic(*parts), float(unit)

    def error(self, values: F64) -> F64:
        """(t - q) A (t - q)^T for every row of `values` [groups, rows, d]: [groups, rows]."""
        difference = self.target - values
        error: F64 = np.einsum("grd,grd->gr", difference @ self.matrix, difference)
        return error


def upper_factor_of_inverse(matrix: F64) -> F64:
    """U upper triangular with matrix^-1 = U^T U, for each [d, d] of a stack.

    With the order of rows and columns reversed, matrix = R R^T with R upper triangular, and U = R^-1.
    """
    from scipy.linalg import solve_triangular

    width = matrix.shape[-1]
    lower = np.linalg.cholesky(matrix[:, ::-1, ::-1])
    upper = lower[:, ::-1, ::-1]
    eye = np.eye(width)
    return np.stack([solve_triangular(one, eye, lower=False, check_finite=False) for one in upper])


def ridge_of(matrix: F64, share: float = RIDGE) -> F64:
    """`share` of each matrix's mean diagonal [groups, 1, 1]; never zero, so that a dead input stays solvable."""
    mean = np.trace(matrix, axis1=1, axis2=2) / matrix.shape[-1]
    floor = max(float(mean.max(initial=0.0)) * 1e-6, 1e-12)
    ridge: F64 = np.maximum(share * mean, floor)[:, None, None]
    return ridge


def least_squares_target(
    weight: F64,
    moment: F64,
    keep: NDArray[np.int64] | None = None,
    noise: float = 0.0,
    prior: F64 | None = None,
    share: float = RIDGE,
) -> tuple[F64, F64]:
    """Best rows on the kept columns, and the matrix of the problem that is left.

    Args:
        weight: original rows [groups, rows, d].
        moment: second moment of the inputs [groups, d, d].
        keep: kept columns, None for all.
        noise: variance added to each input by rounding.
        prior: rows [groups, rows, kept] that the ridge leans towards, None for the original ones.
        share: ridge as a share of the mean diagonal.

    Returns:
        Targets [groups, rows, kept] and A [groups, kept, kept].
    """
    kept = np.arange(weight.shape[2]) if keep is None else keep
    square = moment[:, kept[:, None], kept[None, :]]
    eye = np.eye(len(kept))
    matrix = square + (noise + ridge_of(square, share)) * eye
    start = weight[:, :, kept] if prior is None else prior
    if keep is None and noise == 0.0 and prior is None:
        return start.copy(), matrix
    push = weight @ moment[:, :, kept] - start @ square - noise * start
    return start + np.linalg.solve(matrix, push.transpose(0, 2, 1)).transpose(0, 2, 1), matrix


def quadratic_of(
    weight: F64,
    moments: Moments,
    centred: bool,
    keep: NDArray[np.int64] | None = None,
    noise: float = 0.0,
    prior: F64 | None = None,
) -> Quadratic:
    """The problem of one layer; `weight` [groups, rows, d] holds the original rows (see the module's algebra)."""
    target, matrix = least_squares_target(weight, moments.second_moment(centred), keep, noise, prior)
    extra = ridge_of(matrix) * np.eye(matrix.shape[-1])
    for _ in range(ATTEMPTS):
        try:
            return Quadratic(target, matrix, upper_factor_of_inverse(matrix))
        except np.linalg.LinAlgError:
            # the moments of inputs that hardly vary about a large mean are rounded to below zero
            matrix, extra = matrix + extra, 10.0 * extra
    return Quadratic(target, matrix, upper_factor_of_inverse(matrix))


def output_error(
    weight: F64,
    values: F64,
    moments: Moments,
    centred: bool,
    keep: NDArray[np.int64] | None = None,
    noise: float = 0.0,
    exact: bool = False,
) -> F64:
    """Mean squared output error of rows `values` [groups, rows, kept] against `weight` [groups, rows, d].

    `noise` is the variance of the rounding error on each kept input. No ridge: this is the figure to judge by, on
    moments that were not used for fitting. About six digits are right (judging.py), all where the figure must be `exact`:
    where a row's difference is one of outputs that nearly cancel. Returns [groups, rows].
    """
    if keep is None:
        full = values
    else:
        full = np.zeros_like(weight)
        full[:, :, keep] = values
    judge = Judge(moments.second_moment(centred)) if exact else moments.judge(centred)
    error = judge.error(weight - full)
    return error if noise == 0.0 else error + noise * (values**2).sum(axis=2)


def output_power(weight: F64, moments: Moments) -> F64:
    """Variance of each original output row [groups, rows]: the denominator of a relative error."""
    power: F64 = np.maximum(np.einsum("grd,grd->gr", weight @ moments.second_moment(True), weight), 0.0)
    return power
