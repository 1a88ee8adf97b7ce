"""The steps that the final gate climbs, from the safest plan to the most aggressive one, and where a step is missing.

A step is a plan that may keep the limit: its likely drop is no more than a standard error above it. Steps are in the order of their damage, not of their measured drops: it is what
the drop on other samples follows. How much damage the holdout bears shows only once it is opened: about the damage at which the search samples
show the drop that the gate can still let pass (the limit less the bound's half-width, which so many holdout samples give), less where these are easier
or the search has got used to them. The belief is a mixture of two log-normal distributions. A plan is expected to pass
if the holdout bears its damage, so a ladder of plans with damages d_1 < d_2 < ... and energies e_1 > e_2 > ... is expected to
save

    sum_i (e_(i-1) - e_i) P(borne >= d_i) g_1 ... g_(i-1)        e_0 = 1, the INT8 baseline

Each plan has luck of its own besides: of two of about the same damage one may fail, which ends the walk. g_i is the probability that step i passes given
that the one after it does, so a step near the next one, which gains little, is better left out. The gate looks at a few plans only: those whose ladder
saves most. A further step helps most where it adds most to the sum, luck left aside, between two plans or beyond the last one.
Whether the search accepted a plan does not matter here: that asks for a margin on its samples, the gate for one on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.gate import Judging
from hwc_onnx.search.guard import Guard, typical_error
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.problem import STEP_ERRORS, Choices, Outcome

Array = NDArray[np.float64]

MIDDLE = 1.0
"""Damage that the holdout bears over what the search samples make expect, in the median (assumed; benchmarks/ladder_belief.py measures it)."""
SPREADS = ((0.9, 0.45), (0.1, 1.5))
"""Shares and standard deviations of the logarithm of that ratio: mostly near, now and then far off (assumed)."""
FARTHEST = 4.0
"""Damage of a further step over that of the last one, at most."""
NEAR = 8.0
"""Steps whose damage is less than the last one's by no more than this factor tell what a further one would save."""
PARTS = np.arange(1, 10) / 10.0
"""Where between two plans a further one is considered."""
NODES = 40
LEAST = 1e-9
LUCK = 0.2
"""Standard deviation of that logarithm between plans of one search: each has luck of its own."""
HEARD = 0.5
"""How far the belief follows the refitted plans' drops on the search samples, as a power of what they make of it: these samples tell of others in part
(about the slope that benchmarks/ladder_belief.py prints)."""
TELLING = 0.3
"""Refitted plans of more than this share of the expected damage are heard; also the drop that both sides of the ratio get for free, in limits (assumed)."""
LEAST_DROP = 0.1
"""What the gate is taken to let pass where it asks for more than the limit leaves, as a share of the limit: zero drop has no damage."""


@dataclass(frozen=True)
class Belief:
    """What is believed of the damage that the holdout bears, where the search samples make expect `expected`, and of each plan's own `luck`."""

    expected: float
    luck: float = LUCK

    def borne(self, damage: Array) -> Array:
        """The probability that the holdout bears these damages, [n]."""
        from scipy.special import ndtr

        away = np.log(MIDDLE * max(self.expected, LEAST)) - np.log(np.maximum(damage, LEAST))
        found: Array = np.sum([share * ndtr(away / spread) for share, spread in SPREADS], axis=0)
        return found

    def together(self, damage: Array) -> Array:
        """The probability that the holdout bears plan i given that it bears plan j, [n, n]: what all plans share and what each has of its own are
        independent.
        """
        from scipy.special import ndtr

        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        shared = np.concatenate([np.sqrt(spread**2 - self.luck**2) * nodes for _, spread in SPREADS])
        weight = np.concatenate([share * weights / weights.sum() for share, _ in SPREADS])
        away = np.log(MIDDLE * max(self.expected, LEAST)) - np.log(np.maximum(damage, LEAST))
        passes = ndtr((away[:, None] + shared) / self.luck)
        found: Array = (weight * passes) @ passes.T / np.maximum(passes @ weight, LEAST)
        return found


