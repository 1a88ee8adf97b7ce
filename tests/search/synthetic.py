"""A made-up network that behaves like a real one: coupled energy, damage that does not add up, noisy drops.

Every image has a margin and a random response to each unit's perturbation. A plan's perturbation of an image is the
sum of the units' (with random signs, so damages add only on average) plus products of neighbours (so that they do not
add up even on average). Drop, damage and cross-entropy change follow from the same images, so similar plans make the
same mistakes, as on a real search split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.plan import CompressionPlan, LayerConfig
from hwc_onnx.search.guard import contrasts
from hwc_onnx.search.problem import Choices, Factor, Option, Outcome, Unit
from hwc_onnx.search.space import Space

FINE = (("magnitude", 1.6), ("obs", 1.0))
COARSE = (("l1", 1.3), ("reconstruct", 1.0))


class SyntheticProblem:
    fine, coarse = FINE, COARSE  # algorithms and how their damage compares
    arithmetic = (0.2, 1.0)  # of a multiplication: what no width saves, what the product of widths does
    memory = (1.0, 1.2)  # energy of stored weights and tensors
    skipping = True  # whether zeros save arithmetic
    refits = False
    refit_forwards = 0
    refitted_share = 0.5  # of a plan's damage, what is left once it is refitted

    def __init__(
        self,
        layers: int = 24,
        images: int = 1000,
        seed: int = 0,
        limit_points: float = 1.0,
        interaction: float = 0.5,
        table_error: float = 0.7,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.limit_points = limit_points
        self.search_size = images
        self.setup_forwards = 2 * images
        self.digests: Mapping[str, str] = {"model": f"synthetic-{seed}-{layers}", "data": str(images)}
        self._layers = layers
        self._macs = rng.lognormal(0.0, 0.7, layers)
        self._weights = rng.lognormal(0.0, 0.9, layers)
        self._stored = rng.lognormal(0.0, 0.6, layers)
        units: list[Unit] = []
        damage: list[NDArray[np.float64]] = []
        fine = [Option(bits=bits) for bits in (8, 7, 6, 5, 4, 3, 2)]
        fine += [Option(name, ratio, bits) for name, _ in self.fine for ratio in (0.25, 0.5, 0.75) for bits in (8, 6, 4, 3)]
        coarse = [Option()] + [Option(name, ratio) for name, _ in self.coarse for ratio in (0.125, 0.25, 0.5)]
        widths = [Option(bits=bits) for bits in (8, 7, 6, 5, 4)]
        gains = rng.lognormal(-3.6, 0.9, layers)
        for layer in range(layers):
            units.append(Unit("layer", f"l{layer}", tuple(fine), (f"l{layer}",)))
            damage.append(gains[layer] * np.array([self._fine_error(option) for option in fine]))
        for layer in range(layers):
            units.append(Unit("activation", f"t{layer}", tuple(widths), (f"l{layer}",)))
            damage.append(rng.lognormal(-3.6, 0.7) * np.array([4.0 ** (4 - option.bits) * 0.5 for option in widths]))
        self._groups = [tuple(range(first, min(first + 2, layers - 1))) for first in range(0, layers - 1, 2)]
        for members in self._groups:
            units.append(Unit("channels", f"g{members[0]}", tuple(coarse), tuple(f"l{m}" for m in members)))
            factor = {name: f for name, f in self.coarse} | {"none": 0.0}
            errors = [6.0 * factor[option.algorithm] * option.ratio**1.3 for option in coarse]
            damage.append(gains[list(members)].sum() * np.array(errors))
        self.units = tuple(units)
        self.start = np.zeros(len(units), dtype=np.int64)
        self._truth = [table * rng.lognormal(0.0, table_error) for table in damage]
        self.damage = tuple(damage)
        self._margin = rng.normal(2.4, 1.6, images)
        self._response = rng.normal(0.0, 1.0, (images, len(units)))
        self._pairs = rng.normal(0.0, interaction, (images, layers))
        self._interaction, self._seed = interaction, seed
        self.space = Space(self.units)
        self.evaluations = 0
        self._full = 1.0
        self.factors = tuple(self._layer_factor(layer) for layer in range(layers))
        self._full = self.energy(self.start)

    def _fine_error(self, option: Option) -> float:
        factor = {name: f for name, f in self.fine} | {"none": 0.0}
        zeros = option.ratio * factor[option.algorithm]
        return 4.0 ** (3 - option.bits) + 2.0 * zeros**3

    def _layer_factor(self, layer: int) -> Factor:
        n = self._layers
        group = {member: 2 * n + g for g, members in enumerate(self._groups) for member in members}
        scope = [layer, n + layer]
        channel_scope = sorted({group[near] for near in (layer - 1, layer) if near in group})

        def energy(chosen: tuple[int, ...]) -> float:
            option = self.units[layer].options[chosen[0]]
            bits = self.units[n + layer].options[chosen[1]].bits
            ratios = {u: self.units[u].options[o].ratio for u, o in zip(channel_scope, chosen[2:], strict=True)}
            kept_in = 1.0 - ratios.get(group.get(layer - 1, -1), 0.0)
            kept_out = 1.0 - ratios.get(group.get(layer, -1), 0.0)
            share, density = kept_in * kept_out, 1.0 - option.ratio
            rounded = 2 if option.bits <= 2 else 4 if option.bits <= 4 else 8
            fixed, scaled = self.arithmetic
            done = density if self.skipping else 1.0
            mac = self._macs[layer] * share * done * (fixed + scaled * rounded * bits / 64.0)
            stored_weights = min(density * (1.0 + 2.0 / option.bits), 1.0) * option.bits / 8.0
            weights, tensors = self.memory
            memory = weights * self._weights[layer] * share * stored_weights
            memory += tensors * self._stored[layer] * kept_in * bits / 8.0
            return float(mac + memory) / self._full

        return Factor((*scope, *channel_scope), energy)

    def energy(self, choices: Choices) -> float:
        choices = self.space.canonical(choices)
        return sum(factor.energy(tuple(choices[list(factor.scope)].tolist())) for factor in self.factors)

    @property
    def shares(self) -> Mapping[str, float]:
        arithmetic = sum(self.arithmetic) * self._macs.sum()
        stored = self.memory[0] * self._weights.sum() + self.memory[1] * self._stored.sum()
        return {"arithmetic": arithmetic / (arithmetic + stored), "memory": stored / (arithmetic + stored)}

    def recall(self, plans: Sequence[Choices], energies: Sequence[float]) -> None:
        """All energies are exact here."""

    def plan_of(self, choices: Choices) -> CompressionPlan:
        choices = self.space.canonical(choices)
        n = self._layers
        group = {member: 2 * n + g for g, members in enumerate(self._groups) for member in members}
        configs = {}
        for layer in range(n):
            option = self.units[layer].options[choices[layer]]
            bits = self.units[n + layer].options[choices[n + layer]].bits
            coarse = self.units[group[layer]].options[choices[group[layer]]] if layer in group else Option()
            pruned = coarse if coarse.algorithm != "none" else option
            configs[f"l{layer}"] = LayerConfig(
                algorithm=pruned.algorithm, ratio=pruned.ratio, weight_bits=option.bits, activation_bits=bits
            )
        return CompressionPlan(layers=configs)

    def unseen_drop(self, choices: Choices, images: int = 20_000) -> float:
        """Drop in points on images that no trial was measured on."""
        rng = np.random.default_rng([self._seed, images])
        margin = rng.normal(2.4, 1.6, images)
        response = rng.normal(0.0, 1.0, (images, len(self.units)))
        pairs = rng.normal(0.0, self._interaction, (images, self._layers))
        return 100.0 * float(self._lost(margin, self._shift(choices, response, pairs)).mean())

    @staticmethod
    def _lost(margin: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
        return (margin > 0).astype(float) - (margin + shift > 0).astype(float)

    def perturbation(self, choices: Choices) -> NDArray[np.float64]:
        return self._shift(choices, self._response, self._pairs)

    def true_damage(self, choices: Choices) -> float:
        """The damage on infinitely many images."""
        amount, pair = self._amounts(choices)
        return float((amount**2).sum() + 36.0 * self._interaction**2 * (pair**2).sum()) / 2.0

    def _amounts(self, choices: Choices) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        choices = self.space.canonical(choices)
        amount = np.sqrt([self._truth[u][o] for u, o in enumerate(choices)])
        n = self._layers
        layer = amount[:n] + amount[n : 2 * n]
        return amount, layer * np.roll(layer, 1)

    def _shift(
        self, choices: Choices, response: NDArray[np.float64], pairs: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        amount, pair = self._amounts(choices)
        total: NDArray[np.float64] = response @ amount + 6.0 * pairs @ pair
        return total

    def refit(self, choices: Choices) -> Outcome:
        return self._measured(choices, np.inf, np.sqrt(self.refitted_share))

    def evaluate(self, choices: Choices, energy_limit: float = np.inf) -> Outcome:
        return self._measured(choices, energy_limit, 1.0)

    def _measured(self, choices: Choices, energy_limit: float, scale: float) -> Outcome:
        self.evaluations += 1
        energy = self.energy(choices)
        seen = self.search_size if energy < energy_limit else min(256, self.search_size)
        margin, shift = self._margin[:seen], scale * self.perturbation(choices)[:seen]
        lost = self._lost(margin, shift)
        entropy = np.logaddexp(0.0, -(margin + shift)) - np.logaddexp(0.0, -margin)
        return Outcome(
            energy=energy,
            drop_points=100.0 * float(lost.mean()),
            standard_error=100.0 * float(lost.std(ddof=1)) / np.sqrt(seen),
            damage=float((shift**2).mean()) / 2.0,
            ce_shift=float(entropy.mean()),
            n_samples=seen,
            complete=seen == self.search_size,
            image_forwards=seen,
            seconds=0.0,
            contrasts=contrasts(lost, 100.0) if seen == self.search_size else (),
        )

    def fingerprint(self, choices: Choices) -> str:
        return hashlib.sha256(self.space.canonical(choices).tobytes()).hexdigest()[:12]
