"""What the trials have taught: the fitted damage surrogate and drop map together, and plans decoded with them."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.decode import Decoded, Decoder
from hwc_onnx.search.guard import Guard, standard_error
from hwc_onnx.search.history import History, plans_of
from hwc_onnx.search.problem import Choices, Outcome, Problem
from hwc_onnx.search.surrogate import LENGTH, DamageTable, Surrogate

Array = NDArray[np.float64]

LEAST_SHARE = 0.01
"""Share of a damage that units may do in any case, however high the floor."""


@dataclass(frozen=True)
class Forecast:
    """Predicted log damage and drop of some plans, [plans] each; `feasible` is the probability of being accepted."""

    log_damage: Array
    doubt: Array
    drop: Array
    spread: Array
    feasible: Array


class Model:
    """Damage surrogate and drop map fitted to a history. Deterministic in (history, rng)."""

    def __init__(self, problem: Problem, table: DamageTable, history: History, rng: np.random.Generator) -> None:
        self.problem = problem
        self.table = table
        records = history.measured()
        damage = np.array([max(record.outcome.damage, 1e-7) for record in records])
        plans = plans_of(records, len(problem.units))
        self.surrogate = Surrogate.fit(table, plans, np.log(damage), rng)
        complete = [i for i, record in enumerate(records) if record.outcome.complete]
        outcomes = [records[i].outcome for i in complete]
        self.guard = Guard([record.outcome for record in records], problem.limit_points)
        self.drop_map = self.guard.drop_map
        self._luck = _Luck(
            self.surrogate, plans[complete], self._lucky(damage[complete], outcomes), self.drop_map.scatter
        )
        guess = 0.5 * float(np.sqrt(1000.0 / max(problem.search_size, 1)))
        self._error = standard_error(outcomes, problem.limit_points, guess)

    def forecast(self, plans: NDArray[np.int64]) -> Forecast:
        """Predictions for plans [plans, units]."""
        from scipy.special import ndtr

        mean, doubt = self.surrogate.predict(plans)
        curve = self.drop_map.drop(np.exp(mean))
        rise = self.drop_map.drop(np.exp(mean + doubt)) - curve
        luck, unsure = self._luck.predict(plans)
        # good luck is believed in part: on the wrong side of the limit it takes more of it to be accepted
        room = self.problem.limit_points - self._error - curve
        needed = np.where(room < 0.0, room / max(self.guard.reliability, 1e-3), room)
        spread = np.sqrt((rise * np.abs(needed) / np.maximum(np.abs(room), 1e-9)) ** 2 + unsure**2)
        drop = curve + np.where(luck < 0.0, self.guard.reliability * luck, luck)
        return Forecast(mean, doubt, drop, spread, ndtr((needed - luck) / spread))

    def expected(self, choices: Choices) -> dict[str, float]:
        """Damage and drop in points expected of one plan, as a trial's record keeps them."""
        forecast = self.forecast(choices[None, :])
        return {"damage": float(np.exp(forecast.log_damage[0])), "drop_points": float(forecast.drop[0])}

    def corrected(self, log_gain: Array) -> Model:
        """This model as if every unit's log gain were larger by `log_gain` [units] (see `Surrogate.corrected`)."""
        result = copy.copy(self)
        result.surrogate = self.surrogate.corrected(log_gain)
        return result

    def accepted_drop(self) -> float:
        """The drop at which a plan is just accepted: the limit less the expected standard error, in points."""
        return self.problem.limit_points - self._error

    def borne(self) -> float:
        """The damage at which the limit itself is expected, without the margin that acceptance on few samples asks for: what the holdout
        may bear.
        """
        return max(self.drop_map.damage(self.problem.limit_points), 1e-7)

    def target(self, drop: float) -> float:
        """The summed table damage at which this drop is expected."""
        return self._summed(self.drop_map.damage(drop))

    def _summed(self, damage: float) -> float:
        """The summed table damage at which this damage of the whole plan is expected."""
        mean = self.surrogate.mean
        summed = float(np.exp((np.log(max(damage, 1e-7)) - mean.offset) / mean.slope))
        return max(summed - mean.floor, LEAST_SHARE * summed)

    def _moved(self, target: float, step: float) -> float:
        """The summed table damage where it and the floor together are larger by the factor e^step (between 1/e and e)."""
        floor = self.surrogate.mean.floor
        return max((target + floor) * float(np.exp(np.clip(step, -1.0, 1.0))) - floor, LEAST_SHARE * target)

    def decode_damage(self, decoder: Decoder, damage: float, starts: list[Choices]) -> Decoded:
        """The cheapest plan whose predicted damage is `damage`, corrected once by what the model says about it."""
        cost = self.table.costs(self.surrogate.mean)
        target = self._summed(damage)
        solution = decoder.solve(cost, target, starts, 0.0)
        seen = float(self.forecast(solution.choices[None, :]).log_damage[0])
        step = (np.log(max(damage, 1e-7)) - seen) / self.surrogate.mean.slope
        return decoder.solve(cost, self._moved(target, step), [solution.choices], solution.multiplier)

    def decode(
        self,
        decoder: Decoder,
        drop: float,
        starts: list[Choices],
        log_correction: Array | None = None,
        penalty: Array | None = None,
        multiplier: float = 0.0,
        rounds: int = 2,
    ) -> Decoded:
        """The cheapest plan whose predicted drop is `drop` points.

        `log_correction` [units] scales damages (the policy's action), `penalty` [units, options] discourages options.
        More `rounds` correct the target by what the model says about the decoded plan.
        """
        cost = self.table.costs(self.surrogate.mean)
        if log_correction is not None:
            cost = cost * np.exp(log_correction)[:, None]
        target = self.target(drop)
        if penalty is not None:
            cost = cost + penalty * target
        solution = decoder.solve(cost, target, starts, multiplier)
        for _ in range(rounds - 1):
            seen = self.forecast(solution.choices[None, :])
            # neither the residual of damage nor a plan's luck is additive: aim again, knowing them at this plan
            luck = float(seen.drop[0] - self.drop_map.drop(np.exp(seen.log_damage))[0])
            wanted = np.log(max(self.drop_map.damage(drop - luck), 1e-7))
            step = (wanted - seen.log_damage[0]) / self.surrogate.mean.slope
            target = self._moved(target, step)
            solution = decoder.solve(cost, target, [solution.choices], solution.multiplier)
        return solution

    def _lucky(self, damage: Array, outcomes: list[Outcome]) -> Array:
        """Measured drops above the curve, in points (below zero: lucky)."""
        result: Array = np.array([outcome.drop_points for outcome in outcomes]) - self.drop_map.drop(damage)
        return result.clip(-2.0 * self.problem.limit_points, 2.0 * self.problem.limit_points)


