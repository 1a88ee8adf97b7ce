"""Our own referees: what they propose follows from the record alone, and each keeps to its rule."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from hwc_onnx.search.cma import CmaEs
from hwc_onnx.search.evolution import MOST, REACH, Evolution
from hwc_onnx.search.greedy import Greedy
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.problem import Outcome
from hwc_onnx.search.space import Space
from hwc_onnx.search.spdy import SMALLEST, Spdy
from hwc_onnx.search.strategy import make
from hwc_onnx.search.study import run_search
from hwc_onnx.search.thompson import Thompson
from tests.search.synthetic import SyntheticProblem

OURS = ("greedy", "spdy", "evolution", "thompson", "cmaes")
SMALL = SyntheticProblem(layers=4, images=400)
TRIALS = 24


@pytest.mark.parametrize("name", OURS)
def test_referee_proposals_follow_from_the_record_alone(name: str) -> None:
    found = run_search(SMALL, sampler=name, trials=TRIALS, seed=2)
    records = [record for record in found.history.records if record.origin in ("seed", "referee")]
    for cut in (6, 9, 15, len(records) - 1):
        history = History(Space(SMALL.units), SMALL.limit_points)
        for record in records[:cut]:
            history.append(record)
        strategy = make(name, SMALL, 2, TRIALS, None)
        assert strategy is not None
        proposal = strategy.propose(history)
        assert proposal is not None
        np.testing.assert_array_equal(proposal.choices, records[cut].choices)


@pytest.mark.parametrize("name", OURS)
def test_referee_finds_better_plans_than_the_seeds_under_the_limit(name: str) -> None:
    problem = SyntheticProblem(layers=12, seed=1)
    found = run_search(problem, sampler=name, trials=70, seed=0)
    seeds = [r.outcome.energy for r in found.history.records if r.origin == "seed" and r.outcome.accepted(1.0)]
    assert found.best is not None
    assert found.best.outcome.accepted(problem.limit_points)
    assert found.best.outcome.energy <= min(seeds)


@pytest.mark.parametrize("name", sorted(set(OURS) - {"greedy"}))
def test_referee_other_seed_other_trials(name: str) -> None:
    plans = [
        [record.choices.tolist() for record in run_search(SMALL, sampler=name, trials=16, seed=seed).history.records]
        for seed in (0, 0, 1)
    ]
    assert plans[0] == plans[1] != plans[2]


def test_referee_without_warm_start_begins_with_the_baseline_and_goes_on() -> None:
    for name in ("greedy", "evolution"):
        found = run_search(SMALL, sampler=name, trials=16, warm_start=False)
        assert np.array_equal(found.history.records[0].choices, SMALL.start)
        assert found.best is not None
        assert found.best.outcome.energy < 1.0


def test_greedy_first_move_is_the_one_with_the_least_damage_for_its_energy() -> None:
    greedy = Greedy(SMALL)
    start = greedy.space.canonical(SMALL.start)
    ratios = {}
    for u, size in enumerate(greedy.space.sizes):
        for o in range(size):
            plan = start.copy()
            plan[u] = o
            saved = SMALL.energy(start) - SMALL.energy(plan)
            if saved > 1e-6:
                ratios[(u, o)] = (SMALL.damage[u][o] - SMALL.damage[u][start[u]]) / saved
    u, o = min(ratios, key=lambda key: ratios[key])
    moved = greedy.path(start)[1]
    assert moved[u] == o
    assert (np.flatnonzero(moved != start) == [u]).all()
    # without the division by energy another move would come first
    assert min(ratios, key=lambda key: SMALL.damage[key[0]][key[1]]) != (u, o)


def test_greedy_path_always_saves_and_ends_where_nothing_saves() -> None:
    greedy = Greedy(SMALL)
    path = greedy.path(greedy.space.canonical(SMALL.start))
    energies = [SMALL.energy(plan) for plan in path]
    assert all(after < before for before, after in itertools.pairwise(energies))
    assert not greedy.moves(path[-1])


def test_spdy_plan_has_nearly_the_least_damage_at_the_energy() -> None:
    problem = SyntheticProblem(layers=1, images=400)
    strategy = Spdy(problem, 0, 40)
    plans = [strategy.space.canonical(np.array(p)) for p in itertools.product(*(range(s) for s in strategy.space.sizes))]
    damages = [strategy.decoder.damage_of(strategy.cost, plan) for plan in plans]
    for asked in (0.8, 0.6, 0.45):
        found = strategy.at_energy(strategy.cost, asked, strategy.space.canonical(problem.start))
        assert problem.energy(found) <= asked
        least = min(damage for plan, damage in zip(plans, damages, strict=True) if problem.energy(plan) <= asked)
        worst = max(damage for plan, damage in zip(plans, damages, strict=True) if problem.energy(plan) <= asked)
        reached = strategy.decoder.damage_of(strategy.cost, found)
        # a Lagrangian solver reaches the convex hull only
        assert least <= reached <= least + 0.1 * (worst - least)


def test_spdy_keeps_most_of_the_best_factors_once_random_draws_are_over() -> None:
    strategy = Spdy(SMALL, 0, 40)
    history = run_search(SMALL, sampler="spdy", trials=30, seed=0).history
    strategy.propose(history)
    held = strategy._best
    assert held is not None
    drawn = strategy._draw(len(history))
    assert 0 < (drawn != held[1]).sum() < len(drawn) / 2
    assert ((drawn >= SMALLEST) & (drawn <= 1.0)).all()
    assert (Spdy(SMALL, 0, 400)._draw(len(history)) != held[1]).all()


def test_evolution_mutates_few_units_a_few_steps() -> None:
    strategy = Evolution(SMALL, 0)
    rng = np.random.default_rng(0)
    parent = SMALL.space.canonical(SMALL.space.sizes // 2)
    free = [u for u in range(len(parent)) if u not in SMALL.space.owner]
    for _ in range(200):
        child = strategy.mutated(parent, rng)
        assert ((child >= 0) & (child < SMALL.space.sizes)).all()
        np.testing.assert_array_equal(child, SMALL.space.canonical(child))
        assert (child[free] != parent[free]).sum() <= MOST
        assert (abs(child[free] - parent[free]) <= REACH).all()


def test_evolution_prefers_accepted_plans_then_those_nearest_to_the_limit() -> None:
    rank = Evolution(SMALL, 0)._rank

    def record(energy: float, drop: float, **limits: float) -> Record:
        outcome = Outcome(energy, drop, 0.1, 0.1, limits=limits)
        return Record(0, SMALL.start, outcome, "referee", True, 0.0)

    order = [record(0.5, 0.2), record(0.7, 0.1), record(0.3, 1.2), record(0.4, 3.0)]
    assert sorted(order[::-1], key=rank) == order
    assert rank(record(0.2, 0.1, bytes=0.5)) > rank(record(0.9, 0.1, bytes=-0.5))


def test_thompson_posterior_is_that_of_the_textbook_and_finds_true_coefficients() -> None:
    strategy = Thompson(SMALL, 0)
    rng = np.random.default_rng(1)
    plans = np.array([strategy.space.random(rng) for _ in range(400)])
    truth = np.concatenate([rng.uniform(0.3, 2.0, len(SMALL.units)), rng.uniform(0.0, 0.3, len(strategy.pairs)), [2e-4]])
    damages = strategy.features(plans) @ truth * np.exp(0.02 * rng.normal(size=len(plans)))
    history = History(strategy.space, 1.0)
    for plan, damage in zip(plans, damages, strict=True):
        history.append(Record(0, plan, Outcome(0.5, 0.5, 0.1, float(damage)), "referee", True, 0.0))
    mean, root = strategy.posterior(history)
    rows = strategy.features(plans) / damages[:, None]
    spread = np.diag(np.linalg.inv(root @ root.T) - rows.T @ rows / 0.15**2)
    expected = np.r_[np.full(len(SMALL.units), 0.7**-2), np.full(len(strategy.pairs), 0.3**-2), 1e-4**-2]
    np.testing.assert_allclose(spread, expected, rtol=1e-4)
    seen = damages > 0
    assert np.corrcoef(np.log(strategy.features(plans)[seen] @ mean), np.log(damages[seen]))[0, 1] > 0.98
    flat = strategy.features(plans)[seen] @ np.r_[np.ones(len(SMALL.units)), np.zeros(len(strategy.pairs) + 1)]
    error = np.std(np.log(strategy.features(plans)[seen] @ mean) - np.log(damages[seen]))
    assert error < 0.5 * np.std(np.log(flat) - np.log(damages[seen]))


def test_thompson_learns_the_damage_that_no_unit_does() -> None:
    strategy = Thompson(SMALL, 0)
    history = History(strategy.space, 1.0)
    rng = np.random.default_rng(2)
    best = np.array([int(np.argmin(damage)) for damage in SMALL.damage])
    for number in range(60):
        plan = np.where(rng.random(len(best)) < 0.8, best, strategy.space.random(rng))
        damage = float((strategy.features(plan[None])[0, : len(best)]).sum()) + 3e-4
        history.append(Record(number, plan, Outcome(0.5, 0.5, 0.1, damage), "referee", True, 0.0))
    mean, _ = strategy.posterior(history)
    assert 1e-4 < mean[-1] < 4e-4
    broken = Thompson(SMALL, 0)
    broken.features = lambda plans: strategy.features(plans) * np.r_[np.ones(strategy.features(best[None]).shape[1] - 1), 0.0]  # type: ignore[method-assign]
    assert not 1e-4 < broken.posterior(history)[0][-1] < 4e-4


def test_cmaes_values_accepted_plans_below_the_baseline_and_refused_ones_above() -> None:
    strategy = CmaEs(SMALL, 0)
    good = Record(0, SMALL.start, Outcome(0.6, 0.1, 0.1, 0.01), "referee", True, 0.0)
    over = replace(good, outcome=replace(good.outcome, drop_points=1.5))
    far = replace(good, outcome=replace(good.outcome, drop_points=30.0, energy=0.1))
    failed = replace(good, outcome=Outcome(0.5, float("inf"), 0.0, float("inf"), complete=False, failure="no"))
    values = [strategy.value(record) for record in (good, over, far, failed)]
    assert values == sorted(values)
    assert values[0] == 0.6
    assert values[1] > 1.0


def test_cmaes_descends_where_everything_is_accepted() -> None:
    problem = SyntheticProblem(layers=6, seed=3, limit_points=1000.0)
    found = run_search(problem, sampler="cmaes", trials=120, seed=0, warm_start=False)
    energies = [record.outcome.energy for record in found.history.records if record.origin == "referee"]
    assert np.median(energies[-30:]) < 0.9 * np.median(energies[:30])
