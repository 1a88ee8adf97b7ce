"""Local search: plans one, two or three units away from a measured one, ordered by what they are expected to gain.

A tightening saves energy, a loosening pays damage back; their pairs keep the plan near the limit. Each candidate is
scored by expected improvement: (energy saved against the best) times the probability of being accepted, or by what it is expected to gain in
energy and damage together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.model import Model
from hwc_onnx.search.problem import Choices

Array = NDArray[np.float64]

BELOW, ABOVE = 0.7, 0.2
"""Logarithms of damage below and above the limit's within which one price holds and a plan may come to pass (assumed)."""


def neighbours_of(
    decoder: Decoder, model: Model, anchor: Choices, rng: np.random.Generator, count: int = 160
) -> list[Choices]:
    """Canonical plans near `anchor`, most promising single and paired moves first by the damage and energy tables."""
    cost = model.table.costs(model.surrogate.mean)
    moves: list[tuple[int, int, float, float]] = []
    for u in range(len(anchor)):
        row, damages = decoder.unit_rows(cost, anchor, u)
        for o in range(len(row)):
            saved, added = float(row[anchor[u]] - row[o]), float(damages[o] - damages[anchor[u]])
            if o != anchor[u] and np.isfinite(added) and (saved > 1e-9 or added < -1e-12):
                moves.append((u, o, saved, added))
    tighten = sorted((m for m in moves if m[2] > 1e-9), key=lambda m: max(m[3], 1e-9) / m[2])[:60]
    loosen = sorted((m for m in moves if m[3] < 0.0 and m[2] <= 1e-9), key=lambda m: max(-m[2], 1e-9) / -m[3])[:30]
    plans: list[Choices] = [_apply(decoder, anchor, [move]) for move in tighten]
    pairs = [(a, b) for a in tighten[:40] for b in [*tighten[:20], *loosen] if a[0] != b[0] and a[2] + b[2] > 1e-6]
    order = rng.permutation(len(pairs))[: max(count - len(plans), 0)]
    plans += [_apply(decoder, anchor, list(pairs[i])) for i in order]
    for i in order[: count // 4]:
        third = tighten[int(rng.integers(len(tighten)))]
        if third[0] not in (pairs[i][0][0], pairs[i][1][0]):
            plans.append(_apply(decoder, anchor, [*pairs[i], third]))
    return plans


@dataclass(frozen=True)
class Price:
    """What damage is worth near the limit: `exchange` is the energy for a unit of log damage, `log_damage` where the limit lies."""

    exchange: float
    log_damage: float

    def total(self, energy: float, damage: float) -> float:
        """Energy and damage of a plan as one figure, in energy at the limit; infinite where the plan is far from it."""
        away = float(np.log(max(damage, 1e-7))) - self.log_damage
        return energy + self.exchange * away if -BELOW <= away <= ABOVE else np.inf

    def leader(self, history: History) -> Record | None:
        """The best of the plans that were measured on all samples; None where none is near the limit."""
        near = [record for record in history.measured() if record.outcome.complete]
        found = min(near, key=lambda record: self.total(record.outcome.energy, record.outcome.damage), default=None)
        return None if found is None or np.isinf(self.total(found.outcome.energy, found.outcome.damage)) else found


def unseen(plans: list[Choices], history: History) -> list[Choices]:
    """Distinct plans that were not measured yet, in order."""
    fresh: dict[bytes, Choices] = {}
    for plan in plans:
        if history.find(plan) is None:
            fresh.setdefault(plan.tobytes(), plan)
    return list(fresh.values())


def expected_improvement(model: Model, decoder: Decoder, plans: list[Choices], base: Choices, best: float) -> Array:
    """Expected energy saved against `best`, [plans]. Energies by tables, tied to the exact one at `base`."""
    stacked = np.array(plans)
    offset = model.problem.energy(base) - decoder.rows.total(base)
    energy = np.array([decoder.rows.total(plan) for plan in plans]) + offset
    gain: Array = np.maximum(best - energy, 0.0) * model.forecast(stacked).feasible
    return gain


def expected_gain(model: Model, decoder: Decoder, plans: list[Choices], base: Choices, price: Price, best: float) -> Array:
    """Expected improvement of energy and damage together against `best`, [plans]; below zero far from the limit.

    Whether a plan is accepted hangs on a few samples, its damage does not: plans that are better by both are better on other samples too.
    Source: expected improvement under a normal forecast, Jones et al. (Journal of Global Optimization 13, 1998), section 4.1.
    """
    from scipy.special import ndtr

    offset = model.problem.energy(base) - decoder.rows.total(base)
    energy = np.array([decoder.rows.total(plan) for plan in plans]) + offset
    seen = model.forecast(np.array(plans))
    spread = price.exchange * seen.doubt + 1e-9
    away = seen.log_damage - price.log_damage
    better = best - (energy + price.exchange * away)
    gain: Array = better * ndtr(better / spread) + spread * np.exp(-0.5 * (better / spread) ** 2) / np.sqrt(2.0 * np.pi)
    return np.where((away >= -BELOW) & (away <= ABOVE), gain, -1.0)


def _apply(decoder: Decoder, anchor: Choices, moves: list[tuple[int, int, float, float]]) -> Choices:
    plan = anchor.copy()
    for u, o, _, _ in moves:
        plan[u] = o
    return decoder.space.canonical(plan)
