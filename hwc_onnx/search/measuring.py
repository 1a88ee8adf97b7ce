"""Measuring the plan of one trial by the rules of a study: nothing twice, hopeless plans briefly, drops with luck taken off."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hwc_onnx.errors import RuntimeFailure
from hwc_onnx.search.goal import Goal
from hwc_onnx.search.guard import Guard
from hwc_onnx.search.history import History, outcome_payload
from hwc_onnx.search.problem import Choices, Outcome, Problem


@dataclass(frozen=True)
class Measuring:
    """`goal` decides what is best, `guard` whether acceptance asks about the drop with luck taken off (guard.py)."""

    problem: Problem
    goal: Goal
    guard: bool = True

    def measure(
        self, history: History, choices: Choices, *, view: History | None = None, refit: bool = False, entire: bool = False
    ) -> tuple[Outcome, bool]:
        """What a plan measures after `history`, and whether that counts (a plan that was measured before does not).

        Args:
            history: the trials so far.
            choices: canonical choices.
            view: those trials under the moved limit of a search for the least drop (target.py); None otherwise.
            refit: refit the plan's layers first, where the problem can.
            entire: measure on all samples even if the plan costs more than the best one.
        """
        searched = history.searched()
        known = None if refit else searched.find(choices)
        if known is not None:
            return known.outcome, False
        hopeless = self._hopeless_from(searched, view)
        energy_limit = math.inf if refit or (entire and view is None) else hopeless
        try:
            refitted = refit and self.problem.refits
            outcome = self.problem.refit(choices) if refitted else self.problem.evaluate(choices, energy_limit)
            if not (math.isfinite(outcome.damage) and math.isfinite(outcome.drop_points)):
                raise RuntimeFailure(
                    f"the drop is {outcome.drop_points} points and the damage {outcome.damage}; give a metric and data that are finite everywhere"
                )
            return self._guarded(outcome, searched, view), True
        except RuntimeFailure as error:
            energy = self.problem.energy(choices)
            return Outcome(energy, float("inf"), 0.0, float("inf"), complete=False, failure=str(error)), True

    def attributes(self, choices: Choices, outcome: Outcome, origin: str, counted: bool, elapsed: float) -> Mapping[str, Any]:
        """What a trial keeps beside its value: all that `History` reads back."""
        return {
            "plan": json.loads(self.problem.plan_of(choices).to_json()),
            "origin": origin,
            "outcome": outcome_payload(outcome),
            "counted": counted,
            "elapsed": elapsed,
        }

    def _hopeless_from(self, searched: History, view: History | None) -> float:
        """The energy from which on a plan cannot become the best. In a search for the least drop, the drop from which on it
        cannot is told the problem too.
        """
        if view is None:
            return math.inf if searched.best is None else searched.best.outcome.energy
        reached = self.goal.best(searched.records)
        tolerated = self.goal.limit_points if reached is None else reached.outcome.excess(0.0)
        self.problem.limit_points = max(tolerated, view.limit_points)
        beaten = math.inf if view.best is None else view.best.outcome.energy
        return max(beaten, math.nextafter(self.goal.energy_target or 0.0, math.inf))

    def _guarded(self, outcome: Outcome, searched: History, view: History | None) -> Outcome:
        """With luck on the search samples taken off, as far as the trials so far can tell it."""
        if not self.guard:
            return replace(outcome, contrasts=())
        if not outcome.complete:
            return outcome
        before = [record.outcome for record in searched.measured()]
        limit = self.problem.limit_points if view is None else view.limit_points
        return replace(outcome, guarded_points=Guard([*before, outcome], limit).accepted_drop(outcome))
