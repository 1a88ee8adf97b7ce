"""Strategies to be measured against: Optuna's samplers, made anew for every trial from a derived seed.

A sampler that lives as long as the study draws from a state that a resumed process does not have (a resumed
RandomSampler repeats itself). Made anew with a seed derived from the number of finished trials, the next draw depends
on the record alone.
"""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING

import numpy as np

from hwc_onnx.errors import UsageError
from hwc_onnx.plugins import resolve

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

OPTUNA = ("tpe", "tpe-univariate", "nsga2", "random", "gp")


def is_optuna(name: str) -> bool:
    """Whether a sampler's name is one of `OPTUNA`, or `module:attribute` of a class of Optuna samplers (UsageError: no such thing)."""
    if ":" not in name:
        return name in OPTUNA
    from optuna.samplers import BaseSampler

    found = resolve("sampler", name, {})
    return isinstance(found, type) and issubclass(found, BaseSampler)


def optuna_sampler(name: str, rng: np.random.Generator) -> BaseSampler:
    """A fresh sampler seeded from `rng`; a class of one's own is called with `seed` if it takes that (UsageError: it cannot be called).

    `tpe` models units jointly, `tpe-univariate` each by itself (neither is better everywhere in high dimensions).
    `nsga2` breeds from a small population, since a few hundred trials are only a handful of large generations.
    """
    import optuna

    seed = int(rng.integers(2**31 - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True)
        if name == "tpe-univariate":
            return optuna.samplers.TPESampler(seed=seed, multivariate=False)
        if name == "nsga2":
            crossover = optuna.samplers.nsgaii.UniformCrossover()
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=20, crossover=crossover)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=seed)
        if ":" in name:
            return _made(name, seed)
        return optuna.samplers.RandomSampler(seed=seed)


def _made(name: str, seed: int) -> BaseSampler:
    """A sampler of the class `module:attribute` (UsageError where it cannot be made without arguments)."""
    own = resolve("sampler", name, {})
    known = inspect.signature(own).parameters.values()
    takes_seed = any(one.name == "seed" or one.kind is one.VAR_KEYWORD for one in known)
    try:
        sampler: BaseSampler = own(seed=seed) if takes_seed else own()
    except Exception as error:  # whatever the code of a class of the user's own does
        raise UsageError(
            f"--sampler {name}: cannot be made ({type(error).__name__}: {error}); give a class that needs no arguments but `seed`"
        ) from error
    return sampler
