"""Rainbow's parts against brute force, and the whole on a toy problem beside twins that are broken on purpose."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.search.networks import NoisyLinear, soft_update
from hwc_onnx.search.rainbow import Rainbow, RainbowConfig, project
from hwc_onnx.search.replay import Batch

torch.set_num_threads(1)


def batch(family: np.ndarray, target: np.ndarray, mask: np.ndarray, discount: np.ndarray, elite: bool = False) -> Batch:
    size = len(family)
    unused = np.zeros((size, 1), np.float32)
    return Batch(
        unused,
        unused,
        family,
        target.astype(np.float32),
        unused,
        mask,
        discount.astype(np.float32),
        np.full(size, elite),
        np.ones(size, np.float32),
        np.arange(size),
    )


def projected(
    support: list[float], reward: float, discount: float, mass: list[float], split: bool = True
) -> list[float]:
    """Each atom's mass goes to its two nearest atoms, shared by distance (the twin gives all of it to the lower)."""
    step = support[1] - support[0]
    result = [0.0] * len(support)
    for atom, share in zip(support, mass, strict=True):
        moved = min(max(reward + discount * atom, support[0]), support[-1])
        for i, place in enumerate(support):
            near = max(0.0, 1.0 - abs(place - moved) / step)
            result[i] += share * (near if split else float(0.0 <= moved - place < step - 1e-9))
    return result


@given(
    rewards=st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=4),
    discount=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None)
def test_project_equals_moving_every_atom_by_hand(rewards: list[float], discount: float, seed: int) -> None:
    support = torch.linspace(-1.0, 1.0, 11, dtype=torch.float64)
    mass = torch.as_tensor(np.random.default_rng(seed).dirichlet(np.ones(11), len(rewards)))
    shift = torch.tensor(rewards, dtype=torch.float64)
    found = project(support, shift, torch.full_like(shift, discount), mass)
    for row, reward, shares in zip(found, rewards, mass, strict=True):
        assert row.tolist() == pytest.approx(projected(support.tolist(), reward, discount, shares.tolist()), abs=1e-9)
        assert float(row.sum()) == pytest.approx(1.0)


def test_project_keeps_the_mean_unless_the_mass_is_rounded_down() -> None:
    support = torch.linspace(-1.0, 1.0, 11, dtype=torch.float64)
    mass = torch.zeros(1, 11, dtype=torch.float64)
    mass[0, 3:8] = 0.2
    found = project(support, torch.tensor([0.13]), torch.tensor([0.5]), mass)
    assert float((found[0] * support).sum()) == pytest.approx(0.13, abs=1e-6)
    broken = projected(support.tolist(), 0.13, 0.5, mass[0].tolist(), split=False)
    assert float(np.dot(broken, support.numpy())) != pytest.approx(0.13, abs=0.02)


def separate(double: bool, distributional: bool = True) -> Rainbow:
    """An agent whose frozen network disagrees with its online network."""
    config = RainbowConfig(hidden=16, double=double, distributional=distributional, noisy=False)
    learner = Rainbow(2, 4, torch.Generator().manual_seed(0), config)
    learner.frozen.load_state_dict(Rainbow(2, 4, torch.Generator().manual_seed(1), config).online.state_dict())
    return learner


