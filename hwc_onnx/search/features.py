"""What the agents see, in the same words for every network, limit and accelerator, so that one policy serves them all.

A step's observation has a part about its unit (kind, place, what the surrogate says and doubts about it, what milder and
stronger options would change, how much is disturbed around it), a part about the task (the limit, how much was measured,
how the accelerator rewards each kind of compression) and, added by the walk, what was decided so far. Algorithms have
fixed places (`VOCABULARY`), absent ones are masked.

Source: state of layer description, budget and what was done before, AMC (He et al., ECCV 2018, section 3.1, table 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.pruning.table import COARSE, FINE, NONE
from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.problem import KINDS, Choices, Problem, Unit

if TYPE_CHECKING:
    from hwc_onnx.search.model import Model

Array = NDArray[np.float32]

SOLVER = 0
"""The family that leaves the choice to the solver."""
OWN = "own"
"""The family of algorithms that are plugged in from elsewhere."""
UNNAMED = frozenset({"block4"})
"""Algorithms that share the place of one's own: they came after the policies that there are."""
VOCABULARY = ("solver", NONE, *(name for name in (*FINE, *COARSE) if name not in UNNAMED), OWN)
"""Every family; its place is its number in the networks."""
COMPONENTS = ("arithmetic", "memory", "off_chip", "other")
"""Shares of the INT8 baseline's energy that a problem may name (`Problem.shares`)."""
UNIT_FEATURES = len(KINDS) + 12
TASK_FEATURES = 6
TRAITS = 4 + len(COMPONENTS)
STATIC = UNIT_FEATURES + TASK_FEATURES + TRAITS
DYNAMIC = 4
OBSERVATION = STATIC + DYNAMIC
FAMILIES = len(VOCABULARY)
BOUND = 5.0
"""Observations are clipped to this."""


def family_of(algorithm: str) -> int:
    """The place of an algorithm in `VOCABULARY`."""
    return VOCABULARY.index(algorithm if algorithm in VOCABULARY[1:] else OWN)


def traits(problem: Problem, decoder: Decoder) -> Array:
    """How the accelerator rewards compression, [TRAITS]: energy saved by the narrowest weights, the narrowest tensors, the
    most zeros and the fewest channels alone, then the shares of `COMPONENTS` (zero where the problem does not know them).
    """
    start = decoder.space.canonical(problem.start)
    whole = decoder.rows.total(start)
    saved = [
        1.0 - decoder.rows.total(_extreme(problem, decoder, start, what)) / max(whole, 1e-12)
        for what in ("weights", "tensors", "zeros", "channels")
    ]
    shares: Mapping[str, float] = getattr(problem, "shares", {})
    return np.array([*saved, *(shares.get(name, 0.0) for name in COMPONENTS)], dtype=np.float32)


def _extreme(problem: Problem, decoder: Decoder, start: Choices, what: str) -> Choices:
    """The baseline with every unit at the end of one kind of compression."""
    kind = {"weights": "layer", "tensors": "activation", "zeros": "layer", "channels": "channels"}[what]
    plan = start.copy()
    for u, unit in enumerate(problem.units):
        if unit.kind != kind:
            continue
        here = unit.options[start[u]]
        if what in ("weights", "tensors"):
            allowed = [o for o, option in enumerate(unit.options) if option.algorithm == NONE]
            plan[u] = min(allowed, key=lambda o: unit.options[o].bits, default=plan[u])
        else:
            allowed = [o for o, option in enumerate(unit.options) if option.bits == here.bits]
            plan[u] = max(allowed, key=lambda o: unit.options[o].ratio, default=plan[u])
    return decoder.space.canonical(plan)


def task_features(model: Model, measured: int, progress: float) -> Array:
    """The limit, how much is known and how well the surrogate explains it, [TASK_FEATURES]."""
    limit = model.problem.limit_points
    damage = model.drop_map.damage(model.accepted_drop())
    return np.array(
        (
            np.log(max(limit, 1e-3)) / 3.0,
            np.log(max(damage, 1e-7)) / 5.0,
            np.log((1.0 + measured) / (1.0 + len(model.problem.units))),
            model.surrogate.mean.slope - 1.0,
            10.0 * model.surrogate.unexplained,
            progress,
        ),
        dtype=np.float32,
    ).clip(-BOUND, BOUND)


def unit_features(model: Model, decoder: Decoder, zero: Choices) -> Array:
    """What is known of each unit around the plan `zero`, [units, UNIT_FEATURES]."""
    units = model.problem.units
    cost = model.table.costs(model.surrogate.mean)
    share = model.surrogate.contributions(zero[None, :])[0]
    share = share / max(share.sum(), 1e-12)
    doubt = model.surrogate.doubt()
    same, beside = _around(units, share)
    rows = np.zeros((len(units), UNIT_FEATURES))
    for u, unit in enumerate(units):
        energy, damage = decoder.unit_rows(cost, zero, u)
        rows[u, KINDS.index(unit.kind)] = 1.0
        milder, stronger = damage < damage[zero[u]], energy < energy[zero[u]] - 1e-9
        rows[u, len(KINDS) :] = (
            u / len(units),
            np.sqrt(share[u]),
            np.sqrt(same[u]),
            np.sqrt(beside[u]),
            doubt[u],
            model.surrogate.mean.gain[u],
            zero[u] / max(len(unit.options) - 1, 1),
            np.log1p(len(unit.options)) / 4.0,
            len(units) * (energy.max() - energy[zero[u]]),
            len(units) * (energy[zero[u]] - energy[stronger].max(initial=-np.inf)) if stronger.any() else 0.0,
            np.sqrt(max(damage[zero[u]] - damage[milder].max(initial=0.0), 0.0) / max(damage.max(), 1e-12)),
            np.log(max(damage[zero[u]], 1e-9) / max(np.median(cost[np.arange(len(units)), zero]), 1e-9)) / 5.0,
        )
    return np.clip(rows, -BOUND, BOUND).astype(np.float32)


def _around(units: Sequence[Unit], share: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of the damage done to the same layers by other units, and to the layers before and after them, [units] each."""
    place = {unit.name: p for p, unit in enumerate(unit for unit in units if unit.kind == "layer")}
    touched = np.zeros((len(units), max(len(place), 1)))
    for u, unit in enumerate(units):
        touched[u, [place[name] for name in unit.layers if name in place]] = 1.0
    parts = touched / np.maximum(touched.sum(axis=1, keepdims=True), 1.0)
    of_layer = share @ parts
    next_to = np.zeros_like(touched)
    next_to[:, 1:] += touched[:, :-1]
    next_to[:, :-1] += touched[:, 1:]
    same = np.maximum(touched @ of_layer - share, 0.0)
    return same, ((next_to > 0.0) & (touched == 0.0)) @ of_layer


def dynamic_features(corrections: Array, families: NDArray[np.int64], step: int) -> Array:
    """What happened so far in episodes, [..., DYNAMIC]: last correction, mean, mean size, share of forced units."""
    if step == 0:
        return np.zeros((*corrections.shape[:-1], DYNAMIC), dtype=np.float32)
    done = corrections[..., :step]
    forced = (families[..., :step] != SOLVER).mean(axis=-1)
    parts = (done[..., -1], done.mean(axis=-1), np.abs(done).mean(axis=-1), forced)
    return np.stack(parts, axis=-1).astype(np.float32)
