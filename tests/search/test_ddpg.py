"""DDPG on two toy problems, each beside a twin that is broken on purpose and must not solve it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import truncnorm

from hwc_onnx.search.ddpg import DDPG, DDPGConfig, truncated_normal
from hwc_onnx.search.replay import Batch

QUICK = DDPGConfig(hidden=32, actor_rate=3e-3, critic_rate=5e-3, tau=0.05)
NOBODY = torch.zeros(64, dtype=torch.int64)


def agent(kind: type[DDPG] = DDPG, observation: int = 1, families: int = 1, config: DDPGConfig = QUICK) -> DDPG:
    torch.set_num_threads(1)
    return kind(observation, 1, families, torch.Generator().manual_seed(0), config)


def batch(observation: np.ndarray, action: np.ndarray, target: np.ndarray, **changes: np.ndarray) -> Batch:
    size = len(observation)
    values = {
        "family": np.zeros(size, dtype=np.int64),
        "following": observation,
        "mask": np.ones((size, 1), dtype=np.bool_),
        "discount": np.zeros(size, dtype=np.float32),
        "elite": np.zeros(size, dtype=np.bool_),
        "weight": np.ones(size, dtype=np.float32),
        "position": np.arange(size),
    } | changes
    return Batch(observation=observation, action=action, target=target.astype(np.float32), **values)  # type: ignore[arg-type]


def draw(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(-1, 1, (64, 1)).astype(np.float32)


def bandit_error(learner: DDPG, updates: int = 250) -> float:
    """Mean distance to the best action after learning reward = 1 - (action - 0.6 * observation)^2 from random play."""
    rng = np.random.default_rng(0)
    for _ in range(updates):
        seen, done = draw(rng), draw(rng)
        learner.update(batch(seen, done, 1.0 - (done - 0.6 * seen)[:, 0] ** 2), NOBODY, NOBODY)
    seen = np.linspace(-1, 1, 41, dtype=np.float32)[:, None]
    return float(np.abs(learner.act(seen)[0] - 0.6 * seen).mean())


class WrongWay(DDPG):
    """The actor descends what it should climb."""

    def value(self, *inputs: torch.Tensor, target: bool = False) -> torch.Tensor:
        return -super().value(*inputs, target=target)


class Deaf(DDPG):
    """The critic learns from returns that belong to other actions."""

    def target(self, batch: Batch, next_family: torch.Tensor) -> torch.Tensor:
        return super().target(batch, next_family).roll(1)


def test_update_finds_the_best_action_of_every_observation() -> None:
    assert bandit_error(agent()) < 0.1


@pytest.mark.parametrize("broken", [WrongWay, Deaf])
def test_update_broken_twin_does_not_find_it(broken: type[DDPG]) -> None:
    assert bandit_error(agent(broken)) > 0.2


def chain_value(learner: DDPG, updates: int = 250) -> tuple[float, float]:
    """A first step without reward leads to a second with 1 - (action - 0.5)^2: the first step's value, the last action."""
    rng = np.random.default_rng(0)
    for _ in range(updates):
        first = rng.random(64) < 0.5
        seen = np.where(first, -1.0, 1.0).astype(np.float32)[:, None]
        done = draw(rng)
        reward = np.where(first, 0.0, 1.0 - (done[:, 0] - 0.5) ** 2)
        discount = np.where(first, 0.9, 0.0).astype(np.float32)
        following = np.ones_like(seen)
        learner.update(batch(seen, done, reward, following=following, discount=discount), NOBODY, NOBODY)
    start, end = np.array([[-1.0]], dtype=np.float32), np.array([[1.0]], dtype=np.float32)
    with torch.no_grad():
        value = learner.value(torch.as_tensor(start), torch.as_tensor(learner.act(start)[0]), NOBODY[:1])
    return float(value[0]), float(learner.act(end)[0][0, 0])


def test_update_carries_the_reward_back_through_the_target_networks() -> None:
    value, last = chain_value(agent())
    assert value == pytest.approx(0.9, abs=0.1)
    assert last == pytest.approx(0.5, abs=0.15)


def test_update_with_frozen_target_networks_does_not_carry_it_back() -> None:
    value, _ = chain_value(agent(config=DDPGConfig(hidden=32, actor_rate=3e-3, critic_rate=5e-3, tau=0.0)))
    assert value < 0.7


