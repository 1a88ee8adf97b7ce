from __future__ import annotations

import math

import numpy as np
import pytest

from hwc_onnx.accuracy.early_stop import EarlyStop, excess_z


def split(total: int, harmed: int, mended: int) -> np.ndarray:
    differences = np.zeros(total)
    differences[:harmed], differences[harmed : harmed + mended] = 1, -1
    return differences


def stopped_share(differences: np.ndarray, stop: EarlyStop, rounds: int, seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    total, count = len(differences), 0
    for _ in range(rounds):
        order = rng.permutation(differences)
        count += any(stop.stops(order[:look], total, 100.0) for look in stop.looks(total))
    return count / rounds


@pytest.mark.parametrize(
    ("total", "harmed", "mended"),
    [(4096, 80, 39), (3976, 200, 160), (2048, 120, 100), (1024, 30, 20), (1024, 12, 2), (4096, 41, 0)],
)
def test_early_stop_candidate_exactly_at_the_limit_is_rarely_stopped(total, harmed, mended):
    stop = EarlyStop(limit_points=100 * (harmed - mended) / total)
    # 2.5% in all, plus two standard errors of the simulation
    assert stopped_share(split(total, harmed, mended), stop, 1500) <= 0.025 + 2 * math.sqrt(0.025 * 0.975 / 1500)


@pytest.mark.parametrize("sign", [1, -1])
def test_early_stop_skewed_losses_are_rarely_stopped(sign):
    losses = sign * np.random.default_rng(2).lognormal(size=2048)
    stop = EarlyStop(limit_points=100 * losses.mean())
    assert stopped_share(losses, stop, 1000) <= 0.025 + 2 * math.sqrt(0.025 * 0.975 / 1000)


def test_early_stop_full_level_at_every_look_errs_too_often():
    """Broken twin: without spending, each look at 2.5% makes more errors than allowed."""
    losses = np.random.default_rng(2).normal(size=4096)
    limit = losses.mean()
    rng = np.random.default_rng(0)
    count = 0
    for _ in range(1500):
        order = rng.permutation(losses)
        looks = EarlyStop().looks(4096)
        count += any(excess_z(order[:n], limit) / math.sqrt(1 - n / 4096) > 1.96 for n in looks)
    assert count / 1500 > 0.045


@pytest.mark.parametrize("margin", [1.0, -1.0])
def test_early_stop_margin_candidate_just_of_use_is_rarely_stopped(margin):
    differences = split(4096, 80, 60)
    error = differences.std() / 64
    stop = EarlyStop(limit_points=100 * (differences.mean() + margin * error), margin=margin)
    assert stopped_share(differences, stop, 1500) <= 0.025 + 2 * math.sqrt(0.025 * 0.975 / 1500)


def test_early_stop_margin_stops_more_of_what_would_be_refused():
    differences = split(4096, 100, 40)
    plain, strict = EarlyStop(limit_points=1.0), EarlyStop(limit_points=1.0, margin=1.0)
    assert stopped_share(differences, strict, 500) > stopped_share(differences, plain, 500)


def test_early_stop_bad_candidate_stops_at_the_first_look():
    differences = np.random.default_rng(0).permutation(split(4096, 500, 40))
    assert EarlyStop(1.0).stops(differences[:256], 4096, 100.0)


def test_early_stop_harmless_candidate_goes_on():
    differences = np.random.default_rng(0).permutation(split(4096, 40, 30))
    assert not any(EarlyStop(1.0).stops(differences[:n], 4096, 100.0) for n in EarlyStop().looks(4096))


def test_early_stop_hopeless_energy_stops_at_the_first_look_only():
    stop = EarlyStop(hopeless=True)
    assert stop.stops(np.zeros(256), 1024, 100.0)
    assert not stop.stops(np.zeros(200), 1024, 100.0)


def test_early_stop_looks_double_below_the_total():
    assert EarlyStop().looks(4096) == (256, 512, 1024, 2048)
    assert EarlyStop().looks(1000) == (256, 512)
    assert EarlyStop().looks(200) == ()
