"""From units to Optuna parameters and back.

Two spaces over the same units. The *menu* space has one integer per unit, its option index; options are sorted from
mild to aggressive, so neighbouring indices are similar plans. The *raw* space splits a unit into algorithm, ratio and
bits; a combination that the menu lacks becomes the nearest option of that algorithm. Bounds never change during a
study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.errors import SearchError
from hwc_onnx.search.problem import Choices, Unit

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

PREFIX = {"layer": "w", "channels": "c", "activation": "a"}


class Space:
    """Canonical choices and their parameters. `kind` is "menu" or "raw"."""

    def __init__(self, units: Sequence[Unit], kind: Literal["menu", "raw"] = "menu") -> None:
        self.units = tuple(units)
        self.kind = kind
        self.sizes = np.array([len(unit.options) for unit in self.units], dtype=np.int64)
        self.names = tuple(f"{PREFIX[unit.kind]}:{unit.name}" for unit in self.units)
        index = {unit.name: u for u, unit in enumerate(self.units) if unit.kind == "layer"}
        self.producers: dict[int, tuple[int, ...]] = {
            u: tuple(index[key] for key in unit.layers if key in index)
            for u, unit in enumerate(self.units)
            if unit.kind == "channels"
        }
        self.owner = {layer: u for u, layers in self.producers.items() for layer in layers}
        self.plain = tuple(
            _plain_options(unit) if unit.kind == "layer" and u in self.owner else np.arange(len(unit.options))
            for u, unit in enumerate(self.units)
        )
        self.pruned = {
            u: np.array([option.algorithm != "none" for option in self.units[u].options]) for u in self.producers
        }

    def canonical(self, choices: Choices) -> Choices:
        """Choices with the fine-grained pruning of coarsely pruned layers read as "none" at the same width."""
        result = choices.copy()
        for u, producers in self.producers.items():
            if self.pruned[u][result[u]]:
                for layer in producers:
                    result[layer] = self.plain[layer][result[layer]]
        return result

    def distributions(self) -> dict[str, BaseDistribution]:
        """The Optuna parameters of this space; fixed for the life of a study."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        result: dict[str, BaseDistribution] = {}
        for name, unit in zip(self.names, self.units, strict=True):
            if self.kind == "menu":
                result[name] = IntDistribution(0, len(unit.options) - 1)
                continue
            ratios, widths = _levels(unit)
            if len(unit.algorithms) > 1:
                result[f"{name}|algorithm"] = CategoricalDistribution(unit.algorithms)
            if len(ratios) > 1:
                result[f"{name}|ratio"] = IntDistribution(0, len(ratios) - 1)
            if len(widths) > 1:
                result[f"{name}|bits"] = IntDistribution(0, len(widths) - 1)
        return result

    def params_of(self, choices: Choices) -> dict[str, int | str]:
        """Parameters that mean these choices."""
        result: dict[str, int | str] = {}
        for name, unit, chosen in zip(self.names, self.units, choices, strict=True):
            if self.kind == "menu":
                result[name] = int(chosen)
                continue
            ratios, widths = _levels(unit)
            option = unit.options[chosen]
            if len(unit.algorithms) > 1:
                result[f"{name}|algorithm"] = option.algorithm
            if len(ratios) > 1:
                result[f"{name}|ratio"] = ratios.index(option.ratio)
            if len(widths) > 1:
                result[f"{name}|bits"] = widths.index(option.bits)
        return result

    def choices_of(self, params: Mapping[str, object]) -> Choices:
        """Canonical choices that these parameters mean."""
        choices = np.zeros(len(self.units), dtype=np.int64)
        for u, (name, unit) in enumerate(zip(self.names, self.units, strict=True)):
            if self.kind == "menu":
                choices[u] = _integer(params, name)
                continue
            ratios, widths = _levels(unit)
            algorithm = params.get(f"{name}|algorithm", unit.algorithms[0])
            ratio = ratios[_integer(params, f"{name}|ratio")] if len(ratios) > 1 else ratios[0]
            bits = widths[_integer(params, f"{name}|bits")] if len(widths) > 1 else widths[0]
            distance = [
                (option.algorithm != algorithm, abs(option.bits - bits), abs(option.ratio - ratio))
                for option in unit.options
            ]
            choices[u] = distance.index(min(distance))
        return self.canonical(choices)

    def random(self, rng: np.random.Generator) -> Choices:
        """Canonical choices drawn uniformly."""
        return self.canonical(rng.integers(0, self.sizes))


def _plain_options(unit: Unit) -> NDArray[np.int64]:
    unpruned = {option.bits: o for o, option in enumerate(unit.options) if option.algorithm == "none"}
    missing = sorted({option.bits for option in unit.options} - set(unpruned))
    if missing:
        raise SearchError(
            f"search space: layer '{unit.name}' has pruned options at {missing} bits but no unpruned one there; "
            "every width in a menu needs its unpruned option"
        )
    return np.array([unpruned[option.bits] for option in unit.options], dtype=np.int64)


def _levels(unit: Unit) -> tuple[list[float], list[int]]:
    return sorted({option.ratio for option in unit.options}), sorted(
        {option.bits for option in unit.options}, reverse=True
    )


def _integer(params: Mapping[str, object], name: str) -> int:
    value = params.get(name)
    if not isinstance(value, int):
        raise SearchError(
            f"trial: parameter '{name}' is {value!r}; expected an integer option index of this study's space"
        )
    return value