@dataclass(frozen=True)
class Ladder:
    """The plans that no other beats in both energy and damage, safest first, and other refitted plans (`beside`). A plan that does more than `most`
    damage is not expected to become a step. `instead` is the energy of what is written where no step passes: INT8's, or more where INT8 misses another limit.
    """

    steps: tuple[Record, ...]
    beside: tuple[Record, ...]
    belief: Belief
    most: float = np.inf
    instead: float = 1.0

    @classmethod
    def of(cls, history: History, without: Choices | None = None, judging: Judging | None = None) -> Ladder:
        """From a record.

        Args:
            history: trials, the closing ones included.
            without: a canonical plan to leave out, such as a baseline that is judged in any case.
            judging: what is known of the gate (None: its margin is that of the search).
        """
        limit = history.limit_points
        records = [record for record in history.measured() if record.outcome.complete]
        searched = [record.outcome for record in history.searched().measured()]
        outcomes = [outcome for outcome in searched if outcome.complete]
        guard = Guard(searched, limit)
        typical = typical_error(outcomes, limit)
        error = min(typical, (1.0 - LEAST_DROP) * limit)
        found: list[Record] = []
        for record in sorted(records, key=lambda r: (r.outcome.energy, r.outcome.damage)):
            kept = all(value <= 0.0 for value in record.outcome.limits.values()) and guard.likely_drop(record.outcome) <= limit + STEP_ERRORS * error
            if kept and (without is None or not np.array_equal(record.choices, without)):
                if not found or record.outcome.damage < found[-1].outcome.damage:
                    found.append(record)
        chosen = {record.number for record in found}
        refitted = {record.number for record in history.closing()} - chosen
        beside = [record for record in records if record.number in refitted]
        margin = error
        if judging is not None and judging.samples:
            margin = _margin(judging, [record.outcome for record in found], typical, max((o.n_samples for o in outcomes), default=0), limit)
        damage = guard.drop_map.damage
        expected = damage(max(limit - margin, LEAST_DROP * limit))
        closing = [record.outcome for record in history.closing() if record.outcome.failure is None]
        heard = _heard(closing, guard, expected, limit)
        start = None if without is None else history.find(without)
        missed = start is not None and max(start.outcome.limits.values(), default=0.0) > 0.0
        instead = 1.0 + max(record.outcome.energy for record in found) if missed and found else 1.0
        return cls(tuple(found[::-1]), tuple(beside), Belief(expected * heard), damage(limit + STEP_ERRORS * error) * heard, instead)

    def expected(self, belief: Belief) -> float:
        """The energy that is expected to be reached by all steps, as a share of the INT8 baseline's."""
        energy = np.array([1.0, *(step.outcome.energy for step in self.steps)])
        passes = belief.borne(np.array([step.outcome.damage for step in self.steps]))
        return float(1.0 - np.maximum(energy[:-1] - energy[1:], 0.0) @ passes) if len(passes) else 1.0

    def climbed(self, count: int) -> list[Record]:
        """At most `count` plans, from the safest on, whose ladder is expected to save most."""
        if not self.steps:
            return []
        energy = np.array([self.instead, *(step.outcome.energy for step in self.steps)])
        damage = np.array([step.outcome.damage for step in self.steps])
        passes, size = self.belief.borne(damage), len(damage)
        kept = np.vstack([np.ones(size), self.belief.together(damage)])
        kept[np.arange(size + 1)[:, None] > np.arange(size)] = 0.0
        # further[i]: the most that is expected to be saved beyond step i (0: the baseline) by so many looks; following[i]: the next of these steps
        further, following = np.zeros(size + 1), list[NDArray[np.int64]]()
        for _ in range(count):
            gained = kept * ((energy[:, None] - energy[None, 1:]) * passes + further[None, 1:])
            following.append(np.where(gained.max(axis=1) > 0.0, gained.argmax(axis=1) + 1, 0))
            further = gained.max(axis=1)
        chosen, place = [], 0
        for after in reversed(following):
            place = int(after[place])
            if not place:
                break
            chosen.append(self.steps[place - 1])
        return chosen

    def missing(self) -> list[float]:
        """One damage between those of each two neighbouring plans and one beyond the last step, the one first that is expected to add most to what the
        ladder saves. Energy is taken to fall by the same amount for each factor of damage, in between and, from the steps near the last, beyond.
        """
        marked = [(step, True) for step in self.steps] + [(record, False) for record in self.beside]
        places = sorted((r.outcome.damage, r.outcome.energy, is_step) for r, is_step in marked if r.outcome.damage > 0.0)
        found = []
        for at, ((low, above, _), (high, below, _)) in enumerate(pairwise(places)):
            tried = low ** (1.0 - PARTS) * high**PARTS
            base = min((energy for _, energy, step in places[: at + 1] if step), default=1.0)
            following = min((damage for damage, _, step in places[at + 1 :] if step), default=np.inf)
            passes = self.belief.borne(tried) - self.belief.borne(np.array([following]))
            passes[tried > max(self.most, low)] = 0.0
            gains = (base - above - (below - above) * PARTS) * passes
            best = int(gains.argmax())
            found.append((float(gains[best]), float(tried[best])))
        found += self._beyond()
        return [damage for gain, damage in sorted(found, reverse=True) if gain > 0.0]

    def _beyond(self) -> list[tuple[float, float]]:
        """What a step beyond the last one adds, and its damage; nothing where there can be none."""
        if len(self.steps) < 2:
            return []
        top = self.steps[-1].outcome
        near = [step.outcome for step in self.steps if step.outcome.damage * NEAR >= top.damage > 0.0]
        farthest = min(FARTHEST * top.damage, self.most)
        if len(near) < 2 or farthest <= top.damage:
            return []
        first = near[0]
        fall = (first.energy - top.energy) / np.log(top.damage / first.damage)
        tried = top.damage * (farthest / top.damage) ** np.append(PARTS, 1.0)
        saved = np.minimum(fall * np.log(tried / top.damage), top.energy)
        gains = saved * self.belief.borne(tried)
        best = int(gains.argmax())
        return [(float(gains[best]), float(tried[best]))]


