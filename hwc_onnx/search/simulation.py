"""Many episodes at once on the surrogate: what the agents practise on between measurements.

Around the solver's plan every unit's options have an energy and a damage. With the neighbours held as they are there, the
units separate, so all episodes of a batch are decoded together: for each its own multiplier, bisected until the summed
damage is that of the solver's plan, less the episode's margin. Energies of the resulting plans are the tables' own, with
all couplings. Damage comes from one member of the surrogate's ensemble: what pays whichever member is right pays in
expectation over what is not known.

Source: posterior samples as simulated worlds, Osband et al., "Deep Exploration via Randomized Value Functions" (JMLR
2019), section 4; separable Lagrangian as in `decode`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.environment import MARGIN_REACH, PENALTY, REACH, Situation
from hwc_onnx.search.features import SOLVER

Array = NDArray[np.float64]
STEPS = 7
WIDE = 16.0
"""The multiplier is looked for within this factor of the solver's."""


class Simulation:
    """Batched episodes around one situation's solver plan."""

    def __init__(self, situation: Situation) -> None:
        self.situation = situation
        model, decoder, zero = situation.model, situation.decoder, situation.zero.choices
        cost = model.table.costs(model.surrogate.mean)
        self._energy = np.full(cost.shape, np.inf)
        self._damage = np.full(cost.shape, np.inf)
        for u in range(len(zero)):
            energy, damage = decoder.unit_rows(cost, zero, u)
            self._energy[u, : len(energy)] = energy
            self._damage[u, : len(damage)] = damage
        self._rows = np.arange(len(zero))
        self._level = float(self._damage[self._rows, zero].sum())
        self._energy = np.where(np.isfinite(self._energy), self._energy, 1e9)
        self._damage = np.where(np.isfinite(self._damage), self._damage, 1e9)

    def decode(self, corrections: NDArray[np.float32], families: NDArray[np.int64]) -> NDArray[np.int64]:
        """Canonical plans [episodes, units] of corrections and families [episodes, units + 1]."""
        scaled = self._damage * np.exp(REACH * corrections[:, :-1, None].astype(np.float64))
        forced = families[:, :-1] != SOLVER
        if forced.any():
            wrong = self.situation.named != families[:, :-1, None]
            scaled = scaled + PENALTY * self._level * (wrong & forced[:, :, None])
        target = self._level * (1.0 - MARGIN_REACH * corrections[:, -1].astype(np.float64))
        guess = max(self.situation.multiplier, 1e-12)
        low = np.full(len(corrections), guess / WIDE)
        high = np.full(len(corrections), guess * WIDE)
        plans = self._cheapest(scaled, high)
        for _ in range(STEPS):
            middle = np.sqrt(low * high)
            tried = self._cheapest(scaled, middle)
            over = self._damage[self._rows, tried].sum(axis=1) > target
            low, high = np.where(over, middle, low), np.where(over, high, middle)
            plans = np.where(over[:, None], plans, tried)
        return self._canonical(plans)

    def outcome(self, plans: NDArray[np.int64], member: int) -> tuple[Array, Array]:
        """Energies by the tables and log damages as one member of the ensemble has them, [plans] each."""
        energy = np.array([self.situation.decoder.rows.total(plan) for plan in plans])
        return energy, self.situation.model.surrogate.line(plans, member)

    def credit(self, energy: Array, log_damage: Array) -> Array:
        """Advantage of all plans but the first over the first, in [-1, 1]; one is paid for with the other as in `gain`."""
        situation = self.situation
        gained = (energy[0] - energy[1:]) + situation.exchange * (log_damage[0] - log_damage[1:])
        result: Array = np.clip(situation.scale * gained, -1.0, 1.0)
        return result

    def _cheapest(self, scaled: Array, multiplier: Array) -> NDArray[np.int64]:
        result: NDArray[np.int64] = (self._energy + multiplier[:, None, None] * scaled).argmin(axis=2)
        return result

    def _canonical(self, plans: NDArray[np.int64]) -> NDArray[np.int64]:
        space = self.situation.decoder.space
        for u, producers in space.producers.items():
            pruned = space.pruned[u][plans[:, u]]
            for layer in producers:
                plans[pruned, layer] = space.plain[layer][plans[pruned, layer]]
        return plans
