"""What is computed from the rows of one setting: middle values over seeds, verdicts, intervals over photographs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recovery_peers.settings import Setting

Row = dict[str, Any]
F64 = NDArray[np.float64]
ROUNDS = 10_000


@dataclass(frozen=True)
class Figure:
    """One variant or method over its seeds; `error` says why there is nothing else."""

    name: str
    rows: tuple[Row, ...]

    @property
    def good(self) -> list[Row]:
        """The seeds that gave a file that runs."""
        return [row for row in self.rows if "error" not in row]

    @property
    def error(self) -> str | None:
        """Why a seed failed, None if none did."""
        return next((row["error"] for row in self.rows if "error" in row), None)

    def median(self, key: str) -> float:
        """Median over seeds."""
        return statistics.median(row[key] for row in self.good)

    def mean(self, key: str) -> float:
        """Mean over seeds."""
        return statistics.mean(row[key] for row in self.good)

    @property
    def loss(self) -> float:
        """What the tools are ranked by: the median loss of accuracy, or of agreement where there are no labels."""
        return self.median("drop" if "drop" in self.good[0] else "disagreement")

    @property
    def same(self) -> F64:
        """Share of seeds [samples] in which a sample is answered as the float model answers it."""
        return np.mean([[int(value) for value in row["same"]] for row in self.good], axis=0)

    @property
    def photographs(self) -> int:
        """How many photographs the samples come from, in turn."""
        return int(self.good[0]["photographs"])


def best(figures: Sequence[Figure]) -> Figure | None:
    """The figure that loses least; None when nothing ran."""
    return min((figure for figure in figures if figure.good), key=lambda figure: figure.loss, default=None)


def misses(setting: Setting, ours: Figure, plain: Figure | None, peer: Figure | None) -> bool:
    """Whether ours misses any part of the bar; a part that lacks what it compares with is not judged."""
    found = []
    if setting.points is not None:
        found.append((ours.mean("drop") if setting.mean else ours.median("drop")) > setting.points + 1e-9)
    if setting.disagreement is not None:
        found.append(ours.median("disagreement") > setting.disagreement + 1e-9)
    if setting.of_plain is not None and plain is not None and plain.good:
        found.append(ours.median("drop") > setting.of_plain * plain.median("drop"))
    if setting.agreement is not None:
        found.append(100 - ours.median("disagreement") < setting.agreement)
    if setting.ahead is not None and peer is not None:
        found.append(peer.median("disagreement") - ours.median("disagreement") < setting.ahead)
    return any(found)


def interval(values: F64, photographs: int) -> tuple[float, float]:
    """95 % interval of the mean of `values` [samples], in percent, drawing photographs with replacement.

    Samples come in turn from each photograph: sample i is of photograph i modulo `photographs`.
    """
    means = np.array([values[first::photographs].mean() for first in range(photographs)])
    rng = np.random.default_rng(0)
    drawn = means[rng.integers(0, photographs, (ROUNDS, photographs))].mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return 100 * float(low), 100 * float(high)
