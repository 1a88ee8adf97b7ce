"""A search in a process of its own, to be killed: `python -m tests.search.searching_child JOURNAL SAMPLER TRIALS`.

Prints the options of every plan after its trial was recorded.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from hwc_onnx.search.problem import Choices, Outcome
from hwc_onnx.search.study import run_search
from tests.search.synthetic import SyntheticProblem


class Slow(SyntheticProblem):
    """Takes long enough for a kill to hit a measurement as well as a write."""

    asked: Choices | None = None

    def evaluate(self, choices: Choices, energy_limit: float = np.inf) -> Outcome:
        time.sleep(0.01)
        self.asked = choices.copy()
        return super().evaluate(choices, energy_limit)


def problem() -> Slow:
    return Slow(layers=3, images=400)


if __name__ == "__main__":
    slow = problem()
    run_search(
        slow,
        storage_path=Path(sys.argv[1]),
        sampler=sys.argv[2],
        trials=int(sys.argv[3]),
        on_event=lambda event: print(slow.asked.tolist() if slow.asked is not None else None, flush=True),
    )
