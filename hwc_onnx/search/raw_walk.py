"""A plan as a walk over the layers with raw actions: algorithm, pruning ratio, weight width and activation width of each.

What a layer asks for becomes the nearest options of the units that touch it: its own, its channel group's and those of the
tensors that it reads. The first layer that a group or a tensor meets decides for it, since later ones share it (He et al.,
AMC, ECCV 2018, appendix: residual blocks are pruned alike).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.problem import Choices, Problem, Unit
from hwc_onnx.search.surrogate import DamageTable

Array = NDArray[np.float32]

ACTIONS = 3
"""Pruning ratio, weight width, activation width; each in [-1, 1], where -1 is the mildest."""
OBSERVATION = 13


class RawWalk:
    """Steps over layers; `families` are the algorithms that any layer or channel group has, "none" first."""

    def __init__(self, problem: Problem, decoder: Decoder) -> None:
        self.problem = problem
        self.decoder = decoder
        self.units = problem.units
        self.layers = [u for u, unit in enumerate(self.units) if unit.kind == "layer"]
        found = dict.fromkeys(option.algorithm for unit in self.units for option in unit.options)
        self.families = ("none", *(name for name in found if name != "none"))
        key = {self.units[u].name: u for u in self.layers}
        self._group = {layer: u for u, layers in decoder.space.producers.items() for layer in layers}
        self._tensors: dict[int, list[int]] = {u: [] for u in self.layers}
        for u, unit in enumerate(self.units):
            if unit.kind == "activation":
                for name in unit.layers:
                    if name in key:
                        self._tensors[key[name]].append(u)
        self.masks = np.array([self._mask(u) for u in self.layers]).reshape(len(self.layers), len(self.families))
        self._fixed = self._features()
        self.whole = decoder.rows.total(decoder.space.canonical(problem.start))

    def start(self) -> Walked:
        """Nothing decided: the INT8 baseline."""
        return Walked(self)

    def _mask(self, layer: int) -> list[bool]:
        names = set(self.units[layer].algorithms)
        if layer in self._group:
            names |= set(self.units[self._group[layer]].algorithms)
        return [name == "none" or name in names for name in self.families]

    def _features(self) -> Array:
        """What is known of each layer beforehand, scaled to [0, 1] over the layers, [layers, n]."""
        damage = DamageTable(self.problem).damage
        start = self.decoder.space.canonical(self.problem.start)
        rows = []
        for u in self.layers:
            group = self._group.get(u)
            row = self.decoder.rows.row(start, u)
            coarse = self.decoder.rows.row(start, group) if group is not None else np.zeros(1)
            damages = damage[u, : len(row)]
            tensors = [self.decoder.rows.row(start, tensor) for tensor in self._tensors[u]]
            reached = damage[group, : len(coarse)].max() if group is not None else 0.0
            rows.append(
                (
                    float(row.max() - row.min()),
                    float(coarse.max() - coarse.min()),
                    sum(float(one.max() - one.min()) for one in tensors),
                    float(np.log(np.median(damages) + 1e-9)),
                    float(np.log(reached + 1e-9)),
                    float(len(row)),
                )
            )
        features = np.array(rows, dtype=np.float64).reshape(len(self.layers), -1)
        low, high = features.min(axis=0, initial=np.inf), features.max(axis=0, initial=-np.inf)
        scaled: Array = ((features - low) / np.maximum(high - low, 1e-12)).astype(np.float32)
        return scaled


class Walked:
    """One episode under way: `observe`, then `act`, once for each layer; `choices` is the plan so far."""

    def __init__(self, walk: RawWalk) -> None:
        self._walk = walk
        self.choices: Choices = walk.decoder.space.canonical(walk.problem.start)
        self.step = 0
        self._decided: set[int] = set()
        self._last = np.zeros(ACTIONS + 1, dtype=np.float32)

    @property
    def finished(self) -> bool:
        """Whether every layer has acted."""
        return self.step == len(self._walk.layers)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Families that the layer can be pruned with, [families]."""
        mask: NDArray[np.bool_] = self._walk.masks[min(self.step, len(self._walk.layers) - 1)]
        return mask

    def observe(self) -> Array:
        """The layer, what was saved so far, what is still ahead, and the last action, [OBSERVATION]."""
        count = len(self._walk.layers)
        fixed = self._walk._fixed[min(self.step, count - 1)]
        saved = self._walk.whole - self._walk.decoder.rows.total(self.choices)
        ahead = float(self._walk._fixed[self.step :, 0].sum() / max(self._walk._fixed[:, 0].sum(), 1e-9))
        return np.concatenate([fixed, [self.step / count, saved, ahead], self._last]).astype(np.float32)

    def act(self, action: Array, family: int) -> None:
        """Decide for the layer: `action` [ACTIONS], `family` an index of `families`."""
        walk, layer = self._walk, self._walk.layers[self.step]
        ratio, width, stored = (float(np.clip((a + 1.0) / 2.0, 0.0, 1.0)) for a in action)
        name = walk.families[family]
        group = walk._group.get(layer)
        coarse = group is not None and name in walk.units[group].algorithms and name != "none"
        self.choices[layer] = nearest(walk.units[layer], "none" if coarse else name, ratio, width)
        if group is not None and group not in self._decided:
            self.choices[group] = nearest(walk.units[group], name if coarse else "none", ratio, 0.0)
            self._decided.add(group)
        for tensor in walk._tensors[layer]:
            if tensor not in self._decided:
                self.choices[tensor] = nearest(walk.units[tensor], "none", 0.0, stored)
                self._decided.add(tensor)
        self.choices = walk.decoder.space.canonical(self.choices)
        self._last = np.append(action, family / max(len(walk.families) - 1, 1)).astype(np.float32)
        self.step += 1


def nearest(unit: Unit, algorithm: str, ratio: float, width: float) -> int:
    """The option of `algorithm` nearest to the actions; `ratio` and `width` in [0, 1] go from the mildest to the strongest.

    Bits are counted down from the most to the fewest of the unit, ratios up to its largest; an algorithm that the unit
    lacks is read as "none".
    """
    if algorithm not in unit.algorithms:
        algorithm = "none"
    bits = sorted({option.bits for option in unit.options}, reverse=True)
    wanted_bits = bits[0] - width * (bits[0] - bits[-1])
    ratios = [option.ratio for option in unit.options if option.algorithm == algorithm]
    wanted_ratio = ratio * max(ratios, default=0.0)
    span = max(bits[0] - bits[-1], 1)
    distance = [
        (option.algorithm != algorithm, abs(option.bits - wanted_bits) / span + abs(option.ratio - wanted_ratio))
        for option in unit.options
    ]
    return distance.index(min(distance))
