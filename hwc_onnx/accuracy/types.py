"""What a measurement of accuracy is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Samples:
    """A batchable set of model inputs, all of one split: arrays [N, ...] by input name, labels [N] or None.

    `numbers` are their positions in the source [N], None where they are all of it, in its order.
    """

    inputs: dict[str, NDArray[np.generic]]
    labels: NDArray[np.generic] | None
    numbers: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, index: NDArray[np.int64] | slice) -> Samples:
        """The samples at these positions."""
        labels = None if self.labels is None else self.labels[index]
        numbers = np.arange(len(self)) if self.numbers is None else self.numbers
        return Samples({name: array[index] for name, array in self.inputs.items()}, labels, numbers[index])

    def number(self, place: int) -> int:
        """The position in the source of the sample at `place`."""
        return place if self.numbers is None else int(self.numbers[place])


@dataclass(frozen=True)
class Splits:
    """Disjoint calibration, search and holdout samples; `real` is False for synthetic inputs.

    `digest` identifies the source and all three parts, `calibration_digest` the source and the calibration part. `notes` say
    where a part is smaller than asked for.
    """

    calibration: Samples
    search: Samples
    holdout: Samples
    real: bool
    description: str
    digest: str
    calibration_digest: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """One measurement: metric value and reference in the metric's own unit, the drop in points with a 95 % interval.

    `damage` is mean KL divergence of the softmax outputs for class-like outputs, relative mean squared error
    otherwise; `ce_shift` is the signed change of cross-entropy (0 without labels). Positive drop is worse.
    """

    metric: str
    value: float
    reference: float
    drop_points: float
    ci95: tuple[float, float]
    standard_error: float
    n_samples: int
    damage: float
    ce_shift: float
    threads: int
    cpu_features: str
