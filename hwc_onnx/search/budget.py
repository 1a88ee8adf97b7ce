"""What a search may spend, and what it has spent.

One evaluation is one candidate whose network was run on any search image; repeats of a measured plan cost nothing.
Image forwards count every image through the whole network, calibration and damage table included, so that strategies
that learn from cheap tables can be compared with strategies that do not.

A search that no longer improves stops by itself: when the last `patience` evaluations together lowered the best energy
by less than `IMPROVEMENT`, and the energy that the final gate is expected to reach (`ladder.py`) as well. The rule reads the record only, so a resumed search stops where an uninterrupted one would.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from hwc_onnx.search.gate import Judging
from hwc_onnx.search.history import History
from hwc_onnx.search.ladder import Ladder

REPEATS = 50
"""Proposals in a row that were all measured before; then the strategy has converged."""
PATIENCE = 40
"""Evaluations in a row without improvement after which the composite strategy stops (assumed)."""
IMPROVEMENT = 0.005
"""Share of the best energy that counts as an improvement (assumed)."""


@dataclass(frozen=True)
class Spent:
    """Evaluations, images forwarded (setup included) and the larger of both in evaluations."""

    evaluations: int
    image_forwards: int
    equivalent: float

    @classmethod
    def of(cls, history: History, setup_forwards: int, search_size: int) -> Spent:
        """What a history cost."""
        nothing = cls(0, setup_forwards, setup_forwards / max(search_size, 1))
        return nothing.after(history.evaluations, history.image_forwards, search_size)

    def after(self, evaluations: int, images: int, search_size: int) -> Spent:
        """What was spent once so many more evaluations and images are added."""
        evaluations, forwards = self.evaluations + evaluations, self.image_forwards + images
        return Spent(evaluations, forwards, max(float(evaluations), forwards / max(search_size, 1)))


class Budget:
    """Limits of one call: evaluations in all, seconds from now on, repeats in a row, `patience` (0: endless), and
    `images` that trials may have run before the last begins (None: any number). `judging` is the gate to come (ladder.py).
    """

    def __init__(self, trials: int, timeout: float | None, patience: int = 0, images: int | None = None, judging: Judging | None = None) -> None:
        self._trials = trials
        self._images = images
        self._patience = patience
        self._judging = judging
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def stopped_by(self, history: History) -> str | None:
        """Why to stop before the next proposal: "trials", "timeout", "converged", or None to go on."""
        if history.evaluations >= self._trials:
            return "trials"
        if self._images is not None and history.image_forwards > self._images:
            return "trials"
        recent = history.records[-REPEATS:]
        if len(recent) == REPEATS and not any(record.counted for record in recent):
            return "converged"
        if self._patience and stalled(history, self._patience, self._judging):
            return "converged"
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "timeout"
        return None


def stalled(history: History, patience: int, judging: Judging | None = None) -> bool:
    """Whether the last `patience` evaluations, all after the last seed, improved neither the best energy nor what the gate is expected to
    reach by enough.

    A search without an accepted plan goes on: it has nothing to return yet.
    """
    first, counted = len(history.records), 0
    while counted < patience:
        first -= 1
        if first < 0 or history.records[first].origin == "seed":
            return False
        counted += history.records[first].counted
    limit = history.limit_points
    before = min((r.outcome.energy for r in history.records[:first] if r.outcome.accepted(limit)), default=math.inf)
    now = history.best.outcome.energy if history.best is not None else math.inf
    if math.isinf(before) or now <= (1.0 - IMPROVEMENT) * before:
        return False
    earlier = History(history.space, limit)
    for record in history.records[:first]:
        earlier.append(record)
    ladder = Ladder.of(history, judging=judging)
    return ladder.expected(ladder.belief) > (1.0 - IMPROVEMENT) * Ladder.of(earlier).expected(ladder.belief)
