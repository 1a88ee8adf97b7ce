"""What a plan is expected to gain in energy and damage together, against draws from the forecast."""

from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.history import History
from hwc_onnx.search.local import ABOVE, BELOW, Price, expected_gain, neighbours_of
from hwc_onnx.search.model import Model
from hwc_onnx.search.study import run_search
from hwc_onnx.search.surrogate import DamageTable
from tests.search.synthetic import SyntheticProblem

PROBLEM = SyntheticProblem(layers=4, images=400)


@pytest.fixture(scope="module")
def history() -> History:
    return run_search(PROBLEM, sampler="knapsack", trials=14).history


@pytest.fixture(scope="module")
def model(history: History) -> Model:
    return Model(PROBLEM, DamageTable(PROBLEM), history, np.random.default_rng(0))


def test_price_adds_damage_to_energy_and_knows_nothing_far_from_the_limit() -> None:
    price = Price(0.1, float(np.log(0.02)))
    assert price.total(0.5, 0.02) == pytest.approx(0.5)
    assert price.total(0.5, 0.02 * np.exp(-0.5)) == pytest.approx(0.45)
    assert np.isinf(price.total(0.5, 0.02 * np.exp(ABOVE + 0.01))) and np.isinf(price.total(0.5, 0.02 * np.exp(-BELOW - 0.01)))


def test_leader_is_the_best_of_complete_plans_near_the_limit(history: History, model: Model) -> None:
    price = Price(0.1, float(np.log(model.borne())))
    leader = price.leader(history)
    assert leader is not None and leader.outcome.complete
    totals = [price.total(r.outcome.energy, r.outcome.damage) for r in history.measured() if r.outcome.complete]
    assert price.total(leader.outcome.energy, leader.outcome.damage) == min(totals)
    assert Price(0.1, float(np.log(1e6))).leader(history) is None


def test_expected_gain_is_the_mean_of_what_draws_gain(history: History, model: Model) -> None:
    price = Price(0.1, float(np.log(model.borne())))
    decoder = Decoder(PROBLEM, PROBLEM.space)
    leader = price.leader(history)
    assert leader is not None
    plans = neighbours_of(decoder, model, leader.choices, np.random.default_rng(0))[:40]
    best = price.total(leader.outcome.energy, leader.outcome.damage)
    found = expected_gain(model, decoder, plans, leader.choices, price, best)
    seen = model.forecast(np.array(plans))
    draws = seen.log_damage + seen.doubt * np.random.default_rng(1).normal(size=(20_000, len(plans)))
    energy = np.array([PROBLEM.energy(plan) for plan in plans])
    gains = np.maximum(best - energy - price.exchange * (draws - price.log_damage), 0.0).mean(axis=0)
    near = found >= 0.0
    assert near.sum() > 5
    assert np.allclose(found[near], gains[near], atol=2e-3)
    certain = np.maximum(best - energy - price.exchange * (seen.log_damage - price.log_damage), 0.0)  # a broken twin: without doubt
    assert not np.allclose(certain[near], gains[near], atol=2e-3)