@pytest.mark.parametrize("distributional", [True, False])
def test_target_double_lets_the_online_network_choose_and_the_frozen_one_judge(distributional: bool) -> None:
    rng = np.random.default_rng(0)
    following = torch.as_tensor(rng.normal(size=(40, 2)).astype(np.float32))
    mask = rng.random((40, 4)) < 0.7
    mask[:, 0] = True
    reward, discount = rng.uniform(-0.3, 0.3, 40), rng.choice([0.0, 0.9], 40)
    rows = batch(np.zeros(40, np.int64), reward, mask, discount)
    double, single = separate(True, distributional), separate(False, distributional)
    support = double.support.tolist()
    differing = 0
    for learner, chooser in ((double, double.online), (single, single.frozen)):
        found = learner.target(rows, following)
        for i in range(40):
            online = learner.values(following[i : i + 1], chooser)[0].tolist()
            allowed = [k for k in range(4) if mask[i, k]]
            frozen = learner.values(following[i : i + 1], learner.frozen)[0].tolist()
            best = max(allowed, key=online.__getitem__)
            differing += best != max(allowed, key=frozen.__getitem__)
            judged = learner.frozen(following[i : i + 1])[0, best].detach()
            if distributional:
                mass = torch.softmax(judged, dim=0).tolist()
                expected = projected(support, float(np.float32(reward[i])), float(discount[i]), mass)
                assert found[i].tolist() == pytest.approx(expected, abs=1e-4)
            else:
                assert float(found[i]) == pytest.approx(reward[i] + discount[i] * float(judged[0]), abs=1e-5)
    assert differing > 5
    assert not torch.allclose(double.target(rows, following), single.target(rows, following), atol=1e-4)


def test_head_dueling_is_value_plus_centred_advantage() -> None:
    learner = separate(True)
    inputs = torch.randn((6, 2), generator=torch.Generator().manual_seed(0))
    head = learner.online
    hidden = torch.relu(head.hidden(inputs))
    advantage = head.advantage(hidden).view(6, 4, -1)
    assert head.value is not None
    value = head.value(hidden)
    for k in range(4):
        expected = value + advantage[:, k] - sum(advantage[:, j] for j in range(4)) / 4
        assert torch.allclose(head(inputs)[:, k], expected, atol=1e-6)
    assert torch.allclose(head(inputs).mean(dim=1), value, atol=1e-6)


def test_noisy_linear_equals_the_factorised_formula_entry_by_entry() -> None:
    layer = NoisyLinear(3, 2, torch.Generator().manual_seed(0), sigma=0.5)
    inputs = torch.tensor([[1.0, -2.0, 0.5]])
    quiet = layer(inputs).detach()
    draws = torch.Generator().manual_seed(7)
    entering, leaving = torch.randn(3, generator=draws), torch.randn(2, generator=draws)
    layer.resample(torch.Generator().manual_seed(7))

    def squashed(value: torch.Tensor) -> float:
        return math.copysign(math.sqrt(abs(float(value))), float(value))

    spread = 0.5 / math.sqrt(3)
    for o in range(2):
        noise = sum(squashed(leaving[o]) * squashed(entering[i]) * float(inputs[0, i]) for i in range(3))
        expected = float(quiet[0, o]) + spread * (noise + squashed(leaving[o]))
        assert float(layer(inputs)[0, o].detach()) == pytest.approx(expected, abs=1e-6)
    assert torch.equal(layer(inputs), layer(inputs))
    layer.silence()
    assert torch.equal(layer(inputs), quiet)


def test_noisy_linear_noise_is_centred_with_the_variance_of_the_formula() -> None:
    """Var = sigma^2 / n * E|e|^2-products: (sum x^2 + 1) * (2/pi); independent noise per weight would give sum x^2 + 1."""
    layer = NoisyLinear(4, 1, torch.Generator().manual_seed(0), sigma=0.5)
    inputs = torch.tensor([[1.0, -2.0, 0.5, 1.5]])
    quiet = float(layer(inputs).detach())
    generator = torch.Generator().manual_seed(1)
    drawn = []
    for _ in range(4000):
        layer.resample(generator)
        drawn.append(float(layer(inputs).detach()) - quiet)
    size, mean = 0.25 / 4, math.sqrt(2 / math.pi)  # f(e)^2 = |e|, whose mean is sqrt(2 / pi)
    expected = size * mean * (float((inputs**2).sum()) * mean + 1.0)
    assert np.mean(drawn) == pytest.approx(0.0, abs=4 * math.sqrt(expected / 4000))
    assert np.var(drawn) == pytest.approx(expected, rel=0.12)
    assert np.var(drawn) != pytest.approx(size * (float((inputs**2).sum()) + 1.0), rel=0.12)