def _heard(closing: Sequence[Outcome], guard: Guard, expected: float, limit: float) -> float:
    """The factor by which the holdout bears more damage than the search made expect, as far as refitted plans tell: what their damages should cost on
    the search samples over what they do cost. Trials that are not refitted have shaped `guard`, so they are no news.
    """
    telling = [outcome for outcome in closing if TELLING * expected < outcome.damage < FARTHEST * expected]
    if not telling or limit <= 0.0:
        return 1.0
    should = guard.drop_map.drop(np.array([outcome.damage for outcome in telling]))
    cost = float(np.mean([outcome.drop_points for outcome in telling]))
    return float(((np.mean(should) + TELLING * limit) / (max(cost, 0.0) + TELLING * limit)) ** HEARD)


def _margin(judging: Judging, steps: Sequence[Outcome], error: float, samples: int, limit: float) -> float:
    """How far below the limit a drop must lie to pass, in points: the half-width of the gate's bound, nothing where the gate asks for the drop as
    measured. `error` is the usual standard error of the drop on `samples` search samples; the steps decide on the mode, as in `Gate.choose`.
    """
    spreads = [step.standard_error * float(np.sqrt(step.n_samples)) for step in steps]
    usual = error * float(np.sqrt(samples))
    mode = judging.mode(judging.half_width(max(spreads, default=0.0) or usual), limit)
    return judging.half_width(usual) if mode == "upper" else 0.0
