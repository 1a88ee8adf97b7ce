"""The guard against fitting the search samples, tried on trials whose luck is known."""

from __future__ import annotations

import numpy as np

from hwc_onnx.accuracy.splits import stratified_order
from hwc_onnx.search.guard import FEW, FEWEST, SPLITS, Guard, contrasts
from hwc_onnx.search.problem import Outcome
from hwc_onnx.search.study import run_search
from tests.search.synthetic import SyntheticProblem

SAMPLES = 2048


def outcome_of(differences: np.ndarray, damage: float) -> Outcome:
    return Outcome(
        energy=0.5,
        drop_points=100.0 * float(differences.mean()),
        standard_error=100.0 * float(differences.std()) / np.sqrt(len(differences)),
        damage=damage,
        n_samples=len(differences),
        contrasts=contrasts(differences, 100.0),
    )


def trials(merit: float, seed: int, count: int = 120) -> list[Outcome]:
    """Plans of one damage whose true drops scatter by `merit` points around 0.7; each on samples of its own."""
    rng = np.random.default_rng(seed)
    drops = 0.007 + merit / 100.0 * rng.normal(size=count)
    return [
        outcome_of((rng.random(SAMPLES) < 0.03 + drop).astype(float) - (rng.random(SAMPLES) < 0.03), 0.02)
        for drop in drops
    ]


def test_contrasts_are_half_the_difference_between_halves() -> None:
    """A drop on one half only is half seen in the sum and half in each contrast, whichever way its sign is."""
    differences = np.random.default_rng(0).normal(size=SAMPLES)
    found = contrasts(differences, 100.0)
    assert len(found) == SPLITS == len(set(found))
    assert np.allclose(contrasts(np.ones(SAMPLES), 100.0), 0.0)
    for sample in (0, 7, SAMPLES - 1):
        alone = np.zeros(SAMPLES)
        alone[sample] = 1.0
        assert np.allclose(np.abs(contrasts(alone, 100.0)), 100.0 / SAMPLES)
    assert contrasts(differences[: FEWEST - 1], 100.0) == ()


def test_classes_that_take_turns_do_not_look_like_luck() -> None:
    """The order of a stratified split: a plan that loses on some classes only loses as much on each half."""
    labels = np.random.default_rng(0).permutation(np.arange(SAMPLES) % 8)
    order = stratified_order(labels, SAMPLES, np.random.default_rng(1))
    lost = np.isin(labels[order], (1, 4))
    chance = 100.0 * float(lost.std()) / np.sqrt(SAMPLES)
    assert np.sqrt(np.mean(np.square(contrasts(lost.astype(float), 100.0)))) < 2.0 * chance
    turns = [1.0 - 2.0 * ((np.arange(SAMPLES) >> k) & 1) for k in range(SPLITS)]  # a broken twin: halves in turns
    assert max(abs(100.0 * float((turn * lost).mean())) for turn in turns) > 2.0 * chance


def scatter_alone(outcomes: list[Outcome]) -> float:
    """A broken twin: it takes all scatter for merit."""
    return 1.0 if np.var([outcome.drop_points for outcome in outcomes]) > 0.0 else 0.0


def test_luck_alone_is_not_believed_and_merit_is() -> None:
    luck = [trials(0.0, seed) for seed in range(5)]
    assert np.median([Guard(found, 1.0).reliability for found in luck]) < 0.3
    assert not np.median([scatter_alone(found) for found in luck]) < 0.3
    merit = [trials(1.5, seed) for seed in range(5)]
    assert np.median([Guard(found, 1.0).reliability for found in merit]) > 0.8


def test_first_trials_are_believed() -> None:
    outcomes = trials(0.0, 3, count=2)
    assert Guard(outcomes, 1.0).reliability == 1.0
    assert Guard(outcomes, 1.0).accepted_drop(outcomes[0]) == outcomes[0].drop_points


def test_good_luck_is_taken_off_and_bad_luck_not_given_back() -> None:
    outcomes = trials(0.0, 1)
    guard = Guard(outcomes, 1.0)
    drops = np.array([outcome.drop_points for outcome in outcomes])
    guarded = np.array([guard.accepted_drop(outcome) for outcome in outcomes])
    expected = float(guard.drop_map.drop(np.array([0.02]))[0])
    assert np.all(guarded >= drops - 1e-12)
    lucky = drops < expected
    assert lucky.any() and np.all(guarded[lucky] <= expected + 1e-12) and np.all(guarded[lucky] > drops[lucky])
    assert np.array_equal(guarded[~lucky], drops[~lucky])


def test_a_metric_without_samples_is_not_guarded() -> None:
    outcomes = [Outcome(0.5, drop, 0.0, 0.02) for drop in (0.1, 0.5, 0.9, 0.4)]
    assert [Guard(outcomes, 1.0).accepted_drop(outcome) for outcome in outcomes] == [0.1, 0.5, 0.9, 0.4]


def test_the_search_keeps_its_word_on_unseen_samples() -> None:
    """Drop beyond the search samples less the drop on them, over problems: smaller with the guard."""
    gaps = {}
    for guard in (True, False):
        found = []
        for seed in (2, 5, 9):
            problem = SyntheticProblem(layers=10, images=1000, seed=seed)
            best = run_search(problem, sampler="knapsack", trials=60, seed=seed, guard=guard).history.searched().best
            assert best is not None
            found.append(problem.unseen_drop(best.choices) - best.outcome.drop_points)
        gaps[guard] = float(np.mean(found))
    assert gaps[True] < gaps[False]


def decibels(damage: float, complete: bool = False) -> Outcome:
    """A plan measured by a logarithmic metric, from a baseline whose damage is 0.001; not `complete`: given up early."""
    return Outcome(0.5, 10.0 * float(np.log10(damage / 0.001)), 0.1, damage, n_samples=256, complete=complete)


def test_plans_far_beyond_the_limit_that_were_given_up_tell_where_it_lies() -> None:
    """Each next plan is made where the limit of 1 dB is expected; 6 of them come near it. Complete ones alone tell nothing."""
    outcomes = [decibels(0.001, complete=True)]
    for _ in range(6):
        outcomes.append(decibels(max(Guard(outcomes, 1.0).drop_map.damage(1.0), 0.00105)))
    assert abs(outcomes[-1].drop_points - 1.0) < 0.7
    deaf = [decibels(0.001, complete=True)]  # a broken twin: what was given up is not heard of
    assert decibels(Guard(deaf, 1.0).drop_map.damage(1.0)).drop_points > 10.0


def test_once_enough_plans_are_complete_the_others_are_left_out() -> None:
    whole = [decibels(damage, complete=True) for damage in np.geomspace(0.001, 0.002, FEW)]
    odd = [Outcome(0.5, 40.0, 0.1, 0.0015, n_samples=256, complete=False)]
    assert Guard([*whole, *odd], 3.0).drop_map.drop(np.array([0.0015])) == Guard(whole, 3.0).drop_map.drop(np.array([0.0015]))