def test_resample_changes_choices_and_silence_restores_them() -> None:
    learner = Rainbow(2, 4, torch.Generator().manual_seed(0), RainbowConfig(hidden=16, sigma=1.0))
    inputs = torch.randn((50, 2), generator=torch.Generator().manual_seed(0))
    every = torch.ones((50, 4), dtype=torch.bool)
    quiet = learner.choose(inputs, every)
    learner.resample(torch.Generator().manual_seed(3))
    assert not torch.equal(learner.choose(inputs, every), quiet)
    learner.silence()
    assert torch.equal(learner.choose(inputs, every), quiet)


def test_choose_never_takes_a_masked_family() -> None:
    learner = separate(True)
    inputs = torch.randn((50, 2), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros((50, 4), dtype=torch.bool)
    mask[:, 2] = True
    assert learner.choose(inputs, mask).tolist() == [2] * 50


START, DEEP = (1.0, 0.0), (0.0, 1.0)
NOISE = [-0.1, 0.1]


def play(learner: Rainbow, sign: float = 1.0, updates: int = 150) -> list[float]:
    """Values of "take 0.2 now" and "go on" at the start, where going on leads to a choice between 0.9 and -0.5."""
    rng = np.random.default_rng(0)
    for _ in range(updates):
        deep, family = rng.random(64) < 0.5, rng.integers(0, 2, 64)
        reward = np.where(deep, np.where(family == 0, 0.9, -0.5), np.where(family == 0, 0.2, 0.0))
        discount = np.where(~deep & (family == 1), 1.0, 0.0)
        inputs = torch.tensor([DEEP if d else START for d in deep])
        following = torch.tensor([DEEP] * 64)
        rows = batch(family, sign * (reward + rng.choice(NOISE, 64)), np.ones((64, 2), np.bool_), discount)
        learner.update(rows, inputs, following)
    learner.silence()
    with torch.no_grad():
        return learner.values(torch.tensor([START]))[0].tolist()


def toy(**changes: float | bool) -> Rainbow:
    config = RainbowConfig(**({"hidden": 32, "rate": 5e-3, "tau": 0.05} | changes))  # type: ignore[arg-type]
    return Rainbow(2, 2, torch.Generator().manual_seed(0), config)


@pytest.mark.parametrize("off", [None, "double", "dueling", "noisy", "distributional"])
def test_update_learns_to_go_on_with_every_component_off(off: str | None) -> None:
    now, later = play(toy(**({off: False} if off else {})))
    assert later > now + 0.4
    assert later == pytest.approx(0.9, abs=0.15)


def test_update_broken_twins_do_not_learn_to_go_on() -> None:
    frozen = play(toy(tau=0.0))
    assert frozen[1] < frozen[0]
    flipped = play(toy(), sign=-1.0)
    assert flipped[1] < 0.7


def test_update_margin_lifts_the_elite_choice_above_its_rivals() -> None:
    """All rewards equal: only the margin can prefer family 1."""
    rows = {}
    for elite in (True, False):
        learner = toy()
        for _ in range(100):
            size = 32
            learner.update(
                batch(np.ones(size, np.int64), np.zeros(size), np.ones((size, 2), np.bool_), np.zeros(size), elite),
                torch.tensor([START] * size),
                torch.tensor([START] * size),
            )
        with torch.no_grad():
            now, later = learner.values(torch.tensor([START]))[0].tolist()
        rows[elite] = later - now
    assert rows[True] > 0.04
    assert rows[False] < rows[True] - 0.03


def test_soft_update_moves_by_tau() -> None:
    learner = separate(True)
    old = [p.clone() for p in learner.frozen.parameters()]
    soft_update(learner.frozen, learner.online, 0.25)
    for before, after, online in zip(old, learner.frozen.parameters(), learner.online.parameters(), strict=True):
        assert torch.allclose(after, 0.75 * before + 0.25 * online)
