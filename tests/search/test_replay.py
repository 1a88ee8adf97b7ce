from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.search.replay import Replay, Step, Transition, n_step


def row(number: int, elite: bool = False) -> Transition:
    seen = np.array([number], dtype=np.float32)
    return Transition(seen, seen, number, float(number), seen, np.ones(2, dtype=np.bool_), 0.0, elite)


def filled(priorities: list[float], alpha: float = 0.5, beta: float = 0.4) -> Replay:
    replay = Replay(16, alpha, beta)
    for number in range(len(priorities)):
        replay.add(row(number))
    replay.reprioritise(np.arange(len(priorities)), np.array(priorities))
    return replay


PRIORITIES = [0.0, 0.1, 0.5, 1.0, 4.0]
DRAWS = 40_000


def furthest(replay: Replay) -> float:
    """Largest distance, in standard errors, between drawn frequencies and P(i) ~ (priority + 1e-3)^0.5."""
    chance = np.array([(p + 1e-3) ** 0.5 for p in PRIORITIES])
    chance /= chance.sum()
    drawn = np.bincount(replay.sample(DRAWS, np.random.default_rng(0)).position, minlength=len(chance)) / DRAWS
    return float(np.max(np.abs(drawn - chance) / np.sqrt(chance * (1 - chance) / DRAWS)))


def test_sample_draws_rows_by_the_formula() -> None:
    assert furthest(filled(PRIORITIES)) < 4.0


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_sample_with_another_exponent_is_told_from_the_formula(alpha: float) -> None:
    assert furthest(filled(PRIORITIES, alpha)) > 8.0


def test_sample_weights_undo_the_priorities_by_the_formula() -> None:
    batch = filled(PRIORITIES).sample(64, np.random.default_rng(1))
    mass = [(p + 1e-3) ** 0.5 for p in PRIORITIES]
    weights = [(len(PRIORITIES) * mass[i] / sum(mass)) ** -0.4 for i in batch.position]
    assert batch.weight == pytest.approx(np.array(weights) / max(weights), rel=1e-6)
    assert np.array_equal(batch.family, batch.position)


def test_sample_with_full_correction_estimates_the_plain_mean() -> None:
    """With beta 1 weighted rows estimate a mean over all rows without bias; without weights they must not."""
    batch = filled(PRIORITIES, alpha=1.0, beta=1.0).sample(DRAWS, np.random.default_rng(2))
    truth = np.mean(range(len(PRIORITIES)))
    assert np.average(batch.target, weights=batch.weight) == pytest.approx(truth, abs=0.2)
    assert abs(batch.target.mean() - truth) > 1.0


def test_add_to_a_full_ring_overwrites_the_oldest_with_the_largest_priority() -> None:
    replay = Replay(3)
    for number in range(3):
        replay.add(row(number))
    replay.reprioritise(np.array([0, 1, 2]), np.array([0.1, 7.0, 0.2]))
    replay.add(row(3))
    state = replay.state()
    assert state["family"].tolist() == [3, 1, 2]
    assert state["priority"].tolist() == [7.0, 7.0, 0.2]


def test_reprioritise_elite_rows_stay_at_the_batch_median() -> None:
    replay = Replay(4)
    for number in range(3):
        replay.add(row(number, elite=number == 0))
    replay.reprioritise(np.array([0, 1, 2]), np.array([-0.01, 0.4, -0.9]))
    assert replay.state()["priority"].tolist() == [0.4, 0.4, 0.9]


def test_restore_continues_with_the_same_draws_and_the_same_ring() -> None:
    replay = filled(PRIORITIES)
    copy = Replay(16, 0.5, 0.4)
    copy.restore(replay.state())
    for each in (replay, copy):
        each.add(row(9))
    first, second = (each.sample(20, np.random.default_rng(0)) for each in (replay, copy))
    assert np.array_equal(first.position, second.position) and np.array_equal(first.weight, second.weight)
    assert np.array_equal(replay.state()["priority"], copy.state()["priority"])


def episode(rewards: list[float]) -> list[Step]:
    def seen(t: int) -> np.ndarray:
        return np.array([t], dtype=np.float32)

    return [Step(seen(t), np.array([t % 2 == 0, True]), seen(-t), t, reward) for t, reward in enumerate(rewards)]


@given(
    rewards=st.lists(st.floats(-1, 1), min_size=1, max_size=7),
    gamma=st.sampled_from([1.0, 0.9, 0.5]),
    steps=st.sampled_from([None, 1, 2, 3, 10]),
    cut=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_n_step_equals_a_walk_over_the_episode(
    rewards: list[float], gamma: float, steps: int | None, cut: bool
) -> None:
    last = (np.array([99], dtype=np.float32), np.array([True, False])) if cut else None
    found = n_step(episode(rewards), gamma, steps, last)
    assert len(found) == len(rewards)
    for t, transition in enumerate(found):
        total, factor, place = 0.0, 1.0, t
        while place < len(rewards) and (steps is None or place < t + steps):
            total, factor, place = total + factor * rewards[place], factor * gamma, place + 1
        assert transition.target == pytest.approx(total)
        if place < len(rewards):
            assert transition.discount == pytest.approx(factor) and transition.following[0] == place
        elif cut:
            assert transition.discount == pytest.approx(factor) and transition.following[0] == 99
        else:
            assert transition.discount == 0.0


def test_n_step_bootstraps_to_the_same_value_for_every_n() -> None:
    """With the true values of the visited states, all n give the same return; with wrong values they must not."""
    rewards, gamma = [0.3, -0.2, 0.5, 1.0], 0.9
    value = np.zeros(len(rewards) + 1)
    for t in reversed(range(len(rewards))):
        value[t] = rewards[t] + gamma * value[t + 1]

    def returns(n: int, values: np.ndarray) -> list[float]:
        return [r.target + r.discount * values[int(r.following[0])] for r in n_step(episode(rewards), gamma, n)]

    for n in (1, 2, 3, 4):
        assert returns(n, value) == pytest.approx(value[:-1].tolist())
    assert returns(1, value + 0.1) != pytest.approx(returns(2, value + 0.1))
