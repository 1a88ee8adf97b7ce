"""Positions in menus: what a walk means, its energy and damage step by step, the wall, shaping, and the strategy on top."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from hwc_onnx.search.ddpg import DDPG, DDPGConfig
from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.environment import Situation
from hwc_onnx.search.features import FAMILIES, family_of
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.model import Model
from hwc_onnx.search.position_agent import PositionAgent
from hwc_onnx.search.positions import SPENDING, WALL, Menus, PositionEnv, Walk, order_of, terminal
from hwc_onnx.search.space import Space
from hwc_onnx.search.study import run_search
from hwc_onnx.search.surrogate import DamageTable
from tests.search.synthetic import SyntheticProblem

PROBLEM = SyntheticProblem(layers=4, images=300)
PLAIN = family_of("none")


def situation_of(problem: SyntheticProblem, trials: int = 8) -> Situation:
    space = Space(problem.units)
    history = History(space, problem.limit_points)
    rng = np.random.default_rng(0)
    for number in range(trials):
        choices = space.random(rng) if number else space.canonical(problem.start)
        history.append(Record(number, choices, problem.evaluate(choices), "seed", True, 0.0))
    model = Model(problem, DamageTable(problem), history, rng)
    return Situation(model, Decoder(problem, space), [space.canonical(problem.start)], 0.0)


@pytest.fixture(scope="module")
def situation() -> Situation:
    return situation_of(PROBLEM)


def walk_of(situation: Situation, episodes: int = 1) -> Walk:
    space = situation.decoder.space
    return Walk(situation, Menus(situation), order_of(PROBLEM, space), episodes)


def drawn(walk: Walk, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    mask = walk.mask()
    family = np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=1)
    return rng.uniform(-1.0, 1.0, len(mask)), family


def test_menus_hold_what_nothing_of_the_algorithm_beats_mild_first(situation: Situation) -> None:
    menus, table = Menus(situation), situation.model.table
    start = situation.decoder.space.canonical(PROBLEM.start)
    for u, unit in enumerate(PROBLEM.units):
        energy, damage = situation.decoder.rows.row(start, u), table.damage[u]
        for family in range(FAMILIES):
            own = [o for o, option in enumerate(unit.options) if family_of(option.algorithm) == family]
            unbeaten = {
                o
                for o in own
                if not any(
                    energy[p] <= energy[o] and damage[p] <= damage[o] and (energy[p], damage[p]) != (energy[o], damage[o]) for p in own
                )
            }
            size = menus.sizes[u, family]
            found = menus.options[u, family, :size].tolist()
            assert {(energy[o], damage[o]) for o in found} == {(energy[o], damage[o]) for o in unbeaten}
            assert all(damage[a] <= damage[b] and energy[a] >= energy[b] for a, b in itertools.pairwise(found))


def test_order_has_every_unit_once_and_each_layer_after_its_group_and_tensors() -> None:
    space = Space(PROBLEM.units)
    order = order_of(PROBLEM, space)
    assert sorted(order) == list(range(len(PROBLEM.units)))
    place = {u: at for at, u in enumerate(order)}
    for u, unit in enumerate(PROBLEM.units):
        if unit.kind == "layer" and u in space.owner:
            assert place[space.owner[u]] < place[u]
        for other, tensor in enumerate(PROBLEM.units):
            if unit.kind == "layer" and tensor.kind == "activation" and unit.name in tensor.layers:
                assert place[other] < place[u]


def test_walk_keeps_energy_and_damage_of_the_plan_at_every_step(situation: Situation) -> None:
    rng = np.random.default_rng(1)
    walk = walk_of(situation, episodes=16)
    cost = situation.model.table.costs(situation.model.surrogate.mean)
    units = np.arange(len(PROBLEM.units))
    while not walk.finished:
        walk.act(*drawn(walk, rng))
        for plan, energy, damage in zip(walk.choices, walk.energy, walk.damage, strict=True):
            np.testing.assert_array_equal(plan, situation.decoder.space.canonical(plan))
            assert energy == pytest.approx(situation.decoder.rows.total(plan), abs=1e-12)
            assert damage == pytest.approx(cost[units, plan].sum(), rel=1e-9)
    assert len(np.unique(walk.choices, axis=0)) > 4


def test_walk_energy_without_couplings_is_wrong(situation: Situation) -> None:
    """Broken twin: each unit's own saving added up, as if units were alone."""
    rng, rows = np.random.default_rng(1), situation.decoder.rows
    walk = walk_of(situation, episodes=16)
    start = situation.decoder.space.canonical(PROBLEM.start)
    while not walk.finished:
        walk.act(*drawn(walk, rng))
    alone = [
        rows.total(start) + sum(rows.row(start, u)[o] - rows.row(start, u)[start[u]] for u, o in enumerate(plan)) for plan in walk.choices
    ]
    assert np.abs(np.array(alone) - walk.energy).max() > 0.01


