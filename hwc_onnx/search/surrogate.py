"""A surrogate of the network's damage: additive per-unit damages with learned gains, refitted after every trial.

    D(x)      = sum_u exp(gain_u + family_{algorithm of x_u}) * damage[u, x_u] + floor
    log KL(x) = offset + slope * log D(x) + residual(x)

The floor is learned as well: even the INT8 baseline does some damage that no table knows, and without a term for it the gains of
all units are bent to explain it. Gains have a normal prior around zero (the table is right until told otherwise) and are found by Levenberg-Marquardt;
the residual is a Gaussian process over how two plans spread their damage. A bootstrap ensemble (random observation
weights and random prior means) says how much the data leave open.
Source: additive damage with learned coefficients, SPDY (Frantar & Alistarh, ICML 2022), section 3.2; randomised priors,
Osband et al. (NeurIPS 2018), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.problem import Problem

Array = NDArray[np.float64]

FLOOR = 1e-5
"""The floor before any trial (assumed)."""
FLOOR_SPREAD = 2.0
SMALLEST = 1e-6
"""What a unit's share of the damage is at least, where shares are compared."""
GAIN_SPREAD = 0.8
FAMILY_SPREAD = 0.4
OFFSET_SPREAD = 1.5
SLOPE_SPREAD = 0.25
NOISE = 0.1
LENGTH = 0.5
FEWEST = 8
"""Trials that tell what the line leaves."""
MOST_LEVERAGE = 0.9
LATEST = 16
"""Trials whose level a corrected surrogate keeps."""


@dataclass(frozen=True)
class Parameters:
    """Log gains [units], log family factors [families], offset and slope of the log-log line, logarithm of the floor."""

    gain: Array
    family: Array
    offset: float = 0.0
    slope: float = 1.0
    log_floor: float = float(np.log(FLOOR))

    def vector(self) -> Array:
        """All parameters in one vector, [units + families + 3]."""
        return np.concatenate([self.gain, self.family, [self.offset, self.slope, self.log_floor]])

    @classmethod
    def of(cls, vector: Array, units: int) -> Parameters:
        """The inverse of `vector`."""
        return cls(vector[:units], vector[units:-3], *(float(value) for value in vector[-3:]))

    @property
    def floor(self) -> float:
        """Damage that no unit explains."""
        return float(np.exp(self.log_floor))


class DamageTable:
    """The problem's damages and algorithm families as padded matrices [units, options], for fast look-up."""

    def __init__(self, problem: Problem) -> None:
        widest = max(len(unit.options) for unit in problem.units)
        self.families = tuple(dict.fromkeys(option.algorithm for unit in problem.units for option in unit.options))
        self.damage = np.full((len(problem.units), widest), np.inf)
        self.family = np.zeros((len(problem.units), widest), dtype=np.int64)
        for u, unit in enumerate(problem.units):
            self.damage[u, : len(unit.options)] = np.maximum(problem.damage[u], 0.0)
            self.family[u, : len(unit.options)] = [self.families.index(option.algorithm) for option in unit.options]
        self.rows = np.arange(len(problem.units))

    def costs(self, parameters: Parameters) -> Array:
        """Corrected damage of every option, [units, options] (infinite where there is no option)."""
        corrected: Array = self.damage * np.exp(parameters.gain[:, None] + parameters.family[self.family])
        return corrected


