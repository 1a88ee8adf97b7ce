"""What a search problem is: decision units with options, an exact energy, a damage table and a measured outcome.

A network becomes a list of units. A *layer* unit picks a fine-grained pruning algorithm, its ratio and the weight
width; a *channels* unit picks the coarse-grained algorithm and ratio of one channel group; an *activation* unit picks
the width of one stored tensor. A layer has fine-grained or coarse-grained pruning or none, never both: while its
channel group is pruned, the layer's fine-grained choice is read as "none" at the same width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.plan import CompressionPlan

ACCEPTED_ERRORS = 1.0
"""Standard errors below the limit that a measured drop must stay for a plan to be accepted."""
STEP_ERRORS = 1.0
"""Standard errors above the limit that a plan's likely drop may be for the final gate to look at it (assumed)."""

Choices = NDArray[np.int64]
"""One option index per unit, [units]."""

UnitKind = Literal["layer", "channels", "activation"]
KINDS: tuple[UnitKind, ...] = ("layer", "channels", "activation")


@dataclass(frozen=True)
class Option:
    """One setting of a unit; `bits` is the weight width (layer), the stored width (activation) or 0 (channels)."""

    algorithm: str = "none"
    ratio: float = 0.0
    bits: int = 0


@dataclass(frozen=True)
class Unit:
    """One decision. `name` is a layer key, a channel group's root or a stored tensor; `layers` are the layer keys that
    it touches (the layer itself, the group's producers, the tensor's readers). Options go from mild to aggressive.
    """

    kind: UnitKind
    name: str
    options: tuple[Option, ...]
    layers: tuple[str, ...]

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms among the options, in order of first appearance."""
        return tuple(dict.fromkeys(option.algorithm for option in self.options))


@dataclass(frozen=True)
class Factor:
    """A part of the energy that depends on a few units only: `energy` maps their option indices, in the order of
    `scope`, to a fraction of the INT8 baseline's energy. One factor per node of the network is natural.
    """

    scope: tuple[int, ...]
    energy: Callable[[tuple[int, ...]], float]


@dataclass(frozen=True)
class Outcome:
    """What one evaluation measured. Energy is a fraction of the INT8 baseline's; drops are points, positive is worse.

    `damage` is the smooth loss that learning uses (KL or relative error), `ce_shift` the signed change of
    cross-entropy. `complete` says that every search sample was seen: only then can the plan become the incumbent.
    `limits` are further constraints, met at or below zero; `figures` what they are about (limits.py), so that other limits can
    be asked about later. `failure` explains a candidate that could not be measured.
    `contrasts` are the drop's differences between halves of the samples, `guarded_points` the drop with luck taken off,
    which is what acceptance asks about (guard.py; None: the drop as measured).
    """

    energy: float
    drop_points: float
    standard_error: float
    damage: float
    ce_shift: float = 0.0
    n_samples: int = 0
    complete: bool = True
    limits: Mapping[str, float] = field(default_factory=dict)
    image_forwards: int = 0
    seconds: float = 0.0
    failure: str | None = None
    contrasts: tuple[float, ...] = ()
    guarded_points: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    def excess(self, limit_points: float) -> float:
        """Points by which drop plus one standard error exceeds the limit (at or below zero: respected)."""
        drop = self.drop_points if self.guarded_points is None else self.guarded_points
        return drop + ACCEPTED_ERRORS * self.standard_error - limit_points

    def accepted(self, limit_points: float) -> bool:
        """Whether the plan may become the incumbent."""
        respected = self.excess(limit_points) <= 0.0 and all(value <= 0.0 for value in self.limits.values())
        return self.failure is None and self.complete and respected


class Problem(Protocol):
    """What the strategies need to know; every method is deterministic.

    `start` is the INT8 baseline. `damage[u][o]` predicts the smooth loss that option o of unit u causes alone, in the
    unit of `Outcome.damage`. `factors` add up to the energy as long as no network-wide effect (a tensor that starts to
    fit on chip) intervenes: the solver proposes with them, every reported figure comes from `energy`.
    A problem may also have `shares`, the INT8 baseline's energy by component: the agents see it (features.py); and `judging`, what
    is known of the final gate (ladder.py).
    `refits` says that `refit` exists. `setup_forwards` counts the images that calibration and the damage table already
    ran.
    """

    @property
    def units(self) -> Sequence[Unit]:
        """The decisions, in network order."""

    @property
    def start(self) -> Choices:
        """The INT8 baseline."""

    @property
    def damage(self) -> Sequence[NDArray[np.float64]]:
        """Predicted smooth loss per unit and option."""

    @property
    def factors(self) -> Sequence[Factor]:
        """The energy as a sum of local parts."""

    limit_points: float
    """Largest allowed drop (infinite: any). A search for the least drop moves it, see target.py."""

    @property
    def search_size(self) -> int:
        """Images in the search split: one evaluation."""

    @property
    def setup_forwards(self) -> int:
        """Images forwarded before the search began."""

    @property
    def digests(self) -> Mapping[str, str]:
        """What must be the same for a study to continue: model, data, profile, options."""

    def energy(self, choices: Choices) -> float:
        """Energy as a fraction of the INT8 baseline's; exact for plans that were evaluated or recalled."""

    def recall(self, plans: Sequence[Choices], energies: Sequence[float]) -> None:
        """Know the exact energies of these canonical plans and of no others: what a record says was evaluated."""

    def plan_of(self, choices: Choices) -> CompressionPlan:
        """The compression plan that these (canonical) choices mean."""

    def evaluate(self, choices: Choices, energy_limit: float = np.inf) -> Outcome:
        """Build and measure a candidate. One whose energy is at or above `energy_limit` may stop early."""

    @property
    def refits(self) -> bool:
        """Whether plans can be refitted."""

    @property
    def refit_forwards(self) -> int:
        """Images forwarded to refit one plan, its measurement not included."""

    def refit(self, choices: Choices) -> Outcome:
        """Build a candidate with each layer refitted to what the layers before it produce, and measure it."""
