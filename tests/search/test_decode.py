from __future__ import annotations

import itertools

import numpy as np
import pytest

from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.energy import EnergyRows
from hwc_onnx.search.space import Space
from hwc_onnx.search.surrogate import DamageTable, Parameters
from tests.search.synthetic import SyntheticProblem


def _cost(problem: SyntheticProblem) -> np.ndarray:
    table = DamageTable(problem)
    return table.costs(Parameters(np.zeros(len(problem.units)), np.zeros(len(table.families))))


def test_rows_equal_exact_differences_for_every_unit_and_option() -> None:
    problem = SyntheticProblem(layers=6, images=64)
    space = Space(problem.units)
    rows = EnergyRows(problem, space)
    rng = np.random.default_rng(0)
    for _ in range(5):
        base = space.random(rng)
        for u in range(len(base)):
            row = rows.row(base, u)
            for o in range(len(row)):
                changed, first = base.copy(), base.copy()
                changed[u], first[u] = o, 0
                if u in space.producers:
                    exact = problem.energy(space.canonical(changed)) - problem.energy(space.canonical(first))
                    assert row[o] == pytest.approx(exact, abs=1e-12)
                elif u not in space.owner or not space.pruned[space.owner[u]][base[space.owner[u]]]:
                    assert row[o] == pytest.approx(problem.energy(changed) - problem.energy(first), abs=1e-12)


def test_rows_forget_nothing_when_a_neighbour_moves() -> None:
    """A row remembered at one neighbourhood must not be used at another (the broken twin ignores neighbours)."""
    problem = SyntheticProblem(layers=6, images=64)
    space = Space(problem.units)
    rows = EnergyRows(problem, space)
    base = space.canonical(problem.start)
    first = rows.row(base, 0).copy()
    other = base.copy()
    other[6] = 4
    assert not np.allclose(rows.row(other, 0), first)
    rows.neighbours = [np.zeros(0, dtype=np.int64) for _ in rows.neighbours]
    broken = EnergyRows(problem, space)
    broken.neighbours = rows.neighbours
    broken.row(base, 0)
    assert np.allclose(broken.row(other, 0), first)


def test_solve_on_a_tiny_problem_is_near_the_exhaustive_optimum() -> None:
    problem = SyntheticProblem(layers=2, images=32, seed=1)
    decoder = Decoder(problem, Space(problem.units))
    cost = _cost(problem)
    sizes = [range(int(size)) for size in decoder.space.sizes]
    plans = {decoder.space.canonical(np.array(c)).tobytes(): np.array(c) for c in itertools.product(*sizes)}
    plans = {key: decoder.space.canonical(plan) for key, plan in plans.items()}
    energies = {key: problem.energy(plan) for key, plan in plans.items()}
    for target in (0.02, 0.05, 0.2):
        best = min(energies[key] for key, plan in plans.items() if decoder.damage_of(cost, plan) <= target)
        starts = [problem.start, decoder.space.canonical(decoder.space.sizes - 1)]
        found = decoder.solve(cost, target, starts)
        assert found.damage <= target
        # Lagrangian relaxation finds the convex hull; four units leave gaps of a few percent
        assert problem.energy(found.choices) <= 1.08 * best


@pytest.mark.parametrize("target", [0.02, 0.1, 0.5])
def test_solve_meets_the_target_and_beats_every_uniform_and_random_plan(target: float) -> None:
    problem = SyntheticProblem(seed=2)
    decoder = Decoder(problem, Space(problem.units))
    cost = _cost(problem)
    found = decoder.solve(cost, target, [problem.start, decoder.space.canonical(decoder.space.sizes // 2)])
    assert 0.9 * target <= found.damage <= target
    rng = np.random.default_rng(0)
    rivals = [decoder.space.random(rng) for _ in range(500)]
    allowed = [problem.energy(r) for r in rivals if decoder.damage_of(cost, r) <= target]
    assert problem.energy(found.choices) < min(allowed, default=1.0)


def test_solve_prunes_channels_jointly_with_their_producers() -> None:
    """Making channel removal free must make the solver use it, although that ends the producers' own pruning."""
    problem = SyntheticProblem(layers=8, images=64)
    decoder = Decoder(problem, Space(problem.units))
    cost = _cost(problem)
    for u in decoder.space.producers:
        cost[u, : decoder.space.sizes[u]] = 0.0
    found = decoder.solve(cost, 0.05, [problem.start]).choices
    assert all(decoder.space.pruned[u][found[u]] for u in decoder.space.producers)
    assert np.array_equal(found, decoder.space.canonical(found))


def test_solve_with_unreachable_target_returns_the_mildest_plan() -> None:
    problem = SyntheticProblem(layers=6, images=64)
    decoder = Decoder(problem, Space(problem.units))
    found = decoder.solve(_cost(problem), 1e-9, [problem.start])
    assert decoder.damage_of(_cost(problem), found.choices) <= decoder.damage_of(_cost(problem), problem.start)
