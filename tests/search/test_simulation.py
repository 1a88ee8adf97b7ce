"""Batched episodes agree with episodes that are decoded one by one, and the policy's opinion weighs what it has earned."""

from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.search.agents import Agents
from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.environment import Situation
from hwc_onnx.search.features import SOLVER, TRAITS, VOCABULARY, family_of, traits
from hwc_onnx.search.model import Model
from hwc_onnx.search.practice import believed, practise, uncertain, weighed
from hwc_onnx.search.simulation import Simulation
from hwc_onnx.search.study import run_search
from hwc_onnx.search.surrogate import DamageTable
from tests.search.synthetic import SyntheticProblem

PROBLEM = SyntheticProblem(layers=6, images=400)


@pytest.fixture(scope="module")
def situation() -> Situation:
    return situation_after("knapsack")


def situation_after(sampler: str) -> Situation:
    history = run_search(PROBLEM, sampler=sampler, trials=16).history
    model = Model(PROBLEM, DamageTable(PROBLEM), history, np.random.default_rng(0))
    assert history.best is not None
    return Situation(model, Decoder(PROBLEM, PROBLEM.space), [history.best.choices], 0.3, len(history))


def still(situation: Situation, episodes: int) -> tuple[np.ndarray, np.ndarray]:
    shape = (episodes, len(situation.features))
    return np.zeros(shape, np.float32), np.full(shape, SOLVER)


def test_simulation_zero_actions_spend_no_more_than_the_solver_for_the_same_damage(situation: Situation) -> None:
    simulation = Simulation(situation)
    plan = simulation.decode(*still(situation, 1))[0]
    level = situation.model.surrogate.contributions(np.array([plan, situation.zero.choices])).sum(axis=1)
    assert level[0] <= level[1] * 1.000001
    assert PROBLEM.energy(plan) == pytest.approx(situation.zero.energy, abs=0.05)


def test_simulation_episodes_side_by_side_are_those_alone(situation: Situation) -> None:
    rng, simulation = np.random.default_rng(1), Simulation(situation)
    corrections, families = still(situation, 12)
    corrections[:] = rng.uniform(-1, 1, corrections.shape)
    together = simulation.decode(corrections, families)
    for i in range(12):
        alone = simulation.decode(corrections[i : i + 1], families[i : i + 1])
        assert np.array_equal(alone[0], together[i])
        assert np.array_equal(PROBLEM.space.canonical(together[i]), together[i])


def test_simulation_larger_damage_of_one_unit_never_compresses_it_more(situation: Situation) -> None:
    simulation, damage = Simulation(situation), situation.model.table.damage
    moved = 0
    for u in range(len(PROBLEM.units)):
        corrections, families = still(situation, 2)
        corrections[:, u] = (1.0, -1.0)
        feared, welcome = simulation.decode(corrections, families)[:, u]
        assert damage[u, feared] <= damage[u, welcome] + 1e-12
        moved += feared != welcome
    assert moved > 0


def test_simulation_named_family_is_used(situation: Situation) -> None:
    u = next(u for u, unit in enumerate(PROBLEM.units) if unit.kind == "layer" and u not in situation.decoder.space.owner)
    corrections, families = still(situation, 2)
    families[0, u], families[1, u] = family_of("obs"), family_of("none")
    plans = Simulation(situation).decode(corrections, families)
    assert [PROBLEM.units[u].options[o].algorithm for o in plans[:, u]] == ["obs", "none"]


def test_simulation_credit_is_the_gain_of_the_environment_between_the_same_plans(situation: Situation) -> None:
    simulation, rng = Simulation(situation), np.random.default_rng(2)
    corrections, families = still(situation, 5)
    corrections[1:] = rng.uniform(-0.5, 0.5, corrections[1:].shape)
    plans = simulation.decode(corrections, families)
    energy, damage = simulation.outcome(plans, 0)
    residual = np.array([situation.judge(plan).log_damage for plan in plans])
    credit = simulation.credit(energy, residual)
    for plan, each in zip(plans[1:], credit, strict=True):
        expected = situation.gain(situation.judge(plan)) - situation.gain(situation.judge(plans[0]))
        assert each == pytest.approx(expected, abs=1e-6)
    assert damage == pytest.approx(situation.model.surrogate.line(plans))