@pytest.mark.parametrize(("twin", "target_networks"), [(True, True), (False, True), (True, False)])
def test_target_equals_the_formula_row_by_row(twin: bool, target_networks: bool) -> None:
    learner = agent(observation=2, families=3, config=DDPGConfig(hidden=8, twin=twin, target_networks=target_networks))
    other = DDPG(2, 1, 3, torch.Generator().manual_seed(1), learner.config)
    learner.target_critics.load_state_dict(other.critics.state_dict())
    learner.target_actor.load_state_dict(other.actor.state_dict())
    rng = np.random.default_rng(0)
    seen, following = rng.normal(size=(2, 5, 2)).astype(np.float32)
    discount = np.array([0.9, 0.5, 0.0, 1.0, 0.9], dtype=np.float32)
    rows = batch(seen, np.zeros((5, 1), np.float32), np.arange(5.0), following=following, discount=discount)
    family = torch.tensor([0, 1, 2, 1, 0])
    used = other if target_networks else learner
    expected, largest = [], []
    for i in range(5):
        after = torch.as_tensor(following[i : i + 1])
        action = used.actor(after)[0]
        values = [float(critic(after, action, family[i : i + 1]).detach()) for critic in used.critics]
        expected.append(float(i) + discount[i] * min(values))
        largest.append(float(i) + discount[i] * max(values))
    found = learner.target(rows, family).tolist()
    assert found == pytest.approx(expected, abs=1e-6)
    assert not twin or found != pytest.approx(largest, abs=1e-6)


def test_update_imitates_elite_actions_against_a_weak_reward() -> None:
    """Reward -0.1 * action pulls down; imitating 0.8 (weight 0.2) balances it at 0.8 - 0.1 / (2 * 0.2) = 0.55."""
    found = {}
    for elite in (True, False):
        learner = agent()
        rng = np.random.default_rng(0)
        for _ in range(200):
            seen, done = draw(rng), draw(rng)
            done[:32] = 0.8
            marked = np.arange(64) < 32 * elite
            learner.update(batch(seen, done, -0.1 * done[:, 0], elite=marked), NOBODY, NOBODY)
        found[elite] = float(learner.act(np.zeros((1, 1), np.float32))[0][0, 0])
    assert found[True] == pytest.approx(0.55, abs=0.15)
    assert found[False] < 0.0


def test_act_starts_near_zero_so_that_the_solver_decides() -> None:
    seen = np.random.default_rng(0).normal(size=(100, 1)).astype(np.float32)
    assert np.abs(agent().act(seen)[0]).max() < 0.05


@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 0.35), (0.9, 0.5), (-1.0, 0.05)])
def test_truncated_normal_has_the_moments_of_scipy(mean: float, sigma: float) -> None:
    drawn = truncated_normal(np.full(20_000, mean, np.float32), sigma, np.random.default_rng(0))
    expected = truncnorm((-1 - mean) / sigma, (1 - mean) / sigma, mean, sigma)
    assert np.abs(drawn).max() <= 1.0
    assert drawn.mean() == pytest.approx(expected.mean(), abs=0.01)
    assert drawn.std() == pytest.approx(expected.std(), rel=0.03)
    clipped = np.clip(np.random.default_rng(0).normal(mean, sigma, 20_000), -1, 1)
    assert mean == 0.0 or abs(clipped.mean() - expected.mean()) > 0.01


def test_restraint_pulls_towards_zero_what_the_critic_says_little_about() -> None:
    """A return that grows slightly with the action: a restrained actor stays small, the twin without restraint goes far."""
    chosen = {}
    for restraint in (0.0, 0.5):
        learner = agent(config=DDPGConfig(hidden=32, actor_rate=3e-3, critic_rate=5e-3, tau=0.05, restraint=restraint))
        rng, seen = np.random.default_rng(0), np.zeros((64, 1), np.float32)
        for _ in range(300):
            action = draw(rng)
            learner.update(batch(seen, action, 0.2 * action[:, 0]), NOBODY, NOBODY)
        chosen[restraint] = float(learner.act(seen)[0][0, 0])
    assert 0.05 < chosen[0.5] < 0.45 and chosen[0.0] > 0.8
