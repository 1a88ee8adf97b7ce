from __future__ import annotations

import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.environment import SCALE, PlanEnv, Situation
from hwc_onnx.search.features import SOLVER, dynamic_features, family_of
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.model import Model
from hwc_onnx.search.space import Space
from hwc_onnx.search.surrogate import DamageTable
from tests.search.synthetic import SyntheticProblem

PROBLEM = SyntheticProblem(layers=4, images=300)


@pytest.fixture(scope="module")
def situation() -> Situation:
    space = Space(PROBLEM.units)
    history = History(space, PROBLEM.limit_points)
    rng = np.random.default_rng(0)
    for number in range(8):
        choices = space.random(rng) if number else space.canonical(PROBLEM.start)
        history.append(Record(number, choices, PROBLEM.evaluate(choices), "seed", True, 0.0))
    model = Model(PROBLEM, DamageTable(PROBLEM), history, rng)
    return Situation(model, Decoder(PROBLEM, space), [space.canonical(PROBLEM.start)], 0.0)


def play(situation: Situation, corrections: np.ndarray, families: np.ndarray):
    env = PlanEnv(situation)
    env.reset(seed=0)
    for correction, family in zip(corrections, families, strict=True):
        _seen, reward, done, _cut, info = env.step({"correction": np.array([correction], np.float32), "family": family})
        assert done or reward == 0.0
    assert done
    return reward, info["played"]


def test_environment_passes_the_checker_of_gymnasium(situation: Situation) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*alternative render modes.*")
        check_env(PlanEnv(situation))


def test_environment_that_reuses_its_mask_fails_the_checker(situation: Situation) -> None:
    class Reusing(PlanEnv):
        def _observe(self):
            seen, _info = super()._observe()
            return seen, {"mask": self.situation.masks[self._step]}

    with pytest.raises(AssertionError, match="share an object"):
        check_env(Reusing(situation), skip_render_check=True)


def test_step_all_zeros_is_the_plan_of_the_solver_with_reward_zero(situation: Situation) -> None:
    steps = len(PROBLEM.units) + 1
    reward, played = play(situation, np.zeros(steps), np.full(steps, SOLVER))
    assert reward == pytest.approx(0.0, abs=0.02)
    assert played.energy == pytest.approx(PROBLEM.energy(played.choices))


def test_step_reward_is_the_scaled_gain_over_the_solver(situation: Situation) -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        steps = len(PROBLEM.units) + 1
        reward, played = play(situation, rng.uniform(-1, 1, steps), np.full(steps, SOLVER))
        judged = situation.judge(played.choices)
        saved, spared = situation.zero.energy - judged.energy, situation.zero.log_damage - judged.log_damage
        expected = SCALE * len(PROBLEM.units) * (saved + situation.exchange * spared)
        assert reward == pytest.approx(np.clip(expected, -1, 1))


def test_step_full_margin_makes_the_plan_safer_and_dearer(situation: Situation) -> None:
    steps = len(PROBLEM.units) + 1
    corrections = np.zeros(steps)
    corrections[-1] = 1.0
    _, careful = play(situation, corrections, np.full(steps, SOLVER))
    corrections[-1] = -1.0
    _, bold = play(situation, corrections, np.full(steps, SOLVER))
    assert careful.log_damage < bold.log_damage and careful.energy > bold.energy


def test_step_larger_damage_of_one_unit_never_compresses_it_more(situation: Situation) -> None:
    steps = len(PROBLEM.units) + 1
    moved = 0
    for u in range(len(PROBLEM.units)):
        damages = {}
        for correction in (-1.0, 1.0):
            corrections = np.zeros(steps)
            corrections[u] = correction
            _, played = play(situation, corrections, np.full(steps, SOLVER))
            damages[correction] = situation.model.table.damage[u, played.choices[u]]
        assert damages[1.0] <= damages[-1.0] + 1e-12
        moved += damages[1.0] < damages[-1.0]
    assert moved > 0


def test_step_named_family_is_used_and_an_impossible_one_is_read_as_solver(situation: Situation) -> None:
    steps = len(PROBLEM.units) + 1
    u = next(i for i, unit in enumerate(PROBLEM.units) if len(unit.algorithms) > 1)
    named = family_of("obs")
    families = np.full(steps, SOLVER)
    families[u] = named
    assert situation.masks[u, named]
    _, played = play(situation, np.zeros(steps), families)
    assert PROBLEM.units[u].options[played.choices[u]].algorithm == "obs"
    width = next(i for i, unit in enumerate(PROBLEM.units) if unit.kind == "activation")
    assert not situation.masks[width, named]
    families[:] = SOLVER
    families[width] = named
    reward, _ = play(situation, np.zeros(steps), families)
    assert reward == pytest.approx(0.0, abs=0.02)


def test_dynamic_features_describe_the_past_only() -> None:
    corrections = np.array([0.5, -0.25, 0.9], np.float32)
    families = np.array([0, 2, 1])
    assert dynamic_features(corrections, families, 0).tolist() == [0, 0, 0, 0]
    assert dynamic_features(corrections, families, 2) == pytest.approx([-0.25, 0.125, 0.375, 0.5])