def test_walk_explores_only_where_it_is_told_to(situation: Situation) -> None:
    agents, rng = Agents(0), np.random.default_rng(3)
    explored = uncertain(situation, rng, 8, 3)
    assert (explored[:, :-1].sum(axis=1) == 3).all()
    corrections, families, seen = agents.walk(situation, explored, 0.4, rng)
    assert np.abs(corrections[~explored]).max() < 0.05 < np.abs(corrections[explored]).max()
    assert (families[~explored] == SOLVER).all()
    assert seen.shape == (8, explored.shape[1], agents.size)
    allowed = np.take_along_axis(np.broadcast_to(situation.masks, (8, *situation.masks.shape)), families[:, :, None], 2)
    assert allowed.all()


def test_practice_of_agents_from_scratch_has_no_opinion_and_the_solvers_plan(situation: Situation) -> None:
    found = practise(
        Agents(0), situation, np.random.default_rng(0), rollouts=6, decoded=2, explored=3, sigma=0.3
    )
    assert found.opinion is None and np.array_equal(found.reference.choices, situation.zero.choices)
    assert len(found.episodes) == 2 and len(found.transitions) >= 18


def test_corrected_model_agrees_with_what_was_measured_and_differs_elsewhere(situation: Situation) -> None:
    model, rng = situation.model, np.random.default_rng(4)
    other = model.corrected(rng.normal(0.0, 0.4, len(PROBLEM.units)))
    measured = model.surrogate._plans
    shift = other.surrogate.predict(measured)[0] - model.surrogate.predict(measured)[0]
    plans = np.array([PROBLEM.space.random(rng) for _ in range(40)])
    elsewhere = other.surrogate.predict(plans)[0] - model.surrogate.predict(plans)[0]
    assert np.abs(shift).mean() < 0.6 * np.abs(elsewhere).mean()
    same = model.corrected(np.full(len(PROBLEM.units), 0.3))
    assert same.surrogate.predict(plans)[0] == pytest.approx(model.surrogate.predict(plans)[0], abs=0.02)


def test_evidence_grows_for_an_opinion_that_predicts_better_and_falls_for_its_opposite() -> None:
    situation = situation_after("random")  # plans like those that are judged below
    rng, truth = np.random.default_rng(5), PROBLEM.true_damage
    gains = np.array([np.log(t[-1] / d[-1]) for t, d in zip(PROBLEM._truth, PROBLEM.damage, strict=True)])
    right = situation.model.corrected(gains - situation.model.surrogate.mean.gain)
    wrong = situation.model.corrected(situation.model.surrogate.mean.gain - gains)
    evidence = {"right": 0.0, "wrong": 0.0}
    for _ in range(30):
        plan = PROBLEM.space.random(rng)
        evidence["right"] = weighed(evidence["right"], situation.model, right, plan, truth(plan))
        evidence["wrong"] = weighed(evidence["wrong"], situation.model, wrong, plan, truth(plan))
    assert believed(evidence["right"]) > 2.0 * believed(0.0) > 4.0 * believed(evidence["wrong"])
    assert weighed(0.7, situation.model, None, plan, 1.0) == 0.7 and believed(0.0) < 0.2


def test_traits_tell_accelerators_apart() -> None:
    class NoSkipping(SyntheticProblem):
        skipping, memory = False, (0.0, 1.0)

    class NoWidths(SyntheticProblem):
        arithmetic, memory = (1.0, 0.0), (0.0, 0.0)

    plain, dense, fixed = (
        traits(problem, Decoder(problem, problem.space))
        for problem in (SyntheticProblem(layers=5), NoSkipping(layers=5), NoWidths(layers=5))
    )
    weights, tensors, zeros, channels = range(4)
    assert len(plain) == TRAITS and (plain[:4] > 0.05).all()
    assert dense[zeros] == pytest.approx(0.0, abs=1e-9) and dense[weights] > 0.0
    assert fixed[weights] == fixed[tensors] == pytest.approx(0.0, abs=1e-9)
    assert fixed[zeros] > 0.2 and fixed[channels] > 0.2
    assert fixed[4 + 0] == 1.0 and plain[4 + 0] < 1.0


def test_family_of_an_algorithm_from_elsewhere_is_the_last() -> None:
    assert family_of("mine:ALGORITHM") == len(VOCABULARY) - 1 and family_of("solver") == len(VOCABULARY) - 1


def test_each_agent_can_be_left_out(situation: Situation) -> None:
    everywhere = np.ones((6, len(situation.features)), dtype=np.bool_)
    for corrects, names in ((True, True), (False, True), (True, False)):
        agents = Agents(0, corrects=corrects, names=names)
        corrections, families, _ = agents.walk(situation, everywhere, 0.5, np.random.default_rng(4))
        assert bool(corrections.any()) is corrects
        assert bool((families != SOLVER).any()) is names
