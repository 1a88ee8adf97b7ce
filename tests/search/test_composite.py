"""The whole agent on made-up networks: what it finds, and that its state is a function of seed and record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwc_onnx.search import composite
from hwc_onnx.search.agents import Agents
from hwc_onnx.search.checkpoint import Checkpoint
from hwc_onnx.search.composite import Composite, CompositeConfig
from hwc_onnx.search.gate import MOST_LOOKS
from hwc_onnx.search.history import History
from hwc_onnx.search.ladder import Ladder
from hwc_onnx.search.replay import Transition
from hwc_onnx.search.space import Space
from hwc_onnx.search.study import SearchResult, run_search
from tests.search.synthetic import SyntheticProblem

PROBLEM = SyntheticProblem(layers=4, images=300)
TRIALS = 16


def energy(found: SearchResult) -> float:
    assert found.best is not None and found.best.outcome.accepted(PROBLEM.limit_points)
    return found.best.outcome.energy


def passes(problem: SyntheticProblem, history: History) -> float:
    """The energy of the last plan, from the safest on, that keeps the limit on images that no trial saw."""
    reached = 1.0
    for step in Ladder.of(history, problem.start).climbed(MOST_LOOKS):
        if problem.unseen_drop(step.choices) > problem.limit_points:
            break
        reached = step.outcome.energy
    return reached


def median(sampler: str, trials: int = TRIALS) -> float:
    problems = [SyntheticProblem(layers=4, images=400, seed=seed) for seed in (0, 1, 2)]
    found = [run_search(p, sampler=sampler, trials=trials, seed=s) for s, p in enumerate(problems)]
    assert all(result.spent.evaluations <= trials for result in found)
    assert all(energy(result) < 1.0 for result in found)
    return float(np.median([passes(p, result.history) for p, result in zip(problems, found, strict=True)]))


@pytest.fixture(scope="module")
def random_median() -> float:
    return median("random")


def test_composite_beats_random_at_equal_budget_and_equal_seeds(random_median: float) -> None:
    assert median("composite") < 0.85 * random_median


def test_composite_that_prefers_the_least_promising_plan_does_not(
    random_median: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin flips the sign of what plans are expected to bring."""
    improvement, gain = composite.expected_improvement, composite.expected_gain
    monkeypatch.setattr(composite, "expected_improvement", lambda *inputs: -improvement(*inputs))
    monkeypatch.setattr(composite, "expected_gain", lambda *inputs: -gain(*inputs))
    assert median("composite") >= 0.85 * random_median


def test_composite_each_switch_off_still_proposes_new_plans_only() -> None:
    for config in (CompositeConfig(policy=False), CompositeConfig(local=False), CompositeConfig(rollouts=0)):
        strategy = Composite(PROBLEM, 0, 20, config=config)
        history = run_search(PROBLEM, sampler="random", trials=8).history
        proposal = strategy.propose(history)
        assert proposal is not None and history.find(proposal.choices) is None
        assert proposal.origin != "policy" or config.policy


@pytest.fixture(scope="module")
def found() -> SearchResult:
    return run_search(PROBLEM, trials=TRIALS, seed=0)


def plans(result: SearchResult) -> list[list[int]]:
    return [record.choices.tolist() for record in result.history.records]


def test_composite_same_seed_same_trials_other_seed_other_trials(found: SearchResult) -> None:
    assert plans(run_search(PROBLEM, trials=TRIALS, seed=0)) == plans(found)
    assert plans(run_search(PROBLEM, trials=TRIALS, seed=1)) != plans(found)


def test_composite_trials_come_from_all_of_its_sources(found: SearchResult) -> None:
    origins = {record.origin for record in found.history.records}
    assert {"seed", "local_search"} <= origins
    assert origins & {"rollout", "policy"}


def prefix(result: SearchResult, count: int) -> History:
    history = History(result.history.space, PROBLEM.limit_points)
    for record in result.history.records[:count]:
        history.append(record)
    return history


def grown(result: SearchResult, count: int, seed: int = 0) -> Composite:
    """The strategy after it has learned from the first trials."""
    strategy = Composite(PROBLEM, seed, TRIALS)
    strategy.propose(prefix(result, count))
    return strategy


def test_composite_state_does_not_depend_on_how_often_it_was_asked(found: SearchResult) -> None:
    often = Composite(PROBLEM, 0, TRIALS)
    for count in range(6, 14):
        often.propose(prefix(found, count))
    once = grown(found, 13)
    assert often._agents is not None and once._agents is not None
    first, second = often._agents.state(), once._agents.state()
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_agents_restored_act_and_learn_as_before(found: SearchResult) -> None:
    agents = grown(found, 13)._agents
    assert agents is not None and agents.ddpg.updates > 0
    copy = Agents.restored(agents.size, agents.families, agents.state())
    for each in (agents, copy):
        each.train(4, np.random.default_rng(0))
    first, second = agents.state(), copy.state()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_agents_learn_which_correction_pays_from_credited_decisions() -> None:
    """Upward corrections are credited, downward ones debited; the twin with flipped credit must learn the opposite."""
    corrections = {}
    for sign in (1.0, -1.0):
        agents = Agents(0, 6, 3)
        rng = np.random.default_rng(0)
        seen = rng.normal(size=6).astype(np.float32)
        mask = np.ones(3, dtype=np.bool_)
        rows = [
            Transition(seen, np.array([a], np.float32), 0, sign * 0.5 * float(a), seen, mask, 0.0)
            for a in rng.uniform(-1, 1, 200)
        ]
        agents.store_simulated(rows)
        agents.train(80, rng)
        corrections[sign] = float(agents.ddpg.act(seen[None, :])[0][0, 0])
    assert corrections[1.0] > 0.3 and corrections[-1.0] < -0.3


def test_checkpoint_round_trip_belongs_to_its_trials_seed_and_budget_only(found: SearchResult, tmp_path: Path) -> None:
    agents = grown(found, 12)._agents
    assert agents is not None
    history = prefix(found, 12)
    path = tmp_path / "agent.safetensors"
    Checkpoint(path, "seed 0").save(history, agents)
    restored = Checkpoint(path, "seed 0").load(found.history)
    assert restored is not None and restored[0] == 12
    state = agents.state()
    assert all(np.array_equal(state[name], array) for name, array in restored[1].state().items())
    assert Checkpoint(path, "seed 1").load(found.history) is None
    assert Checkpoint(path, "seed 0").load(prefix(found, 11)) is None
    other = History(Space(PROBLEM.units), PROBLEM.limit_points)
    for record in reversed(found.history.records):
        other.append(record)
    assert Checkpoint(path, "seed 0").load(other) is None


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_checkpoint_damaged_file_is_ignored(found: SearchResult, tmp_path: Path, damage: bytes | None) -> None:
    agents = grown(found, 12)._agents
    assert agents is not None
    path = tmp_path / "agent.safetensors"
    Checkpoint(path, "").save(prefix(found, 12), agents)
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    assert Checkpoint(path, "").load(found.history) is None