class Surrogate:
    """Predicts log damage of plans, with an ensemble for what is not known. Build it with `fit`."""

    def __init__(
        self, table: DamageTable, members: list[Parameters], plans: NDArray[np.int64], residual: Array, amplitude: float
    ) -> None:
        self.table = table
        self.members = members
        self._plans = plans
        self._residual = residual
        self._amplitude = amplitude
        kernel = self._kernel(plans, plans) + (0.3 * NOISE) ** 2 * np.eye(len(plans))
        self._inverse = np.linalg.inv(kernel) if self._amplitude > 0.0 else np.zeros((len(plans), len(plans)))
        self._weights = self._inverse @ residual if self._amplitude > 0.0 else np.zeros(len(plans))

    @property
    def mean(self) -> Parameters:
        """The main fit."""
        return self.members[0]

    @classmethod
    def fit(
        cls, table: DamageTable, plans: NDArray[np.int64], log_damage: Array, rng: np.random.Generator, members: int = 6
    ) -> Surrogate:
        """Fit to measured plans [trials, units] and their log damage [trials]; none measured gives the prior."""
        units, families = len(table.rows), len(table.families)
        prior = Parameters(np.zeros(units), np.zeros(families), log_floor=float(np.log(FLOOR))).vector()
        spread = np.concatenate(
            [np.full(units, GAIN_SPREAD), np.full(families, FAMILY_SPREAD), [OFFSET_SPREAD, SLOPE_SPREAD, FLOOR_SPREAD]]
        )
        main = _least_squares(table, plans, log_damage, np.ones(len(plans)), prior, spread, prior, steps=12)
        fitted = [Parameters.of(main, units)]
        for _ in range(members - 1):
            centre = prior + spread * rng.normal(size=len(prior)) * 0.7
            weights = rng.exponential(size=len(plans))
            vector = _least_squares(table, plans, log_damage, weights, centre, spread, main, steps=4)
            fitted.append(Parameters.of(vector, units))
        residual = log_damage - _line(table, plans, fitted[0])
        amplitude = 0.0
        if len(plans) >= FEWEST:
            # as large as if each trial had been left out: with as many parameters as trials, what remains says nothing
            amplitude = float(np.mean((residual / (1.0 - _leverage(table, plans, fitted[0], spread))) ** 2))
        return cls(table, fitted, plans, residual, amplitude)

    @property
    def unexplained(self) -> float:
        """Variance of log damage that the additive line leaves, of trials that it was not fitted to."""
        return self._amplitude

    def corrected(self, log_gain: Array) -> Surrogate:
        """This surrogate as if every unit's log gain were larger by `log_gain` [units]. It still agrees with what was
        measured: the offset makes up for the mean change at the latest plans, the residual for the rest.
        """
        members = [replace(member, gain=member.gain + log_gain) for member in self.members]
        measured = _line(self.table, self._plans, self.mean) + self._residual
        error = measured - _line(self.table, self._plans, members[0])
        offset = float(error[-LATEST:].mean()) if len(error) else 0.0
        members = [replace(member, offset=member.offset + offset) for member in members]
        return Surrogate(self.table, members, self._plans, error - offset, self._amplitude)

    def line(self, plans: NDArray[np.int64], member: int = 0) -> Array:
        """Log damage of plans as one member of the ensemble has it, without the residual, [plans]."""
        return _line(self.table, plans, self.members[member])

    def predict(self, plans: NDArray[np.int64]) -> tuple[Array, Array]:
        """Mean and standard deviation of log damage, [plans] each."""
        lines = np.array([_line(self.table, plans, member) for member in self.members])
        mean, deviation = lines[0], lines.std(axis=0)
        if self._amplitude == 0.0:
            return mean, np.sqrt(deviation**2 + 0.3**2)
        cross = self._kernel(plans, self._plans)
        explained = np.einsum("ij,jk,ik->i", cross, self._inverse, cross)
        unexplained = np.maximum(self._amplitude - explained, 0.0)
        known = 1.0 - explained / self._amplitude
        return mean + cross @ self._weights, np.sqrt(unexplained + (known.clip(0.0, 1.0) * deviation) ** 2 + 0.02**2)

    def contributions(self, plans: NDArray[np.int64]) -> Array:
        """Corrected damage of each unit's chosen option, [plans, units]."""
        return _contributions(self.table, plans, self.mean)

    def distance(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> Array:
        """How differently two plans disturb the network, [left, right], from 0 to sqrt 2.

        Each unit disturbs the outputs by a vector of squared length proportional to its damage. Two plans share the
        part of it where they chose the same option, and half of it (assumed) where they chose another one.
        """
        gram = 0.5 * self._roots(left, True) @ self._roots(right, True).T
        gram += 0.5 * self._roots(left, False) @ self._roots(right, False).T
        distance: Array = np.sqrt(np.maximum(2.0 - 2.0 * gram, 0.0))
        return distance

    def _roots(self, plans: NDArray[np.int64], by_option: bool) -> Array:
        """Square roots of damage shares: by unit [plans, units] or by unit and option [plans, units * options]."""
        parts = _contributions(self.table, plans, self.mean) + SMALLEST
        roots: Array = np.sqrt(parts / parts.sum(axis=1, keepdims=True))
        if not by_option:
            return roots
        units, options = self.table.damage.shape
        spread = np.zeros((len(plans), units * options))
        np.put_along_axis(spread, self.table.rows * options + plans, roots, axis=1)
        return spread

    def doubt(self) -> Array:
        """How much the ensemble disagrees about each unit's log gain, [units]."""
        spread: Array = np.array([member.gain for member in self.members]).std(axis=0)
        return spread

    def _kernel(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> Array:
        """Covariance of the residual, falling with the distance between plans, [left, right]."""
        if not len(left) or not len(right):
            return np.zeros((len(left), len(right)))
        covariance: Array = self._amplitude * np.exp(-self.distance(left, right) / LENGTH)
        return covariance


def _contributions(table: DamageTable, plans: NDArray[np.int64], parameters: Parameters) -> Array:
    family = table.family[table.rows, plans]
    result: Array = table.damage[table.rows, plans] * np.exp(parameters.gain + parameters.family[family])
    return result


def _line(table: DamageTable, plans: NDArray[np.int64], parameters: Parameters) -> Array:
    total = _contributions(table, plans, parameters).sum(axis=1) + parameters.floor
    line: Array = parameters.offset + parameters.slope * np.log(total)
    return line


def _least_squares(
    table: DamageTable,
    plans: NDArray[np.int64],
    target: Array,
    weights: Array,
    centre: Array,
    spread: Array,
    first: Array,
    steps: int,
) -> Array:
    """Levenberg-Marquardt on the log-log line with a normal prior (`centre`, `spread`); returns the parameters."""
    if not len(plans):
        return centre
    units = len(table.rows)
    precision = 1.0 / spread**2
    scale = weights / NOISE**2

    def loss(vector: Array) -> float:
        error = target - _line(table, plans, Parameters.of(vector, units))
        return float(scale @ error**2 + precision @ (vector - centre) ** 2)

    vector, damping = first.copy(), 1e-2
    best = loss(vector)
    for _ in range(steps):
        now = Parameters.of(vector, units)
        jacobian = _jacobian(table, plans, now)
        error = target - _line(table, plans, now)
        gradient = jacobian.T @ (scale * error) - precision * (vector - centre)
        curvature = (jacobian.T * scale) @ jacobian + np.diag(precision)
        step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), gradient)
        step = step.clip(-1.0, 1.0)
        trial = loss(vector + step)
        if trial < best:
            vector, best, damping = vector + step, trial, damping / 4.0
        else:
            damping *= 8.0
    vector[-2] = max(vector[-2], 0.2)
    return vector


def _jacobian(table: DamageTable, plans: NDArray[np.int64], parameters: Parameters) -> Array:
    """Derivatives of the line by all parameters, [plans, parameters]."""
    parts = _contributions(table, plans, parameters)
    total = parts.sum(axis=1) + parameters.floor
    share = parts / total[:, None]
    membership = np.eye(len(table.families))[table.family[table.rows, plans]]
    by_family = np.einsum("nu,nuf->nf", share, membership)
    others = (np.ones(len(plans)), np.log(total), parameters.slope * parameters.floor / total)
    return np.column_stack([parameters.slope * share, parameters.slope * by_family, *others])


def _leverage(table: DamageTable, plans: NDArray[np.int64], parameters: Parameters, spread: Array) -> Array:
    """By how much the fit at each plan follows what was measured there, [plans], from 0 to `MOST_LEVERAGE`."""
    jacobian = _jacobian(table, plans, parameters)
    inverse = np.linalg.inv(jacobian.T @ jacobian / NOISE**2 + np.diag(1.0 / spread**2))
    found: Array = np.minimum(np.einsum("np,pq,nq->n", jacobian, inverse, jacobian) / NOISE**2, MOST_LEVERAGE)
    return found