def test_walk_stays_before_the_wall_and_the_mildest_way_is_always_open(situation: Situation) -> None:
    model = situation.model
    allowed = model.target(model.accepted_drop())
    walk = walk_of(situation, episodes=8)
    while not walk.finished:
        mask = walk.mask()
        assert mask[:, PLAIN].all()
        walk.act(np.ones(8), mask.cumsum(axis=1).argmax(axis=1))
    start = situation.decoder.space.canonical(PROBLEM.start)
    floor = model.table.costs(model.surrogate.mean)[np.arange(len(start)), start].sum()
    assert (walk.damage <= max(WALL * allowed, floor) + 1e-12).all()
    assert walk.energy.max() < situation.decoder.rows.total(start)


def test_walk_follows_any_plan_and_its_places_lead_back(situation: Situation) -> None:
    rng, menus = np.random.default_rng(3), Menus(situation)
    for _ in range(5):
        plan = situation.decoder.space.random(rng)
        walk = walk_of(situation)
        for unit in list(walk.order):
            walk.follow(int(plan[unit]))
        np.testing.assert_array_equal(walk.choices[0], plan)
        for u, option in enumerate(plan):
            family, position = menus.place(u, int(option))
            size = int(menus.sizes[u, family])
            back = menus.options[u, family, round((position + 1.0) / 2.0 * (size - 1))]
            assert PROBLEM.units[u].options[back].algorithm == PROBLEM.units[u].options[option].algorithm
            if option in menus.options[u, family, :size]:
                assert back == option


def test_terminal_reward_is_the_saving_within_the_limit_and_falls_beyond(situation: Situation) -> None:
    within, beyond = situation.model.drop_map.damage(0.5), situation.model.drop_map.damage(2.0)
    found = terminal(situation, np.array([0.3, 0.6, 0.3, 0.1]), np.array([within, within, beyond, 50.0]))
    assert found[0] == pytest.approx(0.7) and found[1] == pytest.approx(0.4)
    assert found[2] < found[1] and found[3] == -1.0


def test_environment_passes_the_checker_of_gymnasium(situation: Situation) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*alternative render modes.*")
        check_env(PositionEnv(situation))


@pytest.mark.parametrize("seed", range(4))
def test_environment_shaping_changes_no_return(situation: Situation, seed: int) -> None:
    """Ng et al. (ICML 1999): with potentials the sum of rewards is that without, less the first potential (here zero)."""
    env, rng = PositionEnv(situation), np.random.default_rng(seed)
    _, info = env.reset(seed=seed)
    total, done, parts = 0.0, False, []
    while not done:
        family = int(rng.choice(np.flatnonzero(info["mask"])))
        _, reward, done, _, info = env.step({"position": rng.uniform(-1, 1, 1).astype(np.float32), "family": family})
        assert info["energy"] == pytest.approx(situation.decoder.rows.total(env.choices))
        total += reward
        parts.append(reward)
    log_damage, _ = situation.model.surrogate.predict(env.choices[None, :])
    expected = terminal(situation, np.array([info["energy"]]), np.exp(log_damage))[0]
    assert total == pytest.approx(expected)
    assert sum(reward != 0.0 for reward in parts[:-1]) > 2 and SPENDING > 0.0


def test_environment_reads_an_absent_algorithm_as_none(situation: Situation) -> None:
    plans = []
    for family in (PLAIN, FAMILIES - 1):
        env = PositionEnv(situation)
        env.reset(seed=0)
        env.step({"position": np.array([1.0], np.float32), "family": family})
        plans.append(env.choices)
    np.testing.assert_array_equal(*plans)


def test_critic_of_one_family_ignores_the_positions_of_others() -> None:
    for per_family in (True, False):
        agent = DDPG(5, FAMILIES, FAMILIES, torch.Generator().manual_seed(0), DDPGConfig(per_family=per_family))
        seen, action = torch.zeros(1, 5), torch.zeros(1, FAMILIES)
        moved = action.clone()
        moved[0, 3] = 0.9
        same = [agent.value(seen, a, torch.tensor([2])).item() for a in (action, moved)]
        own = [agent.value(seen, a, torch.tensor([3])).item() for a in (action, moved)]
        assert own[0] != own[1]
        assert (same[0] == same[1]) is per_family


def test_strategy_proposals_and_networks_follow_from_the_record() -> None:
    found = run_search(PROBLEM, sampler="positions", trials=20, seed=1)
    records = found.history.records
    for cut in (6, 11, 17):
        history = History(Space(PROBLEM.units), PROBLEM.limit_points)
        for record in records[:cut]:
            history.append(record)
        proposal = PositionAgent(PROBLEM, 1, 20).propose(history)
        assert proposal is not None and proposal.origin == records[cut].origin
        np.testing.assert_array_equal(proposal.choices, records[cut].choices)


def test_strategy_finds_better_plans_than_the_first_ones_without_the_local_search() -> None:
    gained = {}
    for seed in range(2):
        problem = SyntheticProblem(layers=8, images=600, seed=seed)
        found = run_search(problem, sampler="positions", trials=30, seed=seed)
        gained[seed] = found.history.gained().get("policy", 0.0)
        origins = {record.origin for record in found.history.records}
        assert {"seed", "policy", "local_search"} <= origins
    assert max(gained.values()) > 0.0
