"""What a strategy of our own is, and the literal table of all strategies."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from hwc_onnx.errors import HwcError, UsageError
from hwc_onnx.plugins import nearest, resolve
from hwc_onnx.search.history import History
from hwc_onnx.search.policy import SCRATCH, Policy, open_policy
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.referees import OPTUNA, is_optuna, optuna_sampler
from hwc_onnx.search.space import Space


@dataclass(frozen=True)
class Proposal:
    """Canonical choices to measure next, where they came from, and what their strategy expects and has learned, by name.

    `entire` asks for a measurement on all samples even where the plan costs more than the best one: its damage is what counts.
    """

    choices: Choices
    origin: str
    learning: Mapping[str, float] = field(default_factory=dict)
    entire: bool = False


class Strategy(Protocol):
    """Proposes from the history alone; it keeps no state that the history cannot rebuild."""

    def propose(self, history: History) -> Proposal | None:
        """The next plan, or None when there is nothing left to try."""


STRATEGIES = {
    "composite": "hwc_onnx.search.composite:make",
    "positions": "hwc_onnx.search.position_agent:make",
    "faithful": "hwc_onnx.search.faithful:make",
    "knapsack": "hwc_onnx.search.solver_strategies:make_knapsack",
    "greedy": "hwc_onnx.search.greedy:make",
    "spdy": "hwc_onnx.search.spdy:make",
    "evolution": "hwc_onnx.search.evolution:make",
    "thompson": "hwc_onnx.search.thompson:make",
    "cmaes": "hwc_onnx.search.cma:make",
}
"""Our own strategies: short name to a factory (problem, seed, trials, folder) -> Strategy."""

LEARNING = ("composite",)
"""Strategies whose factory takes a policy too."""

SOLVING = ("composite", "knapsack", "greedy", "spdy", "thompson")
"""Strategies that propose plans of the solver; the closing of a search lends it to no other."""

PROPOSED = ("rollout", "policy", "local_search", "referee")
"""Origins of plans that a strategy of the user's own may propose; the others are the search's own first and last plans."""

SAMPLERS = (*STRATEGIES, *OPTUNA)


def check_sampler(name: str) -> None:
    """Refuse a name that leads to no strategy (UsageError), before any work is done."""
    if ":" in name:
        _check_own(name)
    elif name not in SAMPLERS:
        raise UsageError(
            f"--sampler: unknown sampler '{name}'{nearest(name, list(SAMPLERS))}; choose from {', '.join(SAMPLERS)}, or name"
            " your own as module:attribute"
        )


def _check_own(name: str) -> None:
    """Refuse an object of the user's own that is neither a class of Optuna samplers nor a factory of strategies (UsageError)."""
    if is_optuna(name):
        optuna_sampler(name, np.random.default_rng(0))
        return
    try:
        inspect.signature(resolve("sampler", name, {})).bind(None, 0, 0, None)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"--sampler {name}: is neither a class of Optuna samplers nor a function (problem, seed, trials, folder) that makes a strategy"
            f" ({error}); name one of these"
        ) from error


def check_policy(name: str, given: str | Path | None) -> Policy | None:
    """The policy that the strategy of this name starts with (see `open_policy`); None for strategies that do not learn.

    Raises:
        UsageError: a policy was given to a strategy that takes none, or its file is refused.
    """
    if name in LEARNING:
        return open_policy(given)
    if given is not None and str(given) != SCRATCH:
        raise UsageError(
            f"--policy {given}: sampler {name} takes no policy; leave it out, or choose --sampler {', '.join(LEARNING)}"
        )
    return None


def make(
    name: str, problem: Problem, seed: int, trials: int, folder: Path | None, policy: Policy | None = None
) -> Strategy | None:
    """Our strategy of this name, or None when the name is a sampler of Optuna's kind. `policy` is for those of `LEARNING`.

    Raises:
        UsageError: the name is unknown, or a factory of the user's own fails or makes no strategy.
    """
    check_sampler(name)
    if is_optuna(name):
        return None
    factory: Callable[..., Strategy] = resolve("sampler", name, STRATEGIES)
    if name in LEARNING:
        return factory(problem, seed, trials, folder, policy)
    if ":" not in name:
        return factory(problem, seed, trials, folder)
    try:
        made = factory(problem, seed, trials, folder)
    except (Exception, SystemExit) as error:
        raise UsageError(f"--sampler {name}: making the strategy ends in {type(error).__name__}: {error}; mend it and try again") from error
    if not callable(getattr(made, "propose", None)):
        raise UsageError(f"--sampler {name}: made {type(made).__name__}, which has no method `propose`; return a strategy (docs/extending.md)")
    return _Own(name, made, problem)


class _Own:
    """A strategy of the user's own, whose proposals are looked at before they are measured."""

    def __init__(self, name: str, strategy: Strategy, problem: Problem) -> None:
        self._name, self._strategy, self._space = name, strategy, Space(problem.units)

    def propose(self, history: History) -> Proposal | None:
        """The strategy's own, canonical (UsageError: it fails, or proposes what is no plan)."""
        try:
            found = self._strategy.propose(history)
        except HwcError:
            raise
        except (Exception, SystemExit) as error:
            raise self._mistake(f"propose ends in {type(error).__name__}: {error}; mend it and go on from the trials so far") from error
        if found is None:
            return None
        if not isinstance(found, Proposal):
            raise self._mistake(f"propose returned {type(found).__name__}; return a hwc_onnx.search.strategy.Proposal, or None")
        sizes = self._space.sizes
        try:
            choices = np.asarray(found.choices)
            learning = {str(name): float(value) for name, value in dict(found.learning).items()}
        except (TypeError, ValueError) as error:
            raise self._mistake(
                f"proposed choices or learning that cannot be read ({error}); give {len(sizes)} integers, and numbers by name"
            ) from error
        if choices.shape != sizes.shape or not np.issubdtype(choices.dtype, np.integer):
            raise self._mistake(f"proposed {choices.dtype} choices of shape {choices.shape}; give {len(sizes)} integers, one for each unit")
        outside = np.flatnonzero((choices < 0) | (choices >= sizes))
        if len(outside):
            unit = int(outside[0])
            raise self._mistake(f"proposed option {choices[unit]} of unit {self._space.names[unit]}; give 0 to {sizes[unit] - 1}")
        if found.origin not in PROPOSED:
            raise self._mistake(f"proposed a plan of origin '{found.origin}'; give one of {', '.join(PROPOSED)}")
        return replace(found, choices=self._space.canonical(choices.astype(np.int64)), learning=learning)

    def _mistake(self, what: str) -> UsageError:
        return UsageError(f"--sampler {self._name}: {what}")