class _Luck:
    """Where a plan's drop lies above or below the curve: similar plans lose the same images, so luck is shared.

    A Gaussian process over the distance between plans; measured drops are exact for the images of the split.
    """

    def __init__(self, surrogate: Surrogate, plans: NDArray[np.int64], luck: Array, scatter: float) -> None:
        self._surrogate = surrogate
        self._plans = plans
        self._variance = scatter**2
        kernel = self._kernel(plans, plans) + (0.25 * scatter) ** 2 * np.eye(len(plans))
        self._inverse = np.linalg.inv(kernel) if len(plans) else np.zeros((0, 0))
        self._weights = self._inverse @ luck

    def predict(self, plans: NDArray[np.int64]) -> tuple[Array, Array]:
        """Mean and standard deviation in points, [plans] each."""
        cross = self._kernel(plans, self._plans)
        explained = np.einsum("ij,jk,ik->i", cross, self._inverse, cross)
        spread = np.sqrt(np.maximum(self._variance - explained, (0.1**2) * self._variance))
        return cross @ self._weights, spread

    def _kernel(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> Array:
        if not len(left) or not len(right):
            return np.zeros((len(left), len(right)))
        covariance: Array = self._variance * np.exp(-self._surrogate.distance(left, right) / LENGTH)
        return covariance
