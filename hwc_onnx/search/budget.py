"""What a search may spend, and what it has spent.

One evaluation is one candidate whose network was run on any search image; repeats of a measured plan cost nothing.
Image forwards count every image through the whole network, calibration and damage table included, so that strategies
that learn from cheap tables can be compared with strategies that do not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from hwc_onnx.search.history import History

REPEATS = 50
"""Proposals in a row that were all measured before; then the strategy has converged."""


@dataclass(frozen=True)
class Spent:
    """Evaluations, images forwarded (setup included) and the larger of both in evaluations."""

    evaluations: int
    image_forwards: int
    equivalent: float

    @classmethod
    def of(cls, history: History, setup_forwards: int, search_size: int) -> Spent:
        """What a history cost."""
        forwards = setup_forwards + history.image_forwards
        evaluations = history.evaluations
        return cls(evaluations, forwards, max(float(evaluations), forwards / max(search_size, 1)))


class Budget:
    """Limits of one call: evaluations in all, seconds from now on, repeats in a row."""

    def __init__(self, trials: int, timeout: float | None) -> None:
        self._trials = trials
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def stopped_by(self, history: History) -> str | None:
        """Why to stop before the next proposal: "trials", "timeout", "converged", or None to go on."""
        if history.evaluations >= self._trials:
            return "trials"
        recent = history.records[-REPEATS:]
        if len(recent) == REPEATS and not any(record.counted for record in recent):
            return "converged"
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "timeout"
        return None
