"""What the policy thinks of a situation: its plans, its simulated episodes, and how far it is to be believed.

The policy's corrections are an opinion about damages. As such they make a second model of the network (`Model.corrected`),
which agrees with every measurement and differs where nothing was measured. Plans are judged by both, weighted by how well
each has predicted the damage of the trials so far before they were measured: a policy that knows nothing soon weighs
nothing, one that knows better decides.

Source: weights by predictive likelihood, as in Bayesian model averaging (Hoeting et al., Statistical Science 1999, section
1), with forgetting (Raftery et al., Technometrics 2010, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.agents import Agents
from hwc_onnx.search.environment import REACH, Played, Situation
from hwc_onnx.search.model import Model
from hwc_onnx.search.problem import Choices
from hwc_onnx.search.replay import Transition
from hwc_onnx.search.simulation import Simulation

SILENT = 0.02
"""A policy whose largest correction is smaller has no opinion."""
PRIOR = -2.0
"""Log odds of the policy's opinion before any trial: it has to earn its weight (assumed)."""
FORGETTING = 0.95
SURPRISE = 1.0
"""One trial moves the evidence by at most this."""
NOISE = 0.1
"""Standard deviation of log damage that no model explains."""
MARGIN_SHARE = 0.3
"""Share of the episodes that explore the margin."""


@dataclass(frozen=True)
class Episode:
    """A simulated episode: what was decided at the explored steps and the plan that the solver made of it."""

    transitions: tuple[Transition, ...]
    played: Played


@dataclass(frozen=True)
class Practice:
    """The policy's own plan, its best simulated episodes, all simulated decisions, and the model that it believes in."""

    reference: Played
    episodes: tuple[Episode, ...]
    transitions: tuple[Transition, ...]
    opinion: Model | None


def practise(
    agents: Agents,
    situation: Situation,
    rng: np.random.Generator,
    *,
    rollouts: int,
    decoded: int,
    explored: int,
    sigma: float,
) -> Practice:
    """Simulate `rollouts` episodes with `explored` steps of noise each; the best `decoded` are decoded exactly."""
    corrections, families = agents.mean_policy(situation)
    opinion, reference = None, situation.zero
    if np.abs(corrections[:-1]).max(initial=0.0) > SILENT:
        opinion = situation.model.corrected(REACH * corrections[:-1].astype(np.float64))
    if opinion is not None or np.any(families):
        reference = situation.decode(corrections, families)
    if not rollouts:
        return Practice(reference, (), (), opinion)
    where = uncertain(situation, rng, rollouts, explored)
    where = np.concatenate([np.zeros((1, where.shape[1]), dtype=np.bool_), where])
    moved, named, seen = agents.walk(situation, where, sigma, rng)
    simulation = Simulation(situation)
    plans = simulation.decode(moved, named)
    member = int(rng.integers(1, len(situation.model.surrogate.members)))
    credit = simulation.credit(*simulation.outcome(plans, member))
    rows = [
        decisions(situation, moved[i], named[i], seen[i], where[i], float(credit[i - 1])) for i in range(1, len(plans))
    ]
    order = np.argsort(-credit, kind="stable")[:decoded]
    episodes = tuple(Episode(rows[i], situation.decode(moved[i + 1], named[i + 1])) for i in order)
    return Practice(reference, episodes, tuple(row for episode in rows for row in episode), opinion)


def uncertain(situation: Situation, rng: np.random.Generator, episodes: int, count: int) -> NDArray[np.bool_]:
    """Steps to explore [episodes, units + 1]: drawn by how unsure the ensemble is about a share of the damage."""
    surrogate = situation.model.surrogate
    share = surrogate.contributions(situation.zero.choices[None, :])[0]
    weight = surrogate.doubt() * np.sqrt(share / max(share.sum(), 1e-12)) + 1e-3
    keys = rng.random((episodes, len(weight))) ** (1.0 / weight)  # the largest keys are a draw without replacement
    chosen = np.argsort(-keys, axis=1)[:, :count]
    result = np.zeros((episodes, len(weight) + 1), dtype=np.bool_)
    np.put_along_axis(result, chosen, True, axis=1)
    result[:, -1] = rng.random(episodes) < MARGIN_SHARE
    return result


def decisions(
    situation: Situation,
    corrections: NDArray[np.float32],
    families: NDArray[np.int64],
    seen: NDArray[np.float32],
    explored: NDArray[np.bool_],
    target: float,
) -> tuple[Transition, ...]:
    """One finished row for each explored step of an episode, all credited with the same difference."""
    return tuple(
        Transition(
            seen[step],
            corrections[step : step + 1],
            int(families[step]),
            target,
            seen[step],
            situation.masks[step],
            0.0,
        )
        for step in np.flatnonzero(explored)
    )


def believed(evidence: float) -> float:
    """The weight of the policy's opinion, in (0, 1); an eighth before any trial."""
    return float(1.0 / (1.0 + np.exp(-PRIOR - evidence)))


def weighed(evidence: float, model: Model, opinion: Model | None, choices: Choices, damage: float) -> float:
    """The evidence for the policy's opinion after a plan's damage was measured, which both had predicted."""
    if opinion is None:
        return evidence
    ours, theirs = (_likelihood(each, choices, damage) for each in (opinion, model))
    return FORGETTING * evidence + float(np.clip(ours - theirs, -SURPRISE, SURPRISE))


def _likelihood(model: Model, choices: Choices, damage: float) -> float:
    mean, doubt = model.surrogate.predict(choices[None, :])
    variance = float(doubt[0]) ** 2 + NOISE**2
    error = np.log(max(damage, 1e-7)) - float(mean[0])
    return float(-0.5 * (error**2 / variance + np.log(variance)))
